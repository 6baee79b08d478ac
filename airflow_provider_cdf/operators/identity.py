"""Which Airflow task, and which try of it, a CDF execution belongs to, as its metadata says."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_cdf.arguments import OWN_METADATA_PAIRS
from airflow_provider_cdf.cdf.calls import SUBMIT_ID
from airflow_provider_cdf.cdf.checks import MAX_METADATA_PAIRS, MAX_METADATA_VALUE, check_metadata
from airflow_provider_cdf.cdf.conversations import CLOCK_MARGIN, RUN_KEY
from airflow_provider_cdf.cdf.errors import CdfInputError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from airflow_provider_cdf.cdf.models import WorkflowExecution

#: Metadata key that says which try has started an execution.
TRY_NUMBER = "airflow_try_number"


@dataclass(frozen=True)
class RunKey:
    """
    What all tries of one logical run of a task have in common, and nothing else has.

    :param task: a hash of the connection's ``airflow_name``, DAG, DAG run, task and map index.
    :param max_tries: constant over automatic retries and edits of ``retries``; grows when a person clears the
        task, who expects a new execution.
    :param run_began: when the DAG run began, in microseconds. Another Airflow on the same CDF project may
        have a DAG run of the same name, and so may this one, if a DAG run was deleted and made again. They
        did not begin in the same microsecond.
    """

    task: str
    max_tries: int
    run_began: str

    def __str__(self) -> str:
        return f"{self.task}.{self.max_tries}.{self.run_began}"

    @classmethod
    def parse(cls, text: object) -> Self | None:
        """Read a key from an execution's metadata; ``None`` if there is none."""
        parts = text.split(".") if isinstance(text, str) else []
        if len(parts) != 3 or not parts[1].isdecimal():
            return None
        return cls(parts[0], int(parts[1]), parts[2])


@dataclass(frozen=True)
class Try:
    """
    One try of a task.

    :param key: of the logical run that the try belongs to.
    :param id: Airflow's own id of the try, which no other try and no other Airflow has; ``""`` below 3.0.
        Airflow sometimes starts one try in two processes, which share it.
    :param number: 1 for the first one.
    :param clears: how often tasks of the DAG run have been cleared; always 0 below 3.2.
    :param retries: the task's ``retries`` as they are now.
    :param since: no execution of this task is older, by any machine's clock.
    :param is_named: whether the connection names this Airflow, so that ``key.task`` is its own.
    """

    key: RunKey
    id: str
    number: int
    clears: int
    retries: int
    since: datetime
    is_named: bool

    @classmethod
    def of(cls, context: Context, airflow_name: str | None) -> Self:
        """Return the try that a context is about."""
        ti, run = context["ti"], context["dag_run"]
        task: Any = context.get("task")
        began = getattr(run, "start_date", None)
        identity = [airflow_name, ti.dag_id, ti.run_id, ti.task_id, ti.map_index]
        return cls(
            key=RunKey(
                _hash(identity)[:32], ti.max_tries, f"{began.timestamp() * 1e6:.0f}" if began else "0"
            ),
            id=str(getattr(ti, "id", None) or ""),
            number=ti.try_number,
            clears=getattr(run, "clear_number", None) or 0,
            retries=getattr(task, "retries", None) or 0,
            since=_since(run),
            is_named=bool(airflow_name),
        )

    @property
    def is_last(self) -> bool:
        """Whether Airflow has no retry left."""
        return is_last_try(self.number, self.key.max_tries)

    @property
    def is_first_since_a_clear(self) -> bool:
        """Whether a person has cleared the task just before, as far as ``retries`` is as it was then."""
        # A clear sets max_tries to the tries so far plus `retries`.
        return 1 < self.number == self.key.max_tries - self.retries + 1

    def new_submit_id(self) -> str:
        """Return an id for one submission of this try."""
        # The random part tells two processes of one try apart.
        return f"{self.id}.{self.number}.{uuid.uuid4().hex}"

    def has_started(self, execution: WorkflowExecution) -> bool:
        """Whether this very try has started an execution."""
        return self.has_submitted(execution.metadata.get(SUBMIT_ID))

    def has_submitted(self, submit_id: object) -> bool:
        """Whether a submission is of this very try."""
        return bool(self.id) and isinstance(submit_id, str) and submit_id.startswith(f"{self.id}.")


def is_last_try(number: int, max_tries: int) -> bool:
    """Whether Airflow has no retry left after a try."""
    return number > max_tries


def try_number_of(submit_id: object) -> int | None:
    """Return the try that has made a submission, if a task has."""
    parts = submit_id.split(".") if isinstance(submit_id, str) else []
    return int(parts[1]) if len(parts) == 3 and parts[1].isdecimal() else None


def run_key(ti: RuntimeTaskInstanceProtocol) -> str:
    """Return what is the same for all tries of one logical run of a task: the mark of a report."""
    return _hash([ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.max_tries])


def run_metadata(
    own: Mapping[str, str] | None, this: Try, ti: RuntimeTaskInstanceProtocol, workflow: str
) -> dict[str, str]:
    """
    Return the metadata of a run: the user's own pairs, the key of the run, then who started it.

    CDF takes 10 pairs, and one is for the key that each submission adds by itself. The readable ones go in
    where there is room, and where the user has not used their names.

    :raises CdfInputError: if the user's pairs leave no room for the keys, use their names, or are too long.
    """
    own = check_metadata(own or {}, workflow)
    if len(own) > OWN_METADATA_PAIRS:
        raise CdfInputError(
            f"metadata has {len(own)} pairs; {OWN_METADATA_PAIRS} is the most. CDF takes "
            f"{MAX_METADATA_PAIRS}, and two are needed to find the run again "
            f"({RUN_KEY!r}, {SUBMIT_ID!r}). [{workflow}]"
        )
    if taken := sorted({RUN_KEY, SUBMIT_ID} & own.keys()):
        raise CdfInputError(f"metadata must not set {' and '.join(map(repr, taken))}. [{workflow}]")
    metadata = {**own, RUN_KEY: str(this.key)}
    readable = {
        TRY_NUMBER: str(ti.try_number),
        "airflow_dag_id": ti.dag_id,
        "airflow_run_id": ti.run_id,
        "airflow_task_id": ti.task_id,
        "airflow_url": getattr(ti, "log_url", None),
    }
    for key, value in readable.items():
        # The submission's own key comes on top. Half a URL, or half an id, leads nowhere.
        has_room = len(metadata) < MAX_METADATA_PAIRS - 1
        if key not in metadata and has_room and value and len(value) <= MAX_METADATA_VALUE:
            metadata[key] = value
    return metadata


def _since(run: Any) -> datetime:
    # A cleared DAG run has a new start date, but executions of its tasks may be older. Airflow 2 has no
    # run_after; the logical date is earlier still.
    first = getattr(run, "run_after", None) or getattr(run, "logical_date", None)
    dates = (first, getattr(run, "queued_at", None), getattr(run, "start_date", None))
    earliest: datetime = min(date for date in dates if date is not None)
    return earliest - CLOCK_MARGIN


def _hash(identity: list[Any]) -> str:
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()
