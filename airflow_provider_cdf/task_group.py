"""A task group that does the work of a CDF task: the sensor first, the report last."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Generator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, TaskGroup

from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class CdfTaskGroup(TaskGroup):
    """
    Do the work of a CDF task with whatever tasks stand in this group.

    ::

        with CdfTaskGroup("score", execution_id=run.output, task_external_id="score") as cdf:
            cdf.output = judge(cdf.input)
        cdf >> next_task

    The task ``waits``, a sensor, comes before everything in the group. The task ``report``, behind everything
    in it, tells CDF how that went: COMPLETED with ``output``, or FAILED_WITH_TERMINAL_ERROR with the tasks
    that failed. It is a teardown, so that it also runs after a short circuit, and in a DAG run that a person
    marks failed. If the work has failed, or was not done, the report fails too, and the DAG run with it.

    What comes behind the group waits for the report. One more task, ``outcome``, fails with the report: a DAG
    run has the state of its last tasks, which may be skipped where something comes behind. What comes behind
    a group *around* this one, mapped or not, waits for the report too. There this group ends with one more
    task, ``reported``, as Airflow passes over teardowns.

    As of any operator, what is not given, or ``None``, is that of ``default_args``: of the group, of those
    around it, of the DAG.

    :param group_id: id of the group; the ids of its tasks begin with it.
    :param execution_id: UUID of the execution; mostly ``run.output``.
    :param task_external_id: external id of the CDF task.
    :param parent_task_external_id: the dynamic task or subworkflow whose child is meant.
    :param skipped_status: what is reported where a task right before the report was skipped, and none failed:
        FAILED_WITH_TERMINAL_ERROR, unless a short circuit or a branch means that the work is done: COMPLETED.
    :param poll_interval: seconds between looks of the sensor. In ``default_args``, ``poke_interval`` comes
        first.
    :param deferrable: wait in the triggerer instead of in a worker slot.
    :param cdf_conn_id: id of the Airflow connection.
    """

    _is_made = False
    # Of the class, too, because a copy of a group, as in a part of a DAG, has Airflow's attributes only.
    _waits: CdfTaskSensor | None = None
    _report: CdfTaskUpdateOperator | None = None

    def __init__(
        self,
        group_id: str,
        *,
        execution_id: Any,
        task_external_id: str,
        parent_task_external_id: str | None = None,
        skipped_status: str | None = None,
        poll_interval: float | timedelta | None = None,
        deferrable: bool | None = None,
        cdf_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(group_id=group_id, **kwargs)
        # Only what is given: Airflow looks for the rest in default_args.
        self._address: dict[str, Any] = {
            "execution_id": execution_id,
            "task_external_id": task_external_id,
            **_given(parent_task_external_id=parent_task_external_id, cdf_conn_id=cdf_conn_id),
        }
        defaults = {**self.dag.default_args, **(self.default_args or {})}
        if poll_interval is None and "poke_interval" not in defaults:
            poll_interval = defaults.get("poll_interval")  # which the sensor does not know by this name
        self._how_to_wait = _given(poke_interval=poll_interval, deferrable=deferrable)
        self._how_to_report = _given(skipped_status=skipped_status)
        self._output: Any = None
        self._is_made = True

    def __setattr__(self, name: str, value: Any) -> None:
        """
        Set what there is.

        :raises AttributeError: for what is not: with ``cdf.outputs = ...``, CDF would get no output.
        """
        known = {*dir(type(self)), *vars(self)}
        if self._is_made and name not in known and not name.startswith("_"):
            near = difflib.get_close_matches(name, sorted(known), n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise AttributeError(f"A CdfTaskGroup has no attribute {name!r}.{meant}")
        super().__setattr__(name, value)

    @property
    def waits(self) -> CdfTaskSensor:
        """
        The sensor.

        :raises RuntimeError: before the ``with`` block.
        """
        if self._waits is None:
            raise RuntimeError(f"The group {self.group_id!r} has no tasks before its with block.")
        return self._waits

    @property
    def report(self) -> CdfTaskUpdateOperator:
        """
        The task that reports.

        :raises RuntimeError: before the end of the ``with`` block.
        """
        if self._report is None:
            raise RuntimeError(f"The group {self.group_id!r} has no report before the end of its with block.")
        return self._report

    @property
    def input(self) -> Any:
        """The CDF task's input, with its references resolved, as an XCom."""
        output: Any = self.waits.output
        return output["input"]

    @property
    def output(self) -> Any:
        """What the report has as the CDF task's output: a JSON object, mostly what a task returns."""
        return self._output

    @output.setter
    def output(self, value: Any) -> None:
        if self._report is not None:
            raise RuntimeError(f"The output of group {self.group_id!r} has to be set inside its with block.")
        self._output = value

    def __enter__(self) -> CdfTaskGroup:
        """
        Begin with the sensor.

        :raises RuntimeError: for the second time.
        """
        if self._waits is not None:
            raise RuntimeError(
                f"The group {self.group_id!r} has one with block: what stands in a second one would come "
                "neither behind its sensor nor before its report."
            )
        super().__enter__()
        try:
            self._waits = CdfTaskSensor(task_id="waits", **self._how_to_wait, **self._address)
        except BaseException:
            # There is no exit then, and the tasks of other DAG files would come into this group.
            super().__exit__(*sys.exc_info())  # type: ignore[no-untyped-call]  # Airflow's
            raise
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """End with the report, and what has its state."""
        try:
            if kind is None:
                self._end()
        finally:
            # Also after a mistake: the tasks of other DAG files would come into this group.
            super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]  # Airflow's

    def _end(self) -> None:
        for root in list(self.get_roots()):
            if root is not self.waits:
                self.waits.set_downstream(root)
        # Airflow passes over teardowns, so over the reports of groups in here.
        inner = list(_groups_in(self))
        within = {one.task_id for each in inner for one in each}
        last = [one for one in super().get_leaves() if one.task_id not in within]
        last += [each.report for each in inner]
        self._report = CdfTaskUpdateOperator(
            task_id="report", output=self._output, **self._how_to_report, **self._address
        )
        self._report.set_upstream(last)
        outcome = _Outcome(task_id="outcome")
        outcome.set_upstream(self._report)
        # Without setups: a report is also due where the sensor has failed.
        for one in (self._report, outcome):
            one.as_teardown(on_failure_fail_dagrun=True)
        around = self.parent_group
        if around is not None and not around.is_root and not isinstance(around, CdfTaskGroup):
            # What is behind a group waits for the last tasks in it that are no teardowns. ``outcome`` has to
            # be a teardown: a short circuit would skip it.
            _Reported(task_id="reported", trigger_rule="all_success").set_upstream(self._report)

    def get_leaves(self) -> Generator[BaseOperator, None, None]:
        """Return what the tasks behind the group wait for. Airflow passes over teardowns."""
        yield from super().get_leaves() if self._report is None else [self._report]


def _groups_in(group: TaskGroup) -> Generator[CdfTaskGroup, None, None]:
    """Find the groups of CDF tasks inside a group, but not those inside of these."""
    for child in group.children.values():
        if isinstance(child, CdfTaskGroup) and child._report is not None:
            yield child
        elif isinstance(child, TaskGroup):
            yield from _groups_in(child)


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


class _Reported(BaseOperator):
    """Succeeds behind a report that has: for what waits for a group around."""

    _is_empty = True  # Airflow's mark of what needs no worker

    def execute(self, context: Context) -> None:
        """Do nothing; what matters is what this task waits for."""


class _Outcome(BaseOperator):
    """
    Fails if the report right before it has.

    A DAG run has the state of its last tasks, and with a task behind it the report is none of them.
    """

    def execute(self, context: Context) -> None:
        """Look what became of the report."""
        from airflow_provider_cdf.operators.upstream import direct_upstream

        for one in direct_upstream(self, context["ti"]):
            if one.state not in ("success", "skipped"):
                raise AirflowFailException(
                    f"The work for CDF was not done: task {one.name!r} is {one.state}, and its log says why. "
                    "This task fails so that the DAG run is red, whatever stands behind the group."
                )
