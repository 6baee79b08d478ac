"""How long sensors wait, what they say meanwhile, and what they say when time is over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from support import FakeTaskInstance, broken, run_to_end
from triggers.scripted_cdf import ScriptedCdf, execution, scripted_cdf, task

from airflow_provider_cdf import waiting
from airflow_provider_cdf.cdf.errors import CdfRefusedError, CdfSilenceError, CdfWaitImpossibleError
from airflow_provider_cdf.sensors import base, looks
from airflow_provider_cdf.sensors.base import ExecutionSensor
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor
from airflow_provider_cdf.waiting import Pace

ID = "11111111-2222-4333-8444-555555555555"
RUNNING = execution("RUNNING", task("approve", "IN_PROGRESS", startTime=1))
COMPLETED = execution("COMPLETED", task("approve", "COMPLETED", startTime=1))


class Time:
    """A clock that pauses move, and nothing else."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).timestamp()
        self.pauses: list[float] = []

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """The time of the sensor. Airflow's own loop is not in it."""
    time = Time()
    monkeypatch.setattr(base, "time", time)
    monkeypatch.setattr(looks, "time", time)
    return time


@pytest.fixture
def cdf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A CDF that does what the test says, as ``cdf_default``."""
    with scripted_cdf() as cdf:
        monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection())
        cdf.looks = [RUNNING]
        yield cdf


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What sensors log. Airflow's own loggers do not lead to pytest."""
    logger = logging.getLogger("tests.sensors")
    monkeypatch.setattr(ExecutionSensor, "log", logger)
    caplog.set_level(logging.INFO, logger.name)
    return caplog


@pytest.fixture(params=["task", "workflow"])
def make(request: pytest.FixtureRequest) -> Callable[..., ExecutionSensor]:
    """Make either sensor anew, as each process does."""

    def make(**arguments: Any) -> ExecutionSensor:
        arguments = {"execution_id": ID, "poke_interval": 10, "timeout": 600, **arguments}
        if request.param == "workflow":
            return CdfWorkflowSensor(task_id="wait", **arguments)
        target = {"task_external_id": "approve", "target_status": "COMPLETED"}
        return CdfTaskSensor(task_id="wait", **{**target, **arguments})

    return make


def defer(sensor: ExecutionSensor, ti: FakeTaskInstance) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({"ti": ti})
    return deferred.value


def resume(sensor: ExecutionSensor, deferred: TaskDeferred, ti: FakeTaskInstance, event: Any) -> Any:
    next_kwargs = {**(deferred.kwargs or {}), "event": event}
    return sensor.resume_execution(deferred.method_name, next_kwargs, {"ti": ti})


