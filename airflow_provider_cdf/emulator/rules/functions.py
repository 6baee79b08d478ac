"""What functions do: give a fixed answer, or run a Python callable."""

from __future__ import annotations

import copy
import inspect
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

#: ``handle(client, data, secrets, function_call_info)``, of which a handler takes what it names.
Handler = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """
    A fixed answer of a function.

    :param response: the ``response`` in the task's output
    :param seconds: how long the call takes, in workflow time; None for the emulator's default
    :param error: if given, the call fails with this message
    """

    response: Any = field(default_factory=dict)
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call of a handler that waits to be made by what drives the engine."""

    task_id: str
    call_id: int
    function_id: int
    function_external_id: str
    handler: Handler
    #: The task's data plus ``cogniteOrchestrationTaskId``, the only id that CDF passes on.
    data: dict[str, Any]


def to_text(response: Any) -> str:
    """
    A response in JSON.

    :param response: of a function
    :raises ValueError: if it cannot be written in JSON, saying why
    """
    try:
        text = json.dumps(response, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        text.encode()  # a lone surrogate is none of Unicode's characters
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from None
    return text


class Functions:
    """
    The functions by external id. One that is not configured answers with an empty object.

    :param configured: external id -> a :class:`Reply`, a handler, or any JSON value as fixed response
    """

    def __init__(self, configured: Mapping[str, Any] | None = None) -> None:
        self._functions: dict[str, Reply | Handler] = {}
        for external_id, behaviour in (configured or {}).items():
            self.set(external_id, behaviour)

    def set(self, external_id: str, behaviour: Any) -> None:
        """
        Choose what a function does from now on.

        :param external_id: of the function
        :param behaviour: a :class:`Reply`, a handler, or any JSON value as fixed response
        :raises ValueError: if the response is no JSON
        """
        if callable(behaviour):
            self._functions[external_id] = behaviour
            return
        reply = behaviour if isinstance(behaviour, Reply) else Reply(behaviour)
        try:
            to_text(reply.response)
        except ValueError as error:
            raise ValueError(f"The response of '{external_id}' {error}") from None
        self._functions[external_id] = replace(reply, response=copy.deepcopy(reply.response))

    def get(self, external_id: str, default: Reply | None = None) -> Reply | Handler:
        behaviour = self._functions.get(external_id, default)
        return Reply() if behaviour is None else behaviour

    def names(self) -> list[str]:
        """The external ids of the functions that are configured."""
        return list(self._functions)

    @staticmethod
    def id_of(external_id: str) -> int:
        """The numeric id of a function, always the same for the same external id."""
        return 1_000_000_000_000 + zlib.crc32(external_id.encode(errors="replace"))


def call_handler(
    call: FunctionCall, client: Callable[[], Any], secrets: Mapping[str, str] = MappingProxyType({})
) -> Any:
    """
    Call a handler the way CDF does: by keyword, with those of its parameters that it names.

    :param call: the call to make
    :param client: makes the client, which costs something, for handlers that take one
    :param secrets: for handlers that take them
    """
    available: dict[str, Callable[[], Any]] = {
        "client": client,
        "data": lambda: copy.deepcopy(call.data),
        "secrets": lambda: dict(secrets),
        "function_call_info": lambda: {
            "function_id": str(call.function_id),
            "call_id": str(call.call_id),
            "schedule_id": None,
            "scheduled_time": None,
        },
    }
    try:
        wanted = inspect.signature(call.handler).parameters.values()
    except ValueError:  # some callables written in C have no signature
        return call.handler(call.data)
    named = {parameter.name for parameter in wanted if parameter.kind is not parameter.VAR_KEYWORD}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in wanted):
        named |= set(available) - {"client"}
    return call.handler(**{name: available[name]() for name in named if name in available})
