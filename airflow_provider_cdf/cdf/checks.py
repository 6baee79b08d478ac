"""What CDF takes, checked before anything is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from airflow_provider_cdf.cdf.errors import CdfInputError
from airflow_provider_cdf.cdf.models import REPORTABLE_STATUSES, TaskStatus, WorkflowStatus
from airflow_provider_cdf.cdf.values import json_object

AnyStatus = TypeVar("AnyStatus", TaskStatus, WorkflowStatus)
#: "100 KB" in the API reference; its own examples of that limit count 100 000.
MAX_JSON_BYTES = 100_000
MAX_METADATA_PAIRS = 10
MAX_METADATA_KEY = 32
MAX_METADATA_VALUE = 255
MAX_CANCEL_REASON = 500
#: What other systems call the same.
_NEAREST = {
    **dict.fromkeys(("SUCCESS", "SUCCEEDED", "DONE", "FINISHED", "OK"), "COMPLETED"),
    **dict.fromkeys(("RUNNING", "STARTED", "WAITING"), "IN_PROGRESS"),
    **dict.fromkeys(("ERROR", "FAILURE"), "FAILED"),
    **dict.fromkeys(("QUEUED", "PENDING"), "SCHEDULED"),
}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def is_uuid(text: str) -> bool:
    """Whether it is a UUID of 36 characters, as CDF's executions and tasks have."""
    return _UUID.fullmatch(text) is not None


def check_uuid(value: object, name: str) -> str:
    """
    Return the id, or refuse it before it becomes part of a URL.

    :raises CdfInputError: if it is not a UUID of 36 characters, as CDF's executions and tasks have.
    """
    if isinstance(value, str) and is_uuid(value):
        return value
    raise CdfInputError(
        f"{name} must be a UUID. It is {value!r:.60}."
        + (" The task that should have provided it left no value." if is_missing(value) else "")
    )


def check_segment(value: object, name: str) -> str:
    """
    Return an external id or a version that becomes part of a URL.

    :raises CdfInputError: if it is not a string, or an empty one.
    """
    # '.' and '..' have no percent-encoding that servers leave alone: they would address another resource.
    if isinstance(value, str) and value.strip() and value not in (".", ".."):
        return value
    raise CdfInputError(
        f"{name} must be a non-empty string, not {value!r}."
        + (" As a number, 1.10 and 1.1 are the same: write it as text." if type(value) is float else "")
    )


def is_missing(value: object) -> bool:
    """Whether this is what a template field holds when the task that should have left an id has not."""
    return value in (None, "", "None")


def check_reportable(status: str) -> TaskStatus:
    """
    Return the status as CDF writes it.

    :raises CdfInputError: if a task cannot be set to it.
    """
    return one_of(TaskStatus, status, REPORTABLE_STATUSES)


def check_task_statuses(status: str | Sequence[str]) -> list[str]:
    """
    Return the task statuses as CDF writes them.

    :raises CdfInputError: if there is none, or one that CDF does not have.
    """
    statuses = [status] if isinstance(status, str) or not isinstance(status, Iterable) else list(status)
    if not statuses or status is None:
        raise CdfInputError("No task status is given.")
    return [str(one_of(TaskStatus, one, tuple(TaskStatus))) for one in statuses]


def check_output(output: object, whose: str = "") -> dict[str, Any]:
    """
    Return an output as CDF takes it.

    :param whose: what it is for, at the end of error messages.
    :raises CdfInputError: if it is not a JSON object, or more than 100 000 bytes of JSON.
    """
    return checked_object(output, "output", whose)


def size_of(value: Mapping[str, Any]) -> int:
    """Return how many bytes of JSON an object takes in a request."""
    return len(encode(value, "output"))


def check_metadata(metadata: Mapping[str, str], what: str) -> dict[str, str]:
    """
    Return the metadata of a run.

    :raises CdfInputError: beyond 10 pairs, keys of 32 or values of 255 characters, or if one is no string.
    """
    if not isinstance(metadata, Mapping):
        raise CdfInputError(f"metadata must be pairs (a dict), not {type(metadata).__name__}. [{what}]")
    if len(metadata) > MAX_METADATA_PAIRS:
        raise CdfInputError(
            f"metadata has {len(metadata)} pairs; CDF takes at most {MAX_METADATA_PAIRS}. [{what}]"
        )
    for key, value in metadata.items():
        limits = (("key", key, MAX_METADATA_KEY), (f"value of key {key!r:.40}", value, MAX_METADATA_VALUE))
        for which, text, limit in limits:
            if not isinstance(text, str):
                raise CdfInputError(
                    f"metadata must be strings; the {which} is {type(text).__name__}: {text!r:.60}. [{what}]"
                )
            if len(text) > limit:
                raise CdfInputError(
                    f"metadata is too long: the {which} has {len(text)} characters; CDF takes {limit}."
                    + (f" It begins {key!r:.60}." if which == "key" else "")
                    + f" [{what}]"
                )
    return dict(metadata)


def checked_object(value: object, name: str, whose: str) -> dict[str, Any]:
    try:
        converted = json_object(value, name)
        size = len(encode(converted, name))
        if size > MAX_JSON_BYTES:
            raise CdfInputError(
                f"The {name} is {size} bytes of JSON; CDF takes at most {MAX_JSON_BYTES}. "
                "Store it elsewhere (CDF files, RAW, object storage) and pass a reference."
            )
    except CdfInputError as error:
        raise error.adding(f"[{whose}]" if whose else "") from None
    return converted


def encode(value: object, what: str) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        # from None: the traceback of the json module says nothing that the message does not.
        raise CdfInputError(f"The {what} is not JSON: {error}.") from None


def one_of(enum: type[AnyStatus], value: str, allowed: Sequence[AnyStatus]) -> AnyStatus:
    wanted = value.strip().upper() if isinstance(value, str) else value
    if wanted not in allowed:
        nearest = _NEAREST.get(str(wanted)) or next(iter(get_close_matches(str(wanted), allowed, n=1)), None)
        hint = f" Did you mean {nearest}?" if nearest in allowed else ""
        raise CdfInputError(f"CDF has no status {value!r:.60} here.{hint} It has {', '.join(allowed)}.")
    return enum(wanted)
