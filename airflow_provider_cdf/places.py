"""Where in a DAG file a mistake is: what is refused while the file is read names the task, and the line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import PurePath
from typing import Any, ParamSpec, TypeVar

from airflow_provider_cdf.cdf.errors import CdfInputError
from airflow_provider_cdf.cdf.messages import ids, told
from airflow_provider_cdf.fields import is_from_mapped

Params = ParamSpec("Params")
ResultT = TypeVar("ResultT")
#: Packages between a DAG file and what refuses a mistake in it.
_BETWEEN = frozenset({"airflow", "airflow_provider_cdf"})


def names_place(function: Callable[Params, ResultT]) -> Callable[Params, ResultT]:
    """
    Decorate what a DAG file calls to make a task: an error of it names the task, and the line of the file.

    Airflow's list of import errors shows the last two frames of a stack, which are mostly ours; and none
    where it is set up so. The message is always there, and a note of an error is not.
    """

    @wraps(function)
    def naming_place(*args: Params.args, **kwargs: Params.kwargs) -> ResultT:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            # A mapped task is made when it runs: then its log says which it is, and no DAG file is read.
            if not (args and is_from_mapped(args[0])):
                _name_place(error, _task_id(args[0] if args else None, kwargs))
            raise

    return naming_place


def _name_place(error: Exception, task_id: str | None) -> None:
    # One class calls the next, and each names the place.
    if getattr(error, "_names_place", False):
        return
    place = ids(task=None if task_id is None else repr(task_id), line=_line())
    # Nobody would expect that something is sent while a file is read.
    problem = error.problem if isinstance(error, CdfInputError) else str(error)
    if error.args == (str(error),):
        error.args = (told(problem, place),)
    else:
        error.add_note(place)
    error._names_place = True  # type: ignore[attr-defined]  # read above


def _task_id(maker: Any, kwargs: Mapping[str, Any]) -> str | None:
    if (task_id := kwargs.get("task_id")) is None:
        # Of what makes a mapped task, or a task of a function.
        task_id = (getattr(maker, "kwargs", None) or {}).get("task_id")
    elif (group := kwargs.get("task_group")) is not None:
        # Airflow 3 has put it there: an operator that is half made does not know its whole id yet.
        task_id = group.child_id(task_id)
    return None if task_id is None else str(task_id)


def _line() -> str | None:
    """Return the innermost line that is neither Airflow's nor ours."""
    frame = sys._getframe()
    while str(frame.f_globals.get("__name__")).partition(".")[0] in _BETWEEN:
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return f"{frame.f_lineno} of {PurePath(frame.f_code.co_filename).name}"
