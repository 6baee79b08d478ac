"""The tasks of an inbox DAG: list the CDF tasks that wait, and start a DAG run for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException, BaseOperator

from airflow_provider_cdf.cdf.errors import CdfError
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.fields import TextFields
from airflow_provider_cdf.hooks.using import UsesHook
from airflow_provider_cdf.versions import HAS_TASK_API

if TYPE_CHECKING or HAS_TASK_API:
    from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
else:
    from airflow.operators.trigger_dagrun import TriggerDagRunOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.waiting_tasks import WaitingTask

#: DAG runs that one run of the inbox starts at most: Airflow maps a task no further (``max_map_length``).
MOST = 1000
#: Ids in one question to Airflow, which go into a URL.
AT_ONCE = 100
#: Seconds before CDF gives a task up within which the inbox warns that its DAG run has not started.
HURRY = 120.0
#: Seconds for reading one execution: one that hangs must not keep all others from their DAG runs.
READ_WITHIN = 15.0
#: Executions that are read at once. The rest wait for their turn: an answer may have 20 MB.
READ_AT_ONCE = 8


class CdfWaitingTasksOperator(TextFields, UsesHook, BaseOperator):
    """
    List the CDF tasks that wait and have no DAG run yet, as arguments for TriggerDagRunOperator.

    The log names what needs a person: tasks whose DAG run has ended without a report, and those that CDF is
    about to give up while their DAG run waits in Airflow's queue.

    :param trigger_dag_id: the DAG that does the work.
    :param workflow_external_id: external id of the workflow. (templated)
    :param task_external_id: external id of the task. (templated)
    :param version: version of the workflow; all of them without it. (templated)
    :param parent_task_external_id: the dynamic task or subworkflow whose children are meant. (templated)
    :param cdf_conn_id: id of the Airflow connection. (templated)
    """

    template_fields: Sequence[str] = (
        "workflow_external_id",
        "task_external_id",
        "version",
        "parent_task_external_id",
        "cdf_conn_id",
    )
    text_fields = template_fields

    def __init__(
        self,
        *,
        trigger_dag_id: str,
        workflow_external_id: str,
        task_external_id: str,
        version: str | None = None,
        parent_task_external_id: str | None = None,
        cdf_conn_id: str = "cdf_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.trigger_dag_id = trigger_dag_id
        self.workflow_external_id = workflow_external_id
        self.task_external_id = task_external_id
        self.version = version
        self.parent_task_external_id = parent_task_external_id
        self.cdf_conn_id = cdf_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Look at all running executions of the workflow, and at the DAG runs of their tasks."""
        waiting = {task.run_id: task for task in self._waiting()}
        ti = context["ti"]
        known = self._runs(ti, list(waiting), None)
        self._name_those_that_need_a_person(ti, {one: waiting[one] for one in waiting if one in known})
        new = [task for run_id, task in waiting.items() if run_id not in known]
        self.log.info(
            "%d CDF tasks wait, %d of them without a DAG run of %r.",
            len(waiting),
            len(new),
            self.trigger_dag_id,
        )
        if len(new) > MOST:
            self.log.warning("Only %d DAG runs are started now; the next run of the inbox goes on.", MOST)
        return [self._arguments(task) for task in new[:MOST]]

    def _waiting(self) -> list[WaitingTask]:
        executions = self.hook.list_executions(
            workflow_external_id=self.workflow_external_id, version=self.version, status="RUNNING"
        )
        # Whatever the server has made of the filter; and pages may overlap.
        ids = {
            one.id: None
            for one in executions
            if one.workflow_external_id == self.workflow_external_id
            and self.version in (None, one.version)
            and not one.has_ended
        }
        read = self._read(list(ids))
        unread = [one for one in read if isinstance(one, CdfError)]
        if unread and len(unread) == len(read):
            raise unread[-1]
        found = [task for one in read if not isinstance(one, CdfError) for task in one]
        return sorted(found, key=lambda task: task.start_time or 0)

    def _read(self, execution_ids: Sequence[str]) -> list[list[WaitingTask] | CdfError]:
        """Return what waits in each execution, or why that could not be read."""

        async def read_all() -> list[list[WaitingTask] | CdfError]:
            turns = asyncio.Semaphore(READ_AT_ONCE)
            try:
                return await asyncio.gather(*(self._waiting_in(one, turns) for one in execution_ids))
            finally:
                await self.hook.aclose()

        # Not by threads: on Airflow 3.0, two of them that ask for a connection get each other's answers.
        return asyncio.run(read_all()) if execution_ids else []

    async def _waiting_in(self, execution_id: str, turns: asyncio.Semaphore) -> list[WaitingTask] | CdfError:
        from airflow_provider_cdf.waiting_tasks import waiting_in

        try:
            async with turns:
                execution = await self.hook.aget_execution(execution_id, within=READ_WITHIN)
        except CdfError as error:
            problem = (
                f"An execution could not be read, and is left for the next time. [execution {execution_id}]"
            )
            self.log.warning("%s", told(problem, error))
            return error
        return waiting_in(execution, self.task_external_id, self.parent_task_external_id)

    def _runs(self, ti: Any, run_ids: Sequence[str], states: list[str] | None) -> set[str]:
        """Return those of some DAG runs that there are, in some states."""
        from airflow_provider_cdf.waiting_tasks import those_counted

        if not HAS_TASK_API:
            return _runs_in_database(self.trigger_dag_id, run_ids, states)

        def count(ids: Sequence[str]) -> int:
            return int(ti.get_dr_count(dag_id=self.trigger_dag_id, run_ids=list(ids), states=states))

        chunks = (run_ids[begin : begin + AT_ONCE] for begin in range(0, len(run_ids), AT_ONCE))
        return {one for chunk in chunks for one in those_counted(chunk, count)}

    def _name_those_that_need_a_person(self, ti: Any, waiting: dict[str, WaitingTask]) -> None:
        ended = self._runs(ti, list(waiting), ["success", "failed"])
        # CDF was asked before Airflow. So it is asked again: a run may have reported in between, and ended.
        read = self._read(sorted({waiting[run_id].execution_id for run_id in ended}))
        still = {task.run_id for one in read if not isinstance(one, CdfError) for task in one}
        for run_id in sorted(ended & still):
            self.log.warning(
                "A DAG run has ended, and its CDF task still waits: clear the run, or report by hand. DAG "
                "run %r of %r, %s.",
                run_id,
                self.trigger_dag_id,
                waiting[run_id],
            )
        soon = (time.time() + HURRY) * 1000
        urgent = [run_id for run_id, task in waiting.items() if task.deadline and task.deadline < soon]
        for run_id in sorted(self._runs(ti, urgent, ["queued"])):
            self.log.warning(
                "CDF is about to give a task up, and its DAG run has not started: is the DAG paused, or "
                "Airflow busy? DAG run %r of %r, %s, deadline %s.",
                run_id,
                self.trigger_dag_id,
                waiting[run_id],
                waiting[run_id].conf()["deadline"],
            )

    def _arguments(self, task: WaitingTask) -> dict[str, Any]:
        return {"trigger_run_id": task.run_id, "conf": task.conf()}


