"""The inbox: which CDF tasks wait, and one DAG run for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException
from moved import DagSerialization, TriggerDagRunOperator
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.cdf.errors import CdfError, CdfInputError
from airflow_provider_cdf.cdf.models import WorkflowExecutionDetails
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.inbox import cdf_inbox
from airflow_provider_cdf.operators import inbox as module
from airflow_provider_cdf.operators.inbox import CdfStartOperator, CdfWaitingTasksOperator, logical_date
from airflow_provider_cdf.versions import HAS_TASK_API
from airflow_provider_cdf.waiting_tasks import those_counted, waiting_in

pytestmark = pytest.mark.usefixtures("cdf_default")


@dataclass
class Inbox(FakeTaskInstance):
    """The task of an inbox, which asks Airflow for DAG runs."""

    runs: dict[str, str] = field(default_factory=dict)
    questions: int = 0
    #: What happens just before Airflow answers for the first time.
    meanwhile: Callable[[], None] = lambda: None

    def get_dr_count(self, *, dag_id: str, run_ids: list[str], states: list[str] | None) -> int:
        assert dag_id == "work"
        if not self.questions:
            self.meanwhile()
        self.questions += 1
        return sum(
            1 for one in run_ids if one in self.runs and self.runs[one] in (states or [self.runs[one]])
        )


@pytest.fixture
def ti(monkeypatch: pytest.MonkeyPatch) -> Inbox:
    ti = Inbox(task_id="waiting")
    if not HAS_TASK_API:

        def in_database(dag_id: str, run_ids: Sequence[str], states: list[str] | None) -> set[str]:
            return {one for one in run_ids if ti.get_dr_count(dag_id=dag_id, run_ids=[one], states=states)}

        monkeypatch.setattr(module, "_runs_in_database", in_database)
    return ti


def listed(ti: Any, workflow: str, **arguments: Any) -> list[dict[str, Any]]:
    arguments = {"task_external_id": "score", **arguments}
    operator = CdfWaitingTasksOperator(
        task_id="waiting", trigger_dag_id="work", workflow_external_id=workflow, **arguments
    )
    return operator.execute({"ti": ti})


def start(project: Project, workflow: str) -> str:
    """Start an execution whose task ``score`` waits; return the id of that."""
    return str(project.task(project.run(workflow), "score")["id"])


class TestWhatWaits:
    def test_gets_a_run_of_its_own_with_all_that_is_known(self, project: Project, ti: Inbox) -> None:
        workflow = project.define(function_task("score", waits=True, timeout=1800))
        execution_id = project.run(workflow)
        task = project.task(execution_id, "score")

        (arguments,) = listed(ti, workflow)

        assert arguments["trigger_run_id"] == f"cdf__{task['id']}"
        conf = arguments["conf"]
        began, deadline = (datetime.fromisoformat(conf.pop(name)) for name in ("start_time", "deadline"))
        assert began.timestamp() * 1000 == pytest.approx(task["startTime"])
        assert deadline - began == timedelta(seconds=1800)
        assert conf == {
            "cdf_task_id": task["id"],
            "execution_id": execution_id,
            "task_external_id": "score",
            "parent_task_external_id": None,
            "workflow_external_id": workflow,
            "version": "1",
        }

    def test_is_nothing_else_where_the_server_does_not_filter_and_read_once(
        self, cdf: CdfEmulator, project: Project, ti: Inbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = CdfHook.list_executions
        monkeypatch.setattr(CdfHook, "list_executions", lambda hook, **filters: [*asked(hook), *asked(hook)])
        workflow, other = (project.define(function_task("score", waits=True)) for _ in range(2))
        start(project, other)
        mine = start(project, workflow)
        before = cdf.journal.count("GET", "*/executions/*")
        assert [one["conf"]["cdf_task_id"] for one in listed(ti, workflow)] == [mine]
        assert cdf.journal.count("GET", "*/executions/*") - before == 1
        assert listed(ti, workflow, version="2") == []

    def test_is_listed_oldest_first(self, project: Project, ti: Inbox) -> None:
        workflow = project.define(function_task("score", waits=True))
        ids = [start(project, workflow) for _ in range(3)]
        assert [one["conf"]["cdf_task_id"] for one in listed(ti, workflow)] == ids

    def test_is_left_out_where_a_run_is_there(self, project: Project, ti: Inbox) -> None:
        workflow = project.define(function_task("score", waits=True))
        first, second = start(project, workflow), start(project, workflow)
        ti.runs[f"cdf__{first}"] = "running"

        assert [one["conf"]["cdf_task_id"] for one in listed(ti, workflow)] == [second]

    def test_is_another_one_after_a_retry_of_cdf(self, project: Project, ti: Inbox) -> None:
        workflow = project.define(function_task("score", waits=True, retries=1))
        execution_id = project.run(workflow)
        first = project.task(execution_id, "score")["id"]
        ti.runs[f"cdf__{first}"] = "success"
        project.update(first, "FAILED")
        second = project.task(execution_id, "score")["id"]

        assert [one["conf"]["cdf_task_id"] for one in listed(ti, workflow)] == [second]

    @pytest.mark.parametrize("task_external_id", ["other", "plain"])
    def test_is_no_other_task_and_none_that_cdf_ends_itself(
        self, task_external_id: str, cdf: CdfEmulator, project: Project, ti: Inbox
    ) -> None:
        workflow = project.define(function_task("score", waits=True), function_task("plain"))
        start(project, workflow)
        assert listed(ti, workflow, task_external_id=task_external_id) == []

    def test_is_nothing_in_other_versions_or_ended_executions(self, project: Project, ti: Inbox) -> None:
        workflow = project.define(function_task("score", waits=True))
        execution_id = project.run(workflow)
        project.task(execution_id, "score")
        assert listed(ti, workflow, version="2") == []
        assert len(listed(ti, workflow, version="1")) == 1
        project.cancel(execution_id)
        assert listed(ti, workflow) == []

    def test_may_be_a_child_of_a_dynamic_task(self, cdf: CdfEmulator, project: Project, ti: Inbox) -> None:
        child = {
            **function_task("score", waits=True),
            "parameters": {"function": {"externalId": "ask", "data": {}}, "isAsyncComplete": True},
        }
        cdf.set_function("list", {"tasks": [child]})
        dynamic = {
            "externalId": "each",
            "type": "dynamic",
            "retries": 0,
            "parameters": {"dynamic": {"tasks": "${list.output.response.tasks}"}},
            "dependsOn": [{"externalId": "list"}],
        }
        workflow = project.define(function_task("list"), dynamic)
        project.task(project.run(workflow), "score")

        for parent in (None, "each"):
            (arguments,) = listed(ti, workflow, parent_task_external_id=parent)
            assert arguments["conf"]["parent_task_external_id"] == "each"
            assert arguments["conf"]["deadline"] is None
        assert listed(ti, workflow, parent_task_external_id="other") == []

    def test_is_cut_where_airflow_maps_no_further(
        self, project: Project, ti: Inbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MOST", 2)
        monkeypatch.setattr(module, "AT_ONCE", 2)
        workflow = project.define(function_task("score", waits=True))
        ids = [start(project, workflow) for _ in range(3)]
        assert [one["conf"]["cdf_task_id"] for one in listed(ti, workflow)] == ids[:2]


class TestLog:
    def test_names_runs_that_have_ended_without_a_report(
        self, project: Project, ti: Inbox, capsys: pytest.CaptureFixture[str]
    ) -> None:
        workflow = project.define(function_task("score", waits=True))
        ended, running = start(project, workflow), start(project, workflow)
        ti.runs = {f"cdf__{ended}": "failed", f"cdf__{running}": "running"}

        assert listed(ti, workflow) == []

        said = capsys.readouterr().out
        assert said.count("A DAG run has ended, and its CDF task still waits") == 1
        assert ended in said
        assert running not in said

    def test_does_not_name_a_run_that_has_reported_since_cdf_was_read(
        self, project: Project, ti: Inbox, capsys: pytest.CaptureFixture[str]
    ) -> None:
        workflow = project.define(function_task("score", waits=True))
        reported, ended = start(project, workflow), start(project, workflow)
        ti.runs = {f"cdf__{reported}": "success", f"cdf__{ended}": "failed"}
        ti.meanwhile = lambda: project.update(reported, "COMPLETED")

        assert listed(ti, workflow) == []

        said = capsys.readouterr().out
        assert f"cdf__{reported}" not in said
        assert f"cdf__{ended}" in said

    def test_does_not_name_a_run_whose_execution_cannot_be_read_again(
        self, cdf: CdfEmulator, project: Project, ti: Inbox, capsys: pytest.CaptureFixture[str]
    ) -> None:
        workflow = project.define(function_task("score", waits=True))
        ended = start(project, workflow)
        ti.runs = {f"cdf__{ended}": "failed"}
        ti.meanwhile = lambda: cdf.faults.add("GET", "*/executions/*", status=400)
        try:
            assert listed(ti, workflow) == []
        finally:
            cdf.faults.clear()

        said = capsys.readouterr().out
        assert "An execution could not be read, and is left for the next time." in said
        assert f"cdf__{ended}" not in said

    def test_names_what_cdf_is_about_to_give_up_while_its_run_is_queued(
        self, project: Project, ti: Inbox, capsys: pytest.CaptureFixture[str]
    ) -> None:
        short, long = (
            project.define(function_task("score", waits=True, timeout=timeout)) for timeout in (100, 3600)
        )
        for workflow, state in ((short, "queued"), (long, "queued"), (short, "running")):
            ti.runs = {f"cdf__{start(project, workflow)}": state}
            listed(ti, workflow)
            said = capsys.readouterr().out
            assert ("CDF is about to give a task up" in said) == (workflow == short and state == "queued")


class TestTrouble:
    def test_with_one_execution_leaves_it_for_the_next_time(
        self, cdf: CdfEmulator, project: Project, ti: Inbox
    ) -> None:
        workflow = project.define(function_task("score", waits=True))
        ids = {start(project, workflow) for _ in range(3)}
        cdf.faults.add("GET", "*/executions/*", status=400)
        try:
            assert {one["conf"]["cdf_task_id"] for one in listed(ti, workflow)} < ids
        finally:
            cdf.faults.clear()

    def test_with_one_that_hangs_is_over_soon_and_named(
        self,
        cdf: CdfEmulator,
        project: Project,
        ti: Inbox,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(module, "READ_WITHIN", 0.5)
        workflow = project.define(function_task("score", waits=True))
        hanging = project.run(workflow)
        project.task(hanging, "score")
        other = start(project, workflow)
        cdf.faults.add("GET", f"*/executions/{hanging}", delay=3)
        try:
            assert [one["conf"]["cdf_task_id"] for one in listed(ti, workflow)] == [other]
        finally:
            cdf.faults.clear()
        said = capsys.readouterr().out
        assert "An execution could not be read, and is left for the next time." in said
        assert hanging in said

    def test_with_some_does_not_hold_up_the_others_and_eight_are_read_at_once(
        self, project: Project, ti: Inbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workflow = project.define(function_task("score", waits=True))
        ids = {start(project, workflow) for _ in range(10)}
        get_execution = CdfHook.aget_execution
        reading: list[str] = []
        most, eight = 0, asyncio.Event()

        async def read(hook: CdfHook, execution_id: str, *, within: float | None = None) -> Any:
            nonlocal most
            reading.append(execution_id)
            most = max(most, len(reading))
            if most == 8:
                eight.set()
            await eight.wait()
            try:
                return await get_execution(hook, execution_id, within=within)
            finally:
                reading.remove(execution_id)

        monkeypatch.setattr(CdfHook, "aget_execution", read)
        assert {one["conf"]["cdf_task_id"] for one in listed(ti, workflow)} == ids
        assert most == 8

    def test_with_all_of_them_is_an_error(self, cdf: CdfEmulator, project: Project, ti: Inbox) -> None:
        workflow = project.define(function_task("score", waits=True))
        start(project, workflow)
        cdf.faults.add("GET", "*/executions/*", status=400, times=100)
        try:
            with pytest.raises(CdfError, match="400"):
                listed(ti, workflow)
        finally:
            cdf.faults.clear()


class TestAbsurdNumbers:
    """One of them in one execution, and its time is not known; all else goes on."""

    def conf(self, start_time: float, timeout: float) -> dict[str, Any]:
        task = {"id": "t", "externalId": "score", "status": "IN_PROGRESS", "startTime": start_time}
        defined = {"externalId": "score", "type": "function", "timeout": timeout}
        execution = WorkflowExecutionDetails.model_validate(
            {
                "id": "e",
                "workflowExternalId": "pump_health",
                "status": "RUNNING",
                "executedTasks": [{**task, "input": {"isAsyncComplete": True}}],
                "workflowDefinition": {"tasks": [defined]},
            }
        )
        (waiting,) = waiting_in(execution, "score")
        return waiting.conf()

    @pytest.mark.parametrize("start_time", [10**17, 253_402_300_800_000, -(10**15), 0])
    def test_as_the_start_time(self, start_time: int) -> None:
        conf = self.conf(start_time, 3600)
        assert (conf["start_time"], conf["deadline"]) == (None, None)

    @pytest.mark.parametrize("timeout", [1e13, 1e308, -1e13, float("inf"), float("nan")])
    def test_as_the_timeout(self, timeout: float) -> None:
        conf = self.conf(1_700_000_000_000, timeout)
        assert conf["start_time"] == "2023-11-14T22:13:20+00:00"
        assert conf["deadline"] is None


@pytest.mark.parametrize("counted", [set(), {"0"}, {"5"}, {"3", "4"}, set(map(str, range(8)))], ids=len)
def test_counts_tell_which(counted: set[str]) -> None:
    asked = 0

    def count(ids: Sequence[str]) -> int:
        nonlocal asked
        asked += 1
        return len(counted.intersection(ids))

    assert those_counted([str(one) for one in range(8)], count) == counted
    if len(counted) in (0, 8):
        assert asked == 1
    assert those_counted([], count) == set()


EVERY_MINUTE = timedelta(minutes=1)


class TestDag:
    def make(self, **arguments: Any) -> Any:
        given = {
            "trigger_dag_id": "work",
            "workflow_external_id": "pump_health",
            "task_external_id": "score",
        }
        return cdf_inbox("inbox", **{**given, **arguments})

    @pytest.mark.parametrize("name", ["workflow_external_id", "task_external_id"])
    @pytest.mark.parametrize("value", ["", " ", None])
    def test_refuses_an_empty_id(self, name: str, value: Any) -> None:
        with pytest.raises(CdfInputError, match=f"{name} is empty"):
            self.make(**{name: value}, schedule=EVERY_MINUTE)

    def test_refuses_to_start_itself(self) -> None:
        with pytest.raises(CdfInputError, match="start itself"):
            self.make(trigger_dag_id="inbox", schedule=EVERY_MINUTE)

    def test_takes_what_a_dag_takes(self) -> None:
        def tell(context: Any) -> None: ...

        dag = self.make(
            schedule=EVERY_MINUTE,
            tags=["plant 3"],
            default_args={"retries": 5, "owner": "ops"},
            on_failure_callback=tell,
        )
        assert set(dag.tags) == {"plant 3"}
        assert dag.on_failure_callback == tell
        waiting = dag.get_task("waiting")
        assert (waiting.retries, waiting.owner, waiting.retry_delay) == (5, "ops", timedelta(seconds=10))
        assert self.make(schedule=EVERY_MINUTE, default_args=None).get_task("waiting").retries == 2

    @pytest.mark.parametrize("name", ["catchup", "max_active_runs"])
    def test_refuses_what_an_inbox_decides(self, name: str) -> None:
        with pytest.raises(CdfInputError, match=f"{name}, which an inbox decides itself"):
            self.make(schedule=EVERY_MINUTE, **{name: 1})

    def test_refuses_what_no_dag_takes(self) -> None:
        with pytest.raises(TypeError, match="versoin"):
            self.make(schedule=EVERY_MINUTE, versoin="1")

    def test_lists_and_starts(self) -> None:
        dag = self.make(
            schedule=timedelta(minutes=1), version="1", parent_task_external_id="each", cdf_conn_id="other"
        )
        assert dag.task_ids == ["waiting", "start"]
        assert dag.get_task("start").upstream_task_ids == {"waiting"}
        waiting = dag.get_task("waiting")
        assert (waiting.version, waiting.parent_task_external_id, waiting.cdf_conn_id) == (
            "1",
            "each",
            "other",
        )
        assert (dag.catchup, dag.max_active_runs) == (False, 1)

    def test_starts_each_run_once_and_without_a_date(self) -> None:
        mapped = self.make(schedule="@hourly").get_task("start")
        operator = mapped.unmap({"trigger_run_id": "cdf__x", "conf": {"execution_id": "y"}})
        assert isinstance(operator, CdfStartOperator)
        assert (operator.trigger_dag_id, operator.trigger_run_id) == ("work", "cdf__x")
        assert operator.skip_when_already_exists is True
        assert operator.logical_date is None

    def test_can_be_stored(self) -> None:
        stored = DagSerialization.from_dict(
            DagSerialization.to_dict(self.make(schedule=timedelta(minutes=1)))
        )
        assert set(stored.task_dict) == {"waiting", "start"}

    @pytest.mark.skipif(not HAS_TASK_API, reason="Airflow 2 has no watchers")
    @pytest.mark.parametrize("schedule", [{}, {"schedule": "watcher"}], ids=str)
    def test_is_woken_by_a_watcher_without_a_schedule(self, schedule: dict[str, Any]) -> None:
        dag = self.make(**schedule, version="1", poll_interval=3, cdf_conn_id="other")
        ((asset,),) = [list(condition.objects) for condition in [dag.timetable.asset_condition]]
        (watcher,) = asset.watchers
        assert watcher.trigger.serialize()[1] == {
            "cdf_conn_id": "other",
            "workflow_external_id": "pump_health",
            "task_external_id": "score",
            "version": "1",
            "parent_task_external_id": None,
            "poll_interval": 3,
        }
        assert set(DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_dict) == {
            "waiting",
            "start",
        }

    def test_is_started_by_hand_where_airflow_is_told_so(self) -> None:
        dag = self.make(schedule=None)
        assert type(dag.timetable).__name__ == "NullTimetable"

    def test_needs_a_schedule_on_airflow_2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("airflow_provider_cdf.inbox.HAS_TASK_API", False)
        with pytest.raises(ValueError, match="schedule"):
            self.make()
        assert type(self.make(schedule=None).timetable).__name__ == "NullTimetable"


class TestAirflow2:
    """Where a DAG run needs a logical date of its own, and tasks ask the database."""

    RUN_ID = "cdf__11111111-2222-4333-8444-555555555123"
    CONF = {"start_time": "2026-11-26T10:00:00.123000+00:00"}

    def test_dates_follow_from_the_task_and_the_try(self) -> None:
        began = datetime(2026, 11, 26, 10, 0, 0, 123000, tzinfo=UTC)
        own = int("555555555123", 16) % 1000
        first = logical_date(self.CONF["start_time"], self.RUN_ID, 1)
        assert first == began + timedelta(microseconds=own)
        assert logical_date(self.CONF["start_time"], self.RUN_ID, 2) == first + timedelta(seconds=1)
        assert logical_date(None, "manual", 1).tzinfo is UTC

    @pytest.mark.parametrize("is_there", [True, False], ids=["of this very run", "of another run"])
    def test_a_run_that_is_there_is_left_alone_and_a_clash_of_dates_tried_again(
        self, is_there: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dates = []

        def execute(self: Any, context: Any) -> None:
            dates.append(self.logical_date)
            raise AirflowSkipException

        found = [SimpleNamespace(run_id=self.RUN_ID, state="running")] if is_there else []
        monkeypatch.setattr("airflow.models.dagrun.DagRun.find", lambda **arguments: found)
        monkeypatch.setattr(TriggerDagRunOperator, "execute", execute)
        monkeypatch.setattr(module, "HAS_TASK_API", False)
        operator = CdfStartOperator(
            task_id="start", trigger_dag_id="work", trigger_run_id=self.RUN_ID, conf=self.CONF
        )
        error = AirflowSkipException if is_there else AirflowException
        with pytest.raises(error) as raised:
            operator.execute({"ti": SimpleNamespace(try_number=1)})
        assert type(raised.value) is error
        assert dates == [logical_date(self.CONF["start_time"], self.RUN_ID, 1)]

    def test_asks_the_database(self, monkeypatch: pytest.MonkeyPatch, project: Project) -> None:
        workflow = project.define(function_task("score", waits=True))
        task_id = start(project, workflow)
        run = SimpleNamespace(run_id=f"cdf__{task_id}", state="running")
        monkeypatch.setattr("airflow.models.dagrun.DagRun.find", lambda **arguments: [run])
        monkeypatch.setattr(module, "HAS_TASK_API", False)
        assert listed(FakeTaskInstance(), workflow) == []