class TestExecutionTimeout:
    """Airflow does not look at it while a task is deferred, and counts anew after that."""

    HOUR = timedelta(hours=1)

    def test_ends_the_deferral_where_it_is_over_first(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance
    ) -> None:
        start = ti.start_date.timestamp()

        deferred = defer(make(timeout=86_400, execution_timeout=self.HOUR, deferrable=True), ti)

        assert deferred.trigger.end_time == start + 3600
        assert deferred.timeout is not None
        assert 3600 < deferred.timeout.total_seconds() < 4000

    def test_counts_from_the_start_of_the_try_over_deferrals(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance
    ) -> None:
        ti.start_date -= timedelta(minutes=50)
        sensor = make(timeout=86_400, execution_timeout=self.HOUR, deferrable=True)
        first = defer(sensor, ti)

        with pytest.raises(TaskDeferred) as again:
            resume(make(timeout=86_400, execution_timeout=self.HOUR, deferrable=True), first, ti, None)

        assert again.value.trigger.end_time == first.trigger.end_time == ti.start_date.timestamp() + 3600

    def test_raises_what_airflow_retries(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time
    ) -> None:
        arguments = {"timeout": 86_400, "execution_timeout": self.HOUR, "deferrable": True}
        deferred = defer(make(**arguments), ti)
        time.now += 3601

        with pytest.raises(AirflowTaskTimeout) as error:
            resume(make(**arguments), deferred, ti, {"outcome": "timeout", "observed": "IN_PROGRESS"})

        message = str(error.value)
        assert message.startswith("Waited in vain for execution_timeout=3600 s: until ")
        assert message.endswith(f" Nothing was changed in CDF. [execution {ID}]")
        assert not isinstance(error.value, AirflowSensorTimeout)

    def test_takes_what_has_happened_at_the_last_moment(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time
    ) -> None:
        arguments = {"timeout": 86_400, "execution_timeout": self.HOUR, "deferrable": True}
        deferred = defer(make(**arguments), ti)
        time.now += 3601
        cdf.looks = [COMPLETED]

        assert resume(make(**arguments), deferred, ti, {"outcome": "timeout"})

    def test_leaves_the_sensors_timeout_what_it_is(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time
    ) -> None:
        arguments = {"timeout": 600, "execution_timeout": self.HOUR, "deferrable": True}
        deferred = defer(make(**arguments), ti)
        assert deferred.trigger.end_time == ti.start_date.timestamp() + 600
        # Waited for a slot until both were over.
        time.now += 7200

        with pytest.raises(AirflowSensorTimeout, match="timeout=600 s"):
            resume(make(**arguments), deferred, ti, {"outcome": "timeout"})

    @pytest.mark.parametrize("error", ["Trigger failure", "Trigger timeout"])
    def test_holds_where_the_trigger_has_broken(
        self, error: str, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time
    ) -> None:
        ti.start_date -= timedelta(hours=1)
        sensor = make(timeout=86_400, execution_timeout=self.HOUR, deferrable=True)

        with pytest.raises(AirflowTaskTimeout):
            sensor.resume_execution("__fail__", {"error": error}, {"ti": ti})

        assert cdf.looked == 1

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_skips_where_told_to(
        self, option: str, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance
    ) -> None:
        ti.start_date -= timedelta(hours=1)
        sensor = make(execution_timeout=self.HOUR, timeout=86_400, deferrable=True, **{option: True})

        with pytest.raises(AirflowSkipException, match="execution_timeout=3600 s"):
            sensor.execute({"ti": ti})

    def test_in_the_mode_reschedule_is_airflows_alone(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance
    ) -> None:
        ti.start_date -= timedelta(hours=2)
        sensor = make(mode="reschedule", execution_timeout=self.HOUR, timeout=86_400)

        assert not sensor.poke({"ti": ti}).is_done


class TestTimeoutAtTheFirstLook:
    """It is over before there is anything to defer."""

    @pytest.fixture(autouse=True)
    def late(self, ti: FakeTaskInstance) -> None:
        ti.start_date -= timedelta(hours=1)

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_skips_where_told_to_and_says_what_for(
        self, option: str, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance
    ) -> None:
        sensor = make(deferrable=True, **{option: True})

        with pytest.raises(
            AirflowSkipException, match=r"Skipped .* Waited in vain for timeout=600 s: until "
        ):
            sensor.execute({"ti": ti})

    def test_fails_otherwise(self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance) -> None:
        with pytest.raises(AirflowSensorTimeout, match="Waited in vain for timeout=600 s: until "):
            make(deferrable=True).execute({"ti": ti})


class TestNoEvent:
    """Airflow starts a deferred task once more now and then (apache/airflow#65248)."""

    @pytest.mark.parametrize("event", [None, {}], ids=repr)
    def test_goes_on_waiting_until_the_same_end(
        self, event: Any, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance
    ) -> None:
        first = defer(make(deferrable=True), ti)

        with pytest.raises(TaskDeferred) as again:
            resume(make(deferrable=True), first, ti, event)

        assert again.value.trigger.end_time == first.trigger.end_time
        assert again.value.kwargs == first.kwargs

    def test_takes_what_has_happened(self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance) -> None:
        first = defer(make(deferrable=True), ti)
        cdf.looks = [COMPLETED]

        assert resume(make(deferrable=True), first, ti, None)

    def test_is_not_ended_by_a_look_that_fails(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance
    ) -> None:
        first = defer(make(deferrable=True), ti)
        cdf.looks = [503]

        with pytest.raises(TaskDeferred):
            resume(make(deferrable=True), first, ti, None)

    def test_keeps_something_so_that_airflow_keeps_the_start_of_the_try(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance
    ) -> None:
        assert defer(make(deferrable=True), ti).kwargs == {"end_time": ti.start_date.timestamp() + 600}


