"""What this package promises of every error that a user sees."""

from __future__ import annotations

import traceback
from collections.abc import Iterable

from airflow.providers.common.compat.sdk import TaskDeferred


def assert_clear(
    error: BaseException, *names: str, secrets: Iterable[str] = (), http_frames: bool = True
) -> str:
    """
    Check that an error is one line that names things, holds no secret and drags no other error behind it.

    :param names: what the message must name.
    :param secrets: what neither message nor traceback may hold.
    :param http_frames: whether its own traceback may lead through the HTTP client.
    :return: the message.
    """
    message = str(error)
    assert message.strip(), "The error has no message"
    for name in names:
        assert name in message
    assert error.__cause__ is None
    if isinstance(error.__context__, TaskDeferred):  # raised by a task that the tests resumed
        error.__context__ = None
    assert error.__context__ is None or error.__suppress_context__
    trace = "".join(traceback.format_exception(error))
    for secret in secrets:
        assert secret not in trace
    if not http_frames:
        assert "/httpx/" not in trace
        assert "/httpcore/" not in trace
    return message
