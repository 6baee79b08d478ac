"""
References such as ``${workflow.input.plant}`` or ``${score.output.response.values[0]}``.

https://docs.cognite.com/cdf/data_workflows/ (task definitions, "dynamic references")
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_SPLIT = re.compile(r"\.(input|output)(?=$|[.\[])")
_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d+)\]|\['([^']*)'\]|\["([^"]*)"\]""")

#: Given a task's external id, or "workflow", and "input" or "output": the value, or None if there is none.
Lookup = Callable[[str, str], Any]


def is_reference(value: object) -> bool:
    """
    Whether a value holds a reference, so that nothing can be said about it before it is resolved.

    :param value: a value of a task's parameters
    """
    return isinstance(value, str) and _REFERENCE.search(value) is not None


def resolve(value: Any, lookup: Lookup) -> Any:
    """
    Replace every reference in a JSON value.

    A string that is one reference and nothing else takes the type of what it refers to. Within a longer
    string the value is written out. What cannot be found is null, or nothing within a longer string, as in
    Conductor, the engine behind Data workflows.

    :param value: any JSON value
    :param lookup: finds the root of a reference
    """
    if isinstance(value, dict):
        return {key: resolve(item, lookup) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, lookup) for item in value]
    if not isinstance(value, str):
        return value
    if whole := _REFERENCE.fullmatch(value):
        return _find(whole[1], lookup)
    return _REFERENCE.sub(lambda match: _as_text(_find(match[1], lookup)), value)


def _find(path: str, lookup: Lookup) -> Any:
    # An external id may itself hold ".input", so every place where the reference can be cut is tried.
    for cut in _SPLIT.finditer(path):
        found = lookup(path[: cut.start()], cut[1])
        if found is not None:
            return _walk(found, path[cut.end() :])
    return None


def _walk(value: Any, path: str) -> Any:
    position = 0
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            return None
        if step[2] is not None:
            index = int(step[2])
            value = value[index] if isinstance(value, list) and index < len(value) else None
        else:
            key = next(group for group in (step[1], step[3], step[4]) if group is not None)
            value = value.get(key) if isinstance(value, dict) else None
        position = step.end()
    return value


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
