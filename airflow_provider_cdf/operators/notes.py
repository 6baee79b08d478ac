"""The note of submissions in Airflow's store of task states, from 3.3 on."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_cdf.cdf.errors import CdfError
from airflow_provider_cdf.cdf.foreign import one_line
from airflow_provider_cdf.operators.starts import Submission
from airflow_provider_cdf.versions import CLEAR_EMPTIES_STORE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The store cannot list its keys, so there is one for all submissions.
KEY = "cdf_submissions"


def read_note(context: Context) -> list[Submission] | None:
    """
    Return the submissions of this task so far, oldest first; ``None`` where Airflow has no store.

    :raises CdfError: if Airflow could not be asked.
    """
    store: Any = context.get("task_state_store")
    if store is None:
        return None
    try:
        return [Submission(**one) for one in store.get(KEY) or ()]
    except Exception as error:
        raise CdfError(f"Airflow's store of task states could not be read: {one_line(error)}") from None


def write_note(context: Context, submissions: tuple[Submission, ...]) -> None:
    """
    Replace the note.

    :raises CdfError: if Airflow does not take it, as from the orphan of a try that is over.
    """
    store: Any = context.get("task_state_store")
    try:
        store.set(KEY, [asdict(one) for one in submissions])
    except Exception as error:
        raise CdfError(
            f"Airflow's store of task states takes no note from this process: {one_line(error).rstrip('.')}. "
            "Has Airflow gone on to another try of the task? Nothing was started in CDF."
        ) from None


def loses_notes_by_success() -> bool:
    """Whether Airflow empties the store when a task succeeds."""
    return bool(conf.getboolean("state_store", "clear_on_success", fallback=False))


def loses_notes_by_clear() -> bool:
    """Whether Airflow empties the store when a person clears the task."""
    return CLEAR_EMPTIES_STORE
