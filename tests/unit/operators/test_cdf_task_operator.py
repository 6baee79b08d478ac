"""CdfTaskOperator against the emulator: it waits for a CDF task, calls a function, and reports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from moved import AirflowRescheduleException, DownstreamTasksSkipped
from support import FakeTaskInstance, Project, function_task, run_to_end

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.errors import (
    CdfError,
    CdfInputError,
    CdfNothingToReportToError,
    CdfWaitImpossibleError,
)
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks import lookup
from airflow_provider_cdf.operators import task as task_module
from airflow_provider_cdf.operators import task_kill
from airflow_provider_cdf.operators.callbacks import report_failure
from airflow_provider_cdf.operators.cdf_task import CdfTask
from airflow_provider_cdf.operators.task_work import CdfTaskOperator
from airflow_provider_cdf.task_state import state_of
from airflow_provider_cdf.triggers.task import CdfTaskTrigger
from airflow_provider_cdf.versions import HAS_COROUTINE_TASKS, HAS_TASK_API

pytestmark = pytest.mark.usefixtures("cdf_default")

UNKNOWN = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def execution_id(project: Project) -> str:
    """An execution whose task ``score`` is about to wait."""
    return project.run(project.define(function_task("score", waits=True)))


@pytest.fixture
def ti() -> FakeTaskInstance:
    ti = FakeTaskInstance(task_id="judge")
    ti.log_url = f"http://airflow/dags/plant/runs/{ti.run_id}/tasks/judge?try_number=1"  # type: ignore[attr-defined]
    return ti


def make(function: Callable[..., Any], execution_id: str | None = None, **arguments: Any) -> CdfTaskOperator:
    arguments = {"poll_interval": 0.05, "show_return_value_in_logs": False, **arguments}
    if "cdf_task_id" not in arguments:
        arguments.setdefault("task_external_id", "score")
    return CdfTaskOperator(task_id="judge", python_callable=function, execution_id=execution_id, **arguments)


def context(ti: FakeTaskInstance, operator: Any, **more: Any) -> Any:
    return {"ti": ti, "task": operator, **more}


def work(ti: FakeTaskInstance, function: Callable[..., Any], execution_id: str, **arguments: Any) -> Any:
    operator = make(function, execution_id, **arguments).prepare_for_execution()
    return run_to_end(operator, context(ti, operator))


def raising(error: BaseException) -> Callable[[], Any]:
    def function() -> Any:
        raise error

    return function


def skips_others() -> BaseException:
    return DownstreamTasksSkipped(tasks=["next"])


def told(project: Project, execution_id: str, status: str = "FAILED_WITH_TERMINAL_ERROR") -> dict[str, Any]:
    output: dict[str, Any] = project.task(execution_id, "score", status)["output"]["airflow"]
    return output


def waits(project: Project, execution_id: str) -> bool:
    (score,) = project.execution(execution_id)["executedTasks"]
    return bool(score["status"] == "IN_PROGRESS")


def test_what_the_function_raises_reaches_cdf_cut_masked_and_without_its_cause(
    execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    lookup.keep_out_of_logs("correct-horse-battery")

    def function() -> Any:
        raise ValueError("login\ncorrect-horse-battery " + "x" * 1000) from RuntimeError("confidential")

    with pytest.raises(ValueError, match="login") as caught:
        work(ti, function, execution_id)

    assert str(caught.value.__cause__) == "confidential"  # which Airflow logs
    says = told(project, execution_id)
    assert says["error"]["message"].startswith("login *** x")
    assert len(says["error"]["message"]) <= 500
    assert "confidential" not in str(says)


@dataclass
class Verdict:
    risk: float


class TestTheWork:
    def test_waits_calls_the_function_and_reports_what_it_returns(
        self, deferrable: bool, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        def judge(cdf_task: CdfTask, factor: int, dag: Any = None) -> dict[str, Any]:
            assert cdf_task.input["function"]["data"] == cdf_task.data == {"pump": "P-101"}
            return {"pump": cdf_task.data["pump"], "risk": 0.1 * factor}

        returned = work(ti, judge, execution_id, op_kwargs={"factor": 5}, deferrable=deferrable)

        output = project.task(execution_id, "score", "COMPLETED")["output"]
        assert returned == {"pump": "P-101", "risk": 0.5}
        assert {key: output[key] for key in returned} == returned
        assert project.execution(execution_id)["status"] == "COMPLETED"

    def test_defers_where_the_task_does_not_wait_yet(self, project: Project, ti: FakeTaskInstance) -> None:
        first, second = function_task("first", waits=True), function_task("score", waits=True)
        execution_id = project.run(project.define(first, {**second, "dependsOn": [{"externalId": "first"}]}))
        operator = make(dict, execution_id, deferrable=True)

        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context(ti, operator))

        project.update(project.task(execution_id, "first")["id"], "COMPLETED")
        project.task(execution_id, "score")
        assert deferred.value.trigger.serialize()[1]["task_external_id"] == "score"
        event = {"outcome": "reached", "cdf_task_id": project.task(execution_id, "score")["id"]}
        next_kwargs = {**(deferred.value.kwargs or {}), "event": event}
        # Airflow makes the operator anew to resume it.
        again = make(lambda: {"risk": 0.2}, execution_id, deferrable=True)
        assert again.resume_execution(str(deferred.value.method_name), next_kwargs, context(ti, again)) == {
            "risk": 0.2
        }
        assert project.task(execution_id, "score", "COMPLETED")["output"]["risk"] == 0.2

    def test_waits_longer_than_airflow_lets_sensors_wait(
        self, project: Project, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__SENSORS__DEFAULT_TIMEOUT", "3600")
        first, second = function_task("first", waits=True), function_task("score", waits=True)
        execution_id = project.run(project.define(first, {**second, "dependsOn": [{"externalId": "first"}]}))
        operator = make(dict, execution_id, deferrable=True)

        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context(ti, operator))

        trigger: Any = deferred.value.trigger
        assert trigger.end_time - ti.start_date.timestamp() == pytest.approx(7 * 24 * 3600)

    @pytest.mark.parametrize("value", [None, 7, "text", [1, 2], True])
    def test_what_is_no_object_becomes_one(
        self, value: Any, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        assert work(ti, lambda: value, execution_id) == value

        assert project.task(execution_id, "score", "COMPLETED")["output"]["return_value"] == value

    @pytest.mark.skipif(not HAS_COROUTINE_TASKS, reason="Airflow 3.2")
    def test_a_coroutine_function_is_awaited(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        async def judge(cdf_task: CdfTask) -> dict[str, Any]:
            return {"risk": 0.3, "pump": cdf_task.data["pump"]}

        assert work(ti, judge, execution_id) == {"risk": 0.3, "pump": "P-101"}

        assert project.task(execution_id, "score", "COMPLETED")["output"]["risk"] == 0.3

    def test_a_function_with_keywords_gets_the_task_among_the_context(
        self, execution_id: str, ti: FakeTaskInstance
    ) -> None:
        def judge(**everything: Any) -> str:
            assert everything["ti"] is ti
            return str(everything["cdf_task"].execution_id)

        assert work(ti, judge, execution_id) == execution_id

    def test_takes_the_current_attempt(self, project: Project, ti: FakeTaskInstance) -> None:
        execution_id = project.run(project.define(function_task("score", waits=True, retries=1)))
        first = project.task(execution_id, "score")["id"]
        project.update(first, "FAILED")

        attempt = work(ti, lambda cdf_task: cdf_task.id, execution_id)

        assert attempt == project.task(execution_id, "score", "COMPLETED")["id"] != first

    @pytest.mark.parametrize("with_execution", [True, False])
    def test_by_cdf_task_id(
        self, with_execution: bool, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        cdf_task_id = project.task(execution_id, "score")["id"]

        def judge(cdf_task: CdfTask) -> str:
            assert cdf_task.external_id == ("score" if with_execution else None)
            if with_execution:
                assert cdf_task.is_waiting()
                assert cdf_task.data == {"pump": "P-101"}
            else:
                for ask in (cdf_task.is_waiting, lambda: cdf_task.input, lambda: cdf_task.data):
                    with pytest.raises(CdfInputError, match="execution_id"):
                        ask()
            return cdf_task.id

        operator = make(judge, execution_id if with_execution else None, cdf_task_id=cdf_task_id)

        assert run_to_end(operator, context(ti, operator)) == cdf_task_id
        assert project.execution(execution_id)["status"] == "COMPLETED"

    def test_a_repr_holds_ids_only(self, execution_id: str, project: Project, ti: FakeTaskInstance) -> None:
        assert "P-101" not in str(work(ti, lambda cdf_task: repr(cdf_task), execution_id))

    def test_is_importable_where_the_other_task_operator_is(self) -> None:
        assert task_module.CdfTaskOperator is CdfTaskOperator
        with pytest.raises(AttributeError, match="no attribute 'CdfTaskOperators'"):
            _ = task_module.CdfTaskOperators


class TestFailure:
    def test_leaves_the_task_waiting_while_tries_are_left_and_the_retry_does_it(
        self, deferrable: bool, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        ti.max_tries = 1
        with pytest.raises(RuntimeError, match="the historian is down"):
            work(ti, raising(RuntimeError("the historian is down")), execution_id, deferrable=deferrable)
        assert waits(project, execution_id)
        waiting = project.task(execution_id, "score")["id"]

        ti.try_number = 2
        assert work(ti, lambda cdf_task: cdf_task.id, execution_id, deferrable=deferrable) == waiting

        assert project.execution(execution_id)["status"] == "COMPLETED"

    @pytest.mark.parametrize("failure_status", ["FAILED_WITH_TERMINAL_ERROR", "FAILED", "failed"], ids=str)
    def test_is_reported_after_the_last_try(
        self, failure_status: str, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        ti.max_tries, ti.try_number = 2, 3
        with pytest.raises(RuntimeError):
            work(ti, raising(RuntimeError("no\nhistorian")), execution_id, failure_status=failure_status)

        output = told(project, execution_id, failure_status.upper())
        assert output["error"] == {"type": "RuntimeError", "message": "no historian"}
        assert (output["dag_id"], output["run_id"], output["task_id"]) == ("plant", ti.run_id, "judge")
        assert (output["try_number"], output["failed_task_count"]) == (3, 1)
        (failed,) = output["failed_tasks"]
        assert failed["task_id"] == "judge"
        assert failed["url"].endswith("/tasks/judge")
        assert output["url"].startswith("http://airflow/dags/plant/runs/")

    @pytest.mark.parametrize("error", [AirflowFailException("no"), CdfInputError("no")], ids=repr)
    def test_that_is_not_retried_is_reported_at_once(
        self, error: AirflowException, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        ti.max_tries = 5
        with pytest.raises(AirflowFailException):
            work(ti, raising(error), execution_id)

        assert told(project, execution_id)["error"]["message"] == "no"

    @pytest.mark.parametrize("error", [AirflowTaskTimeout("too long"), SystemExit(1)], ids=repr)
    def test_by_what_is_no_exception_is_one(
        self, error: BaseException, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        operator = make(raising(error), execution_id)
        with pytest.raises(type(error)):
            run_to_end(operator, context(ti, operator))
        operator.on_kill()  # Airflow does that after a timeout

        assert told(project, execution_id)["error"]["type"] == type(error).__name__

    @pytest.mark.parametrize(
        ("result", "said"),
        [
            ({1, 2}, "The output.return_value is not JSON: it is set."),
            ({"risk": float("nan")}, "The output.risk is not JSON: it is nan."),
            ([float("nan")], "The output.return_value[0] is not JSON: it is nan."),
            (Verdict(float("nan")), "The output.risk is not JSON: it is nan."),
            ({"text": "x" * 100_001}, "CDF takes at most 100000"),
            ({"airflow": {}}, "has the key 'airflow'"),
        ],
        ids=["a set", "NaN", "NaN in a list", "NaN in a dataclass", "too much", "our own key"],
    )
    def test_of_an_output_that_cdf_does_not_take_is_reported_at_once(
        self, result: Any, said: str, execution_id: str, project: Project, ti: FakeTaskInstance, clear: Any
    ) -> None:
        ti.max_tries = 5
        with pytest.raises(AirflowFailException) as error:
            work(ti, lambda: result, execution_id)

        message = clear(error.value, said, "was set to FAILED_WITH_TERMINAL_ERROR. [task 'score'")
        assert "Nothing was sent" not in message
        assert said in told(project, execution_id)["error"]["message"]

    def test_to_return_several_outputs_is_reported_after_the_last_try(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        # As Airflow's own, which comes behind the report, and would be too late for CDF.
        kind = TypeError if HAS_TASK_API else AirflowException
        ti.max_tries = 1
        for ti.try_number in (1, 2):
            with pytest.raises(kind, match="expected dictionary for multiple_outputs"):
                work(ti, lambda: 7, execution_id, multiple_outputs=True)
            assert waits(project, execution_id) is (ti.try_number == 1)
        assert "expected dictionary" in told(project, execution_id)["error"]["message"]

    @pytest.mark.parametrize(
        ("result", "arguments"), [({"a": 1}, {}), (None, {}), (7, {"do_xcom_push": False})]
    )
    def test_is_none_where_airflow_takes_the_outputs(
        self,
        result: Any,
        arguments: dict[str, Any],
        execution_id: str,
        project: Project,
        ti: FakeTaskInstance,
    ) -> None:
        assert work(ti, lambda: result, execution_id, multiple_outputs=True, **arguments) == result
        assert project.task(execution_id, "score", "COMPLETED")

    @pytest.mark.parametrize(
        "asks",
        [
            lambda: TaskDeferred(trigger=CdfTaskTrigger(), method_name="execute_complete"),
            lambda: AirflowRescheduleException(datetime.now(UTC)),
            pytest.param(
                skips_others, marks=pytest.mark.skipif(not HAS_TASK_API, reason="an exception of Airflow 3")
            ),
        ],
        ids=["defer", "reschedule", "skip others"],
    )
    def test_to_finish_because_another_operator_is_called_is_reported_at_once(
        self, asks: Any, execution_id: str, project: Project, ti: FakeTaskInstance, clear: Any
    ) -> None:
        ti.max_tries = 5
        with pytest.raises(AirflowFailException) as error:
            work(ti, raising(asks()), execution_id)

        clear(error.value, "The function did not finish: it raised", "a task of its own")
        assert "did not finish" in told(project, execution_id)["error"]["message"]

    def test_does_not_hide_behind_a_report_that_fails(
        self, cdf: CdfEmulator, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        operator = make(raising(RuntimeError("down")), execution_id)
        project.task(execution_id, "score")
        cdf.faults.add("POST", "*/update", status=503, times=50)
        try:
            with pytest.raises(RuntimeError, match="down") as error:
                run_to_end(operator, context(ti, operator))
        finally:
            cdf.faults.clear()
        assert waits(project, execution_id)
        # Airflow calls this next.
        report_failure(context(ti, operator, exception=error.value))

        assert told(project, execution_id)["error"]["message"] == "down"

    def test_that_is_reported_is_not_reported_again_by_the_callback(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        execution_id = project.run(project.define(function_task("score", waits=True, retries=1)))
        operator = make(raising(RuntimeError("down")), execution_id, failure_status="FAILED")
        with pytest.raises(RuntimeError):
            run_to_end(operator, context(ti, operator))
        attempts = project.execution(execution_id)["executedTasks"]

        report_failure(context(ti, operator))

        assert project.task(execution_id, "score")["id"] != attempts[0]["id"]  # CDF's next one waits

    @pytest.mark.parametrize("status", ["FAILED", "FAILED_WITH_TERMINAL_ERROR"])
    def test_of_a_worker_that_died_on_the_last_try_is_reported_by_the_callback(
        self, status: str, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        project.task(execution_id, "score")
        operator = make(dict, "{{ id }}", failure_status=status)

        report_failure(context(ti, operator, id=execution_id))

        assert told(project, execution_id, status)["failed_tasks"][0]["task_id"] == "judge"


class TestSkip:
    def test_is_reported_as_completed(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        with pytest.raises(AirflowSkipException):
            work(ti, raising(AirflowSkipException("nothing to do")), execution_id)

        assert told(project, execution_id, "COMPLETED")["skipped"] is True


class TestAnEarlierTry:
    def test_that_has_reported_is_not_repeated(
        self, deferrable: bool, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        ti.max_tries = 1
        first = work(ti, lambda: {"risk": 0.4}, execution_id)
        ti.try_number = 2  # its process died before Airflow knew

        again = work(ti, raising(AssertionError("called again")), execution_id, deferrable=deferrable)

        assert again == first == {"risk": 0.4}

    def test_that_has_skipped_is_skipped_again(
        self, deferrable: bool, execution_id: str, ti: FakeTaskInstance
    ) -> None:
        ti.max_tries = 1
        with pytest.raises(AirflowSkipException):
            work(ti, raising(AirflowSkipException("nothing to do")), execution_id)
        ti.try_number = 2

        with pytest.raises(AirflowSkipException, match="An earlier try has reported that it was skipped"):
            work(ti, raising(AssertionError("called again")), execution_id, deferrable=deferrable)

    @pytest.mark.parametrize(
        "result",
        [
            {"response": 5, "score": 1},
            {"functionId": 1},
            {"return_value": 5},
            {"callId": 3, "return_value": 1},
        ],
        ids=str,
    )
    def test_gives_all_that_its_function_had_returned(
        self, result: dict[str, Any], execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        ti.max_tries = 1
        assert work(ti, lambda: result, execution_id) == result
        ti.try_number = 2

        assert work(ti, raising(AssertionError("called again")), execution_id) == result
        output = project.task(execution_id, "score", "COMPLETED")["output"]
        assert {key: output[key] for key in result} == result

    def test_that_has_reported_no_object(self, execution_id: str, ti: FakeTaskInstance) -> None:
        ti.max_tries = 1
        work(ti, lambda: [1, 2], execution_id)
        ti.try_number = 2

        assert work(ti, raising(AssertionError("called again")), execution_id) == [1, 2]

    def test_that_has_reported_is_not_known_by_the_id_of_an_attempt_alone(
        self, deferrable: bool, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        """As docs/patterns.md says of the direct way."""
        ti.max_tries = 1
        cdf_task_id = project.task(execution_id, "score")["id"]
        by_id = {"cdf_task_id": cdf_task_id, "deferrable": deferrable}
        first = make(lambda: {"risk": 0.4}, None, **by_id)
        run_to_end(first, context(ti, first))
        ti.try_number = 2

        again = make(lambda: {"risk": 0.5}, None, **by_id)
        with pytest.raises(CdfNothingToReportToError, match="There is no task to report COMPLETED to"):
            run_to_end(again, context(ti, again))
        assert project.task(execution_id, "score", "COMPLETED")["output"]["risk"] == 0.4

    def test_of_another_run_of_the_task_counts_for_nothing(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        work(ti, lambda: {"risk": 0.4}, execution_id)
        ti.max_tries, ti.try_number = 1, 2  # a person has cleared it, to have it run again

        with pytest.raises(CdfWaitImpossibleError, match="ended COMPLETED before it was IN_PROGRESS"):
            work(ti, dict, execution_id)


class TestWhatCdfEnds:
    def test_while_it_is_waited_for_ends_the_task(
        self, deferrable: bool, project: Project, ti: FakeTaskInstance, clear: Any
    ) -> None:
        first, second = function_task("first", waits=True), function_task("score", waits=True)
        execution_id = project.run(project.define(first, {**second, "dependsOn": [{"externalId": "first"}]}))
        project.cancel(execution_id, "shift change")

        with pytest.raises(CdfWaitImpossibleError) as error:
            work(ti, raising(AssertionError("called")), execution_id, deferrable=deferrable)
        clear(error.value, "'score'", "shift change", execution_id)

    def test_while_the_function_runs_fails_the_task_with_the_reason(
        self, execution_id: str, project: Project, ti: FakeTaskInstance, clear: Any
    ) -> None:
        def judge(cdf_task: CdfTask) -> str:
            project.cancel(execution_id, "shift change")
            return "done"

        with pytest.raises(CdfNothingToReportToError) as error:
            work(ti, judge, execution_id)
        message = clear(error.value, "'score'", "CANCELED", "TERMINATED", execution_id)
        assert isinstance(error.value, AirflowFailException)
        assert "shift change" in message

    def test_not_is_seen_as_well(
        self, execution_id: str, project: Project, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [1000.0]
        monkeypatch.setattr(clock, "now", lambda: now[0])

        def judge(cdf_task: CdfTask) -> bool:
            now[0] += 8
            return cdf_task.is_waiting()

        assert work(ti, judge, execution_id, poll_interval=7) is True

    def test_is_seen_by_a_function_that_asks(
        self, execution_id: str, project: Project, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [1000.0]
        monkeypatch.setattr(clock, "now", lambda: now[0])
        answers = []

        def judge(cdf_task: CdfTask) -> str:
            project.cancel(execution_id)
            for passed in (0.0, 6.9, 7.1):
                now[0] = 1000.0 + passed
                answers.append(cdf_task.is_waiting())
            return "stopped early"

        with pytest.raises(CdfNothingToReportToError):
            work(ti, judge, execution_id, poll_interval=7)
        assert answers == [True, True, False]

    def test_is_not_known_while_cdf_does_not_answer(
        self, cdf: CdfEmulator, execution_id: str, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [1000.0]
        monkeypatch.setattr(clock, "now", lambda: now[0])

        def judge(cdf_task: CdfTask) -> bool:
            now[0] += 8
            cdf.faults.add("GET", "*/executions/*", status=503)
            return cdf_task.is_waiting()

        assert work(ti, judge, execution_id, poll_interval=7) is True

    def test_before_it_is_addressed_by_its_id(
        self, execution_id: str, project: Project, ti: FakeTaskInstance, clear: Any
    ) -> None:
        cdf_task_id = project.task(execution_id, "score")["id"]
        project.cancel(execution_id, "shift change")

        with pytest.raises(CdfWaitImpossibleError) as error:
            work(ti, dict, execution_id, cdf_task_id=cdf_task_id)
        clear(error.value, "'score' waits for no report", "shift change", execution_id)

    def test_never_had(self, execution_id: str, ti: FakeTaskInstance, clear: Any) -> None:
        with pytest.raises(CdfWaitImpossibleError) as error:
            work(ti, dict, execution_id, cdf_task_id=UNKNOWN)
        clear(error.value, UNKNOWN, execution_id)

    def test_by_itself_is_refused_before_the_work(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance, clear: Any
    ) -> None:
        cdf.set_function("slow", lambda data: threading.Event().wait(5))
        execution_id = project.run(project.define(function_task("slow")))
        project.task(execution_id, "slow")

        with pytest.raises(CdfWaitImpossibleError) as error:
            work(ti, raising(AssertionError("called")), execution_id, task_external_id="slow")
        clear(error.value, "'slow'", "isAsyncComplete", execution_id)


class TestKill:
    """What Airflow does to a running task: a signal, on which it runs on_kill inside the function."""

    def kill(
        self,
        ti: FakeTaskInstance,
        execution_id: str,
        state: str | None,
        then: Callable[[], Any] = dict,
        **arguments: Any,
    ) -> BaseException:
        ti.max_tries = 3
        ti.states["judge"] = {"judge" if ti.map_index < 0 else f"judge_{ti.map_index}": state or "none"}

        def judge() -> Any:
            operator.on_kill()
            operator.on_kill()  # a second signal changes nothing
            return then()

        operator = make(judge, execution_id, **arguments)
        with pytest.raises(BaseException) as error:  # noqa: PT011 - whatever it is
            run_to_end(operator, context(ti, operator))
        return error.value

    def test_by_mark_failed_reports_the_failure(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        error = self.kill(ti, execution_id, "failed")

        output = told(project, execution_id)
        assert output["error"] == {
            "type": "MarkedFailedError",
            "message": "The task was marked failed in Airflow.",
        }
        assert "told to stop" in str(error)

    def test_has_been_told_when_the_handler_returns(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        statuses: list[str] = []

        def look() -> None:
            (score,) = project.execution(execution_id)["executedTasks"]
            statuses.append(score["status"])

        self.kill(ti, execution_id, "failed", look)  # Airflow kills the process soon
        assert statuses == ["FAILED_WITH_TERMINAL_ERROR"]

    def test_by_a_dag_run_that_is_marked_failed_reports_the_failure(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        self.kill(ti, execution_id, "skipped")  # what Airflow makes of what was running
        assert "DAG run is marked failed" in told(project, execution_id)["error"]["message"]

    def test_by_mark_failed_as_the_failure_status(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        self.kill(ti, execution_id, "failed", failure_status="FAILED")
        assert told(project, execution_id, "FAILED")

    def test_by_mark_success_completes(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        self.kill(ti, execution_id, "success")
        assert told(project, execution_id, "COMPLETED")["marked"] == "success"

    @pytest.mark.parametrize("state", ["restarting", "running", "removed"])
    @pytest.mark.parametrize(
        "then",
        [dict, raising(AirflowFailException("stopped")), raising(AirflowSkipException("stopped"))],
        ids=["goes on", "fails", "skips"],
    )
    def test_by_a_clear_or_a_workers_end_reports_nothing(
        self, then: Any, state: str, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        self.kill(ti, execution_id, state, then)
        assert waits(project, execution_id)

    def test_reports_nothing_where_airflow_does_not_say_why(
        self, execution_id: str, project: Project, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unreachable(ti: Any) -> Any:
            raise ConnectionError

        monkeypatch.setattr(task_kill, "state_of", unreachable)
        self.kill(ti, execution_id, "failed")
        assert waits(project, execution_id)

    @pytest.mark.usefixtures("airflow_2")
    def test_of_a_mapped_task_reads_its_own_state_from_the_database_of_airflow_2(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        ti.map_index = 2
        self.kill(ti, execution_id, "failed")
        assert told(project, execution_id)["map_index"] == 2

    def test_of_a_mapped_task_asks_for_its_own_state(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        ti.map_index = 2
        self.kill(ti, execution_id, "failed")
        assert told(project, execution_id)["map_index"] == 2

    def test_before_or_after_the_work_reports_nothing(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        project.task(execution_id, "score")
        ti.states["judge"] = {"judge": "failed"}
        operator = make(raising(AssertionError("called")), execution_id)
        operator.on_kill()
        with pytest.raises(CdfError, match="told to stop"):
            run_to_end(operator, context(ti, operator))
        assert waits(project, execution_id)

    def test_while_the_connection_to_airflow_is_taken_waits_for_some_seconds_only(
        self, execution_id: str, project: Project, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given_back, answered = threading.Event(), threading.Event()

        def state(ti: Any) -> Any:
            given_back.wait(60)
            answered.set()
            return state_of(ti)

        monkeypatch.setattr(task_kill, "state_of", state)
        monkeypatch.setattr(task_kill.LastReport.wait, "__defaults__", (0.01,))

        def then() -> None:
            assert not answered.is_set()  # on_kill has returned all the same
            given_back.set()

        self.kill(ti, execution_id, "failed", then)
        assert told(project, execution_id)  # the thread has gone on


class TestRefusal:
    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"execution_id": UNKNOWN},
            {"task_external_id": "score"},
            {"cdf_task_id": UNKNOWN, "task_external_id": "a"},
        ],
        ids=lambda arguments: " and ".join(arguments) or "nothing",
    )
    def test_of_arguments_that_name_no_task_or_two(self, arguments: Any) -> None:
        with pytest.raises(ValueError, match="task_external_id"):
            CdfTaskOperator(task_id="judge", python_callable=dict, **arguments)

    @pytest.mark.parametrize("status", ["COMPLETED", "TIMED_OUT", "fail"])
    def test_of_a_failure_status_that_is_none(self, status: str) -> None:
        with pytest.raises(ValueError, match="FAILED"):
            make(dict, UNKNOWN, failure_status=status)

    def test_of_an_operator_in_place_of_its_output(self) -> None:
        with DAG("plant"):
            run = make(dict, UNKNOWN)
            with pytest.raises(ValueError, match=r"write judge\.output"):
                CdfTaskOperator(
                    task_id="next",
                    python_callable=dict,
                    execution_id=run,
                    task_external_id="score",  # type: ignore[arg-type]
                )

    def test_of_an_unknown_execution_within_the_first_minute_looks_again(
        self, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow_provider_cdf import waiting

        monkeypatch.setattr(waiting, "LAG", 0.0)
        with pytest.raises(CdfError, match=UNKNOWN) as error:
            work(ti, dict, UNKNOWN)
        assert isinstance(error.value, AirflowFailException)


def test_keeps_the_users_callbacks() -> None:
    theirs = lambda context: None  # noqa: E731
    operator = make(dict, UNKNOWN, on_failure_callback=theirs)
    assert list(operator.on_failure_callback) == [theirs, report_failure]
    mapped = CdfTaskOperator.partial(
        task_id="judges", python_callable=dict, execution_id=UNKNOWN, on_failure_callback=theirs
    ).expand(task_external_id=["a", "b"])
    assert list(mapped.on_failure_callback) == [theirs, report_failure]


def test_airflow_2_has_no_coroutines(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_cdf.operators import task_work as module

    async def judge() -> None: ...

    monkeypatch.setattr(module, "HAS_COROUTINE_TASKS", False)
    with pytest.raises(ValueError, match=r"Airflow 3\.2"):
        make(judge, UNKNOWN)
