"""What Airflow hands over, as the JSON that CDF takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from airflow_provider_cdf.cdf.errors import CdfInputError

#: What pydantic makes JSON of: dates as ISO 8601, decimals and UUIDs as text, models by their aliases.
_SIMPLE = (date, datetime, time, timedelta, Decimal, UUID)
#: Nested deeper than this is a mistake, such as a list that holds itself.
MAX_DEPTH = 100


def json_object(value: object, name: str) -> dict[str, Any]:
    """
    Return a JSON object that holds what a mapping, a dataclass or a pydantic model holds.

    Beside what JSON has, values may be any mapping or sequence (such as the results of a mapped task, which
    Airflow hands over as a lazy one), dates and times, ``Decimal`` and ``UUID`` (both become text), enums,
    dataclasses, pydantic models, and numbers and arrays of numpy. Nothing is guessed for anything else: sets,
    bytes, NaN and infinite numbers are refused.

    :param name: what the value is called, ``input`` or ``output``, for messages.
    :raises CdfInputError: with the path to what is no JSON, such as ``output.scores[3]``.
    """
    converted = value
    if not isinstance(value, str):
        converted = _json(value, name, 0)
    if not isinstance(converted, dict):
        raise CdfInputError(
            f"The {name} must be a JSON object (a dict), not {_kind(value)}.{_ways(value, name)}"
        )
    return converted


def _json(value: Any, path: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise CdfInputError(f"The {path[:40]}... is not JSON: it is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, Enum):
        return _json(value.value, path, depth + 1)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(str(value), path)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _no_json(path, f"{float(value)}")
        return float(value)
    if isinstance(value, Mapping):
        return {_key(key, path): _json(one, _below(path, key), depth + 1) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        # A lazy one reads XComs here. An error of that is none of the value's.
        return [_json(one, f"{path}[{index}]", depth + 1) for index, one in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _json(fields, path, depth + 1)
    if isinstance(value, BaseModel):
        return _json(_dumped(value, path), path, depth + 1)
    if (undefined := _undefined(value)) is not None:
        raise _no_json(path, f"a template's {undefined!r:.60}, which is not defined")
    if isinstance(value, _SIMPLE) and _is_something(value):
        return to_jsonable_python(value)
    # numpy's scalars and arrays, without importing numpy. Its dates become nanoseconds, which nobody means.
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind and kind not in "mM" and callable(as_list := getattr(value, "tolist", None)):
        return _json(as_list(), path, depth + 1)
    raise _no_json(path, _kind(value))


def _dumped(model: BaseModel, path: str) -> dict[str, Any]:
    try:
        return model.model_dump(by_alias=True)
    except Exception:  # such as that of a task instance, which is a model that cannot be written
        raise _no_json(path, _kind(model)) from None


def _undefined(value: object) -> str | None:
    """Return the name that a template has used and nothing defines: Jinja hands over an object for it."""
    if not any(one.__name__ == "Undefined" for one in type(value).__mro__):
        return None
    # Not by getattr(), which such an object may refuse.
    return str(object.__getattribute__(value, "_undefined_name"))


def _is_something(value: Any) -> bool:
    # pandas' NaT calls itself a datetime, and is not equal to itself.
    return value.is_finite() if isinstance(value, Decimal) else bool(value == value)


def _key(key: Any, path: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return _text(str(key), path)
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise CdfInputError(f"The {path} is not JSON: its key {key!r:.40} is {_kind(key)}; keys are text.")


def _text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _no_json(path, f"text that cannot be sent ({text!r:.40})") from None
    return text


def _below(path: str, key: object) -> str:
    return f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[{key!r:.40}]"


def _no_json(path: str, what: str) -> CdfInputError:
    return CdfInputError(f"The {path} is not JSON: it is {what}.")


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "text"
    kind = value if isinstance(value, type) else type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"the class {name}" if isinstance(value, type) else name


def _ways(value: object, name: str) -> str:
    if not isinstance(value, str):
        return ""
    return (
        f" Ways that give an object: {name}=task.output (or a task's call, {name}=judge()); a dict with "
        f'templates inside, {name}={{"key": "{{{{ ... }}}}"}}; render_template_as_native_obj=True.'
    )
