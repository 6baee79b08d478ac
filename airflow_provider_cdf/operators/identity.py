"""Which Airflow task a CDF execution belongs to, written into the execution's metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_cdf.cdf.calls import MAX_METADATA_PAIRS, check_metadata
from airflow_provider_cdf.cdf.conversations import CLOCK_MARGIN, RUN_KEY, SUBMIT_ID
from airflow_provider_cdf.cdf.errors import CdfInputError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

#: Metadata key that says which try has started an execution.
TRY_NUMBER = "airflow_try_number"


def run_key(ti: RuntimeTaskInstanceProtocol, max_tries: int | None = None) -> str:
    """
    Return what is the same for all tries of one logical run of a task, and for nothing else.

    ``max_tries`` stays as it is over automatic retries and edits of ``retries``, and grows when a person
    clears the task, who expects a new execution.
    """
    tries = ti.max_tries if max_tries is None else max_tries
    identity = [ti.dag_id, ti.run_id, ti.task_id, ti.map_index, tries]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def earlier_run_keys(ti: RuntimeTaskInstanceProtocol) -> set[str]:
    """Return the keys that the task instance may have had before it was cleared."""
    # It need not have been smaller: a clear adds `retries` to the tries so far, and somebody may lower that.
    return {run_key(ti, max_tries) for max_tries in range(ti.max_tries + 100)} - {run_key(ti)}


def run_metadata(
    own: Mapping[str, str] | None, ti: RuntimeTaskInstanceProtocol, workflow: str
) -> dict[str, str]:
    """
    Return the metadata of a run: the user's own pairs, the key of the run, then who started it.

    CDF takes 10 pairs, and one is for the key that each submission adds by itself. The readable ones go in
    where there is room, and where the user has not used their names.

    :raises CdfInputError: if the user's pairs leave no room for the keys, use their names, or are too long.
    """
    own = check_metadata(own or {}, workflow)
    room_for_own = MAX_METADATA_PAIRS - 2
    if len(own) > room_for_own:
        raise CdfInputError(
            f"Metadata of {workflow} has {len(own)} pairs; {room_for_own} is the most, because CDF takes "
            f"{MAX_METADATA_PAIRS} and two are needed to find the run again ({RUN_KEY!r}, {SUBMIT_ID!r})."
        )
    if taken := sorted({RUN_KEY, SUBMIT_ID} & own.keys()):
        raise CdfInputError(f"Metadata of {workflow} must not set {' and '.join(map(repr, taken))}.")
    metadata = {**own, RUN_KEY: run_key(ti)}
    readable = {
        TRY_NUMBER: str(ti.try_number),
        "airflow_dag_id": ti.dag_id,
        "airflow_run_id": ti.run_id,
        "airflow_task_id": ti.task_id,
    }
    for key, value in readable.items():
        # The submission's own key comes on top.
        if key not in metadata and len(metadata) < MAX_METADATA_PAIRS - 1:
            metadata[key] = value
    return metadata


def began(context: Context) -> datetime:
    """Return a moment before which no execution of this task instance was started, by any machine's clock."""
    run = context["dag_run"]
    # A cleared DAG run has a new start date, but executions of its tasks may be older. Airflow 2 has no
    # run_after; the logical date is earlier still.
    since = getattr(run, "run_after", None) or run.logical_date
    dates = (since, getattr(run, "queued_at", None), getattr(run, "start_date", None))
    began: datetime = min(date for date in dates if date is not None)
    return began - CLOCK_MARGIN