class TestDagTest:
    """``dag.test()`` keeps the event of a trigger only, and counts each resumption as a start."""

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"timeout": 60}, AirflowSensorTimeout),
            ({"execution_timeout": timedelta(minutes=1)}, AirflowTaskTimeout),
        ],
        ids=["timeout", "execution_timeout"],
    )
    def test_a_wait_comes_to_its_end(
        self, arguments: Any, error: type[BaseException], make: Any, cdf: ScriptedCdf, time: Time
    ) -> None:
        deferred = defer(make(deferrable=True, **arguments), FakeTaskInstance())
        time.now += 61
        event = {"outcome": "timeout", "end_time": deferred.trigger.end_time}
        again = FakeTaskInstance(start_date=datetime.fromtimestamp(time.now, UTC))

        with pytest.raises(error):
            make(deferrable=True, **arguments).resume_execution(
                "execute_complete", {"event": event}, {"ti": again}
            )


class TestYoungExecution:
    """CDF may have started it a moment ago, and not know it yet where it is read."""

    @pytest.fixture(autouse=True)
    def lag(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(waiting, "LAG", 60.0)

    @pytest.mark.parametrize("status", [400, 404])
    @pytest.mark.parametrize("arguments", [{}, {"deferrable": True}, {"mode": "reschedule"}], ids=str)
    def test_is_looked_for(
        self, status: int, arguments: Any, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time
    ) -> None:
        cdf.looks = [*[status] * 5, COMPLETED]

        assert run_to_end(make(**arguments), {"ti": ti})

        assert time.pauses == [10] * 5

    def test_is_refused_after_a_minute_of_the_try(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time, deferrable: bool
    ) -> None:
        cdf.looks = [404]

        with pytest.raises(CdfRefusedError, match=ID):
            make(deferrable=deferrable).execute({"ti": ti})

        assert 50 <= sum(time.pauses) <= 70

    def test_is_not_looked_for_longer_than_the_timeout(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time
    ) -> None:
        cdf.looks = [404]

        with pytest.raises(CdfRefusedError):
            make(timeout=15).execute({"ti": ti})

        assert 14 <= sum(time.pauses) <= 16

    @pytest.mark.parametrize(("status", "age"), [(403, 0), (404, 61)])
    def test_of_another_refusal_or_an_older_try_is_refused_at_once(
        self, status: int, age: float, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time
    ) -> None:
        cdf.looks = [status]
        ti.start_date -= timedelta(seconds=age)

        with pytest.raises(CdfRefusedError):
            make().execute({"ti": ti})

        assert cdf.looked == 1

    def test_is_told_once(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time, log: pytest.LogCaptureFixture
    ) -> None:
        cdf.looks = [404, 404, COMPLETED]

        make().execute({"ti": ti})

        (told,) = [message for message in log.messages if message.startswith("It may have been started")]
        assert ID in told


class TestContradiction:
    """An execution that is RUNNING and has an end time."""

    ODD = execution("RUNNING", task("approve", "SCHEDULED"), endTime=1_700_000_000_000)

    def test_on_the_worker_is_told_once_and_waited_for_as_long_as_a_silence(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time, log: pytest.LogCaptureFixture
    ) -> None:
        cdf.looks = [self.ODD]

        with pytest.raises(CdfSilenceError, match="and when it ended"):
            make(max_poll_silence=100).wait_here({"ti": ti})

        assert 100 < sum(time.pauses) < 200
        assert len([message for message in log.messages if "and when it ended" in message]) == 1

    def test_at_the_first_look_does_not_end_the_wait(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, deferrable: bool, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(Pace, "SHORTEST_AFTER_FAILURE", 0.01)
        cdf.looks = [self.ODD, COMPLETED]

        assert run_to_end(make(poke_interval=0.05, deferrable=deferrable), {"ti": ti})

    def test_does_not_matter_once_it_has_happened(self, cdf: ScriptedCdf, ti: FakeTaskInstance) -> None:
        sensor = CdfTaskSensor(
            task_id="wait", execution_id=ID, task_external_id="approve", target_status="SCHEDULED"
        )
        cdf.looks = [self.ODD]

        assert sensor.execute({"ti": ti})


class TestLooksAfterFailingOnes:
    def test_are_as_rare_as_patience_says_although_airflow_pokes_on(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time
    ) -> None:
        sensor = make()
        looked = []
        cdf.looks = [RUNNING, 503, 503, RUNNING]
        for _ in range(10):
            assert not sensor.poke({"ti": ti}).is_done
            looked.append(cdf.looked)
            time.now += 10
        # 10 s apart, and 20 and 40 s after those that failed.
        assert looked == [1, 2, 2, 3, 3, 3, 3, 4, 5, 6]

    @pytest.mark.parametrize(("mode", "expected"), [("poke", True), ("reschedule", False)])
    def test_have_no_more_time_than_the_wait(
        self, mode: str, expected: bool, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time
    ) -> None:
        sensor = make(mode=mode)
        sensor.poke({"ti": ti})
        given: list[float | None] = []
        read = sensor.looks._poll_hook.get_execution

        def noting(execution_id: str, *, within: float | None = None) -> Any:
            given.append(within)
            return read(execution_id, within=within)

        sensor.looks._poll_hook.get_execution = noting
        time.now = ti.start_date.timestamp() + 590
        sensor.poke({"ti": ti})
        time.now += 3601
        sensor.poke({"ti": ti})

        assert given == ([pytest.approx(10), 1.0] if expected else [None, None])


class TestWhatIsTold:
    def test_a_deferral_with_its_interval_and_its_end(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, log: pytest.LogCaptureFixture
    ) -> None:
        defer(make(deferrable=True), ti)

        until = (ti.start_date + timedelta(seconds=600)).strftime("%Y-%m-%d %H:%M:%S UTC")
        assert log.messages[-1] == (
            f"Deferred: the triggerer looks every 10 s until {until} (timeout). [execution {ID}]"
        )

        defer(make(deferrable=True, execution_timeout=timedelta(minutes=5)), ti)

        until = (ti.start_date + timedelta(seconds=300)).strftime("%Y-%m-%d %H:%M:%S UTC")
        assert f"until {until} (execution_timeout)." in log.messages[-1]

    def test_where_the_execution_is(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time, log: pytest.LogCaptureFixture
    ) -> None:
        loaded = task("load", "COMPLETED", startTime=1000, endTime=13_000, id="load")
        cdf.looks = [
            execution("RUNNING", task("approve", "SCHEDULED"), task("load", "IN_PROGRESS", id="load")),
            execution("RUNNING", task("approve", "SCHEDULED"), loaded),
            COMPLETED,
        ]

        make().wait_here({"ti": ti})

        assert log.messages[0].startswith("Waiting: ")
        assert "'load' (IN_PROGRESS)" in log.messages[0]
        assert "Task 'load' is COMPLETED after 12 s." in log.messages

    def test_a_line_every_ten_minutes_at_least(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, time: Time, log: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(AirflowSensorTimeout):
            make(timeout=3500, poke_interval=60).wait_here({"ti": ti})

        assert len([message for message in log.messages if message.startswith("Waiting: ")]) == 6

    def test_a_bad_end_with_a_table_of_the_tasks(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, log: pytest.LogCaptureFixture
    ) -> None:
        failed = task("load", "FAILED", startTime=1000, endTime=13_000, reasonForIncompletion="no wind")
        cdf.looks = [execution("FAILED", failed)]

        with pytest.raises(CdfWaitImpossibleError):
            make().execute({"ti": ti})

        (told,) = [message for message in log.messages if message.startswith("The tasks of")]
        assert told.splitlines()[-1].split() == ["'load'", "FAILED", "12", "s", "no", "wind"]

    def test_that_nobody_has_served_a_deferral(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, log: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(AirflowSensorTimeout) as error:
            make(deferrable=True).resume_execution("__fail__", {"error": "Trigger timeout"}, {"ti": ti})

        assert str(error.value).startswith(
            "No triggerer has served this wait: none runs, or it is stuck. "
            "Waited in vain for timeout=600 s: until "
        )
        assert not any("broken" in message for message in log.messages)

    def test_that_a_trigger_has_broken(
        self, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, log: pytest.LogCaptureFixture
    ) -> None:
        cdf.looks = [COMPLETED]

        make(deferrable=True).resume_execution(*broken(KeyError("pump")), {"ti": ti})

        assert log.messages[0] == (
            "The trigger has broken. Waiting goes on here, in a worker slot. The reason: KeyError: 'pump'"
        )
        assert "The traceback of the trigger:" in log.text

    @pytest.mark.parametrize("said", [{"error": "Trigger failure"}, {}, None], ids=str)
    def test_that_a_trigger_has_broken_without_a_traceback(
        self, said: Any, make: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, log: pytest.LogCaptureFixture
    ) -> None:
        cdf.looks = [COMPLETED]

        make(deferrable=True).resume_execution("__fail__", said, {"ti": ti})

        reason = (said or {}).get("error", "unknown")
        assert log.messages[0] == (
            f"The trigger has broken. Waiting goes on here, in a worker slot. The reason: {reason}"
        )
        assert "traceback" not in log.text


class TestParent:
    NORTH, SOUTH = (task("approve", "IN_PROGRESS", parentTaskExternalId=name) for name in ("north", "south"))

    def make(self, **arguments: Any) -> CdfTaskSensor:
        arguments = {"poke_interval": 0.05, "timeout": 60, **arguments}
        return CdfTaskSensor(task_id="wait", execution_id=ID, task_external_id="approve", **arguments)

    @pytest.mark.parametrize("name", ["north", "south"])
    def test_only_its_children_count(
        self, name: str, cdf: ScriptedCdf, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        first = execution(
            "RUNNING", {**self.NORTH, "status": "SCHEDULED"}, {**self.SOUTH, "status": "SCHEDULED"}
        )
        cdf.looks = [first, execution("RUNNING", self.NORTH, self.SOUTH)]
        sensor = self.make(parent_task_external_id=name, deferrable=deferrable)

        assert run_to_end(sensor, {"ti": ti}) == (self.NORTH if name == "north" else self.SOUTH)["id"]

    @pytest.mark.parametrize("parent", [None, "", "None"], ids=repr)
    def test_of_several_none_is_guessed(
        self, parent: Any, cdf: ScriptedCdf, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        cdf.looks = [execution("RUNNING"), execution("RUNNING", self.NORTH, self.SOUTH)]
        sensor = self.make(parent_task_external_id=parent, deferrable=deferrable)

        with pytest.raises(CdfWaitImpossibleError, match="one of them: 'north', 'south'"):
            run_to_end(sensor, {"ti": ti})

    def test_is_named_in_messages(self, cdf: ScriptedCdf, ti: FakeTaskInstance) -> None:
        cdf.looks = [execution("FAILED", self.NORTH)]

        with pytest.raises(CdfWaitImpossibleError, match=r"^Task 'approve' of 'east' never started\."):
            self.make(parent_task_external_id="east").execute({"ti": ti})

        assert self.make(parent_task_external_id="east").goal == "task 'approve' of 'east' is IN_PROGRESS"

    def test_that_the_workflow_does_not_have_is_refused_at_once(
        self, cdf: ScriptedCdf, ti: FakeTaskInstance
    ) -> None:
        defined = [{"externalId": "approve", "type": "function", "parameters": {}}]
        cdf.looks = [execution("RUNNING", workflowDefinition={"hash": "h", "tasks": defined})]

        for parent in ("east", "approve"):
            with pytest.raises(CdfWaitImpossibleError, match=f"has no task '{parent}' with children"):
                self.make(parent_task_external_id=parent).execute({"ti": ti})
