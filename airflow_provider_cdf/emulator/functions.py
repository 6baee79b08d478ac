"""Functions that need more than a rule: webhooks, and those that the command line names."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from dataclasses import dataclass
from typing import Any

import httpx

from airflow_provider_cdf.emulator.rules.functions import Reply

_NAMED = re.compile(r"([\w.]+):(\w+)")


@dataclass(frozen=True, slots=True)
class Webhook:
    """
    A function that sends its data to another system: "the function triggers a third party", without code.

    :param url: where to POST the data as JSON; the JSON of the answer becomes the function's response
    :param timeout: seconds to wait for the answer
    """

    url: str
    timeout: float = 30

    def __call__(self, data: dict[str, Any]) -> Any:
        answer = httpx.post(self.url, json=data, timeout=self.timeout)
        if not answer.is_success:
            raise RuntimeError(f"The webhook answered with status {answer.status_code}")
        try:
            return answer.json()
        except ValueError:
            return {"text": answer.text}


def from_text(text: str) -> Any:
    """
    What a function does, from the command line.

    :param text: the URL of a webhook, ``module:function``, a fixed response in JSON, or ``!`` and the reason
        why each call fails
    :raises ValueError: if it is none of these
    """
    if text.startswith("!"):
        return Reply(error=text[1:].strip() or "The function failed, as it was told to")
    if text.startswith(("http://", "https://")):
        return Webhook(text)
    with contextlib.suppress(ValueError):
        return json.loads(text)
    if not _NAMED.fullmatch(text):
        raise ValueError(
            f"'{text}' is neither the URL of a webhook, nor module:function, nor JSON, nor !REASON"
        )
    if not callable(handler := named(text)):
        raise ValueError(f"'{text}' is not a function")
    return handler


def named(text: str) -> Any:
    """
    What a module has under a name.

    :param text: ``module:name``
    :raises ValueError: if it is not of this form, or cannot be loaded
    """
    if not (match := _NAMED.fullmatch(text)):
        raise ValueError(f"'{text}' is not of the form MODULE:NAME")
    try:
        return getattr(importlib.import_module(match[1]), match[2])
    except Exception as error:  # whatever a module does while it is imported
        raise ValueError(f"'{text}' cannot be loaded: {type(error).__name__}: {error}") from None