class CdfStartOperator(TriggerDagRunOperator):
    """
    Start the DAG run of a CDF task, once: one that is there already is left alone.

    On Airflow 3 the run has no logical date. Airflow 2 wants one, and each once in a DAG: it follows from the
    CDF task. Should another run have it, the next try of this task takes another one.
    """

    def __init__(self, **kwargs: Any) -> None:
        if HAS_TASK_API:
            kwargs.setdefault("logical_date", None)
        super().__init__(skip_when_already_exists=True, **kwargs)

    def execute(self, context: Context) -> Any:
        """Start it."""
        if HAS_TASK_API:
            return super().execute(context)
        conf: Any = self.conf
        self.logical_date = logical_date(
            conf["start_time"], str(self.trigger_run_id), context["ti"].try_number
        )
        try:
            return super().execute(context)
        except AirflowSkipException:
            run_id = str(self.trigger_run_id)
            if not _runs_in_database(self.trigger_dag_id, [run_id], None):
                raise AirflowException(
                    f"Another DAG run has the logical date of this one: tried again with another date. [DAG "
                    f"run {run_id} of {self.trigger_dag_id}]"
                ) from None
            raise


def logical_date(start_time: str | None, run_id: str, try_number: int) -> datetime:
    """Return the date of a DAG run on Airflow 2: when its CDF task began, and microseconds of its own."""
    began = datetime.fromisoformat(start_time) if start_time else datetime.now(UTC)
    own = int(run_id.rsplit("-", 1)[-1], 16) % 1000 if "-" in run_id else 0
    return began + timedelta(microseconds=own, seconds=try_number - 1)


def _runs_in_database(dag_id: str, run_ids: Sequence[str], states: list[str] | None) -> set[str]:
    from airflow.models.dagrun import DagRun

    runs: Any = DagRun.find(dag_id=dag_id, run_id=list(run_ids)) if run_ids else []
    return {run.run_id for run in runs if states is None or str(run.state) in states}
