"""What a report says of the work before it: the decision, and which of the tasks before it are that work."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow.providers.common.compat.sdk import XComArg

from airflow_provider_cdf.operators.address import ADDRESS
from airflow_provider_cdf.operators.upstream import Upstream

#: States of a task that are no failure.
GOOD = frozenset({"success", "skipped"})


@dataclass(frozen=True)
class Ending:
    """
    How the work has ended, for CDF.

    :param status: what is reported; ``None`` if there is nothing to report to.
    :param blamed: the tasks because of which it is not COMPLETED.
    :param good: states of the tasks before those that are not to blame either.
    :param skipped: whether a task before the report was skipped, although no failure is reported.
    """

    status: str | None
    blamed: Sequence[Upstream] = ()
    good: frozenset[str] = GOOD
    skipped: bool = False


def ending(
    before: Sequence[Upstream],
    work: Collection[str],
    *,
    is_teardown: bool,
    has_execution: bool,
    skipped_status: str | None,
) -> Ending:
    """
    Decide what a report says that is told no status.

    :param before: the task instances right before the report.
    :param work: ids of those tasks that do the work.
    :param has_execution: whether there is an execution to report to.
    :param skipped_status: what the DAG file wants to be reported where a task was skipped and none failed.
    """
    failed = [one for one in before if one.state not in GOOD]
    if failed:
        return Ending("FAILED_WITH_TERMINAL_ERROR", failed)
    skipped = [one for one in before if one.state == "skipped"]
    if not skipped:
        return Ending("COMPLETED")
    if not has_execution:
        return Ending(None)
    # A branch may leave a task out; but COMPLETED is no report where no work was done. In a teardown it is
    # none either way: Airflow also skips what had yet to run when a person marks the DAG run failed.
    is_done = not is_teardown and any(one.state == "success" and one.task_id in work for one in before)
    status = skipped_status or ("COMPLETED" if is_done else "FAILED_WITH_TERMINAL_ERROR")
    if status == "COMPLETED":
        return Ending(status, skipped=True)
    return Ending(status, skipped, frozenset({"success"}))


def work_before(operator: Any) -> set[str]:
    """
    Return which of the tasks right before a report do its work.

    Those do not that say which CDF task it is about, wait for it, or have started its workflow and not waited
    for the end.
    """
    giving = {task.task_id for task, _ in XComArg.iter_xcom_references(list(_address(operator)))}
    return {one.task_id for one in operator.upstream_list if not _starts_or_waits(one)} - giving


def _address(operator: Any) -> Iterator[Any]:
    """Yield what a DAG file gives as the address. The operator that runs has ids by then."""
    dag = operator.get_dag()
    written = dag.get_task(operator.task_id) if dag is not None else operator
    if not hasattr(written, "partial_kwargs"):
        yield from (getattr(written, name) for name in ADDRESS)
        return
    mapped_over = written.expand_input.value
    # Of an XCom that holds all arguments, the address cannot be told from the output, which is the work's.
    several = mapped_over if isinstance(mapped_over, list | tuple) else [mapped_over]
    for arguments in (written.partial_kwargs, *several):
        if isinstance(arguments, Mapping):
            yield from (arguments.get(name) for name in ADDRESS)


def _starts_or_waits(task: Any) -> bool:
    from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
    from airflow_provider_cdf.sensors.task import CdfTaskSensor

    kind = getattr(task, "operator_class", type(task))
    if not isinstance(kind, type):
        return False
    if issubclass(kind, CdfWorkflowRunOperator):
        arguments = getattr(task, "partial_kwargs", None) or vars(task)
        return arguments.get("wait_for_completion") is False
    return issubclass(kind, CdfTaskSensor)
