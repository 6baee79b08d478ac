"""What the emulated CDF refuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class CdfError(Exception):
    """
    A request that CDF refuses.

    :param message: what was refused and why, as CDF says it
    :param missing: the identifiers that do not exist, where CDF names them
    :param location: the way to the part of the request that is at fault
    """

    def __init__(
        self,
        message: str,
        *,
        missing: list[dict[str, str]] | None = None,
        location: Iterable[int | str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.missing = missing
        self.location = tuple(location)


class InvalidRequestError(CdfError):
    """The request is malformed, or does not fit the state of what it asks for."""


class UnknownSubworkflowError(InvalidRequestError):
    """A subworkflow task refers to a version that does not exist, or not yet."""


class NotFoundError(CdfError):
    """What the request names does not exist."""


def describe(error: Mapping[str, Any], value: Any) -> str:
    """
    One validation error as one sentence that begins with the field: ``items[0].externalId: Field required``.

    :param error: one of pydantic's ``errors()``
    :param value: what was validated
    """
    path = ""
    for position, step in enumerate(error["loc"]):
        if isinstance(step, int):
            path += f"[{step}]"
            value = value[step] if isinstance(value, list) and step < len(value) else None
        elif isinstance(value, dict) and (step in value or _is_missing_key(error, position)):
            path += f".{step}" if path else step
            value = value.get(step)
        # Any other step is pydantic's own name for a member of a union.
    message = plain_message(error)
    return f"{path}: {message}" if path else message


def plain_message(error: Mapping[str, Any]) -> str:
    """
    What a validation error says, without what only concerns how it was found.

    :param error: one of pydantic's ``errors()``
    """
    return str(error["msg"]).removeprefix("Value error, ").replace(" after validation", "")


def _is_missing_key(error: Mapping[str, Any], position: int) -> bool:
    return bool(error["type"] == "missing") and position == len(error["loc"]) - 1
