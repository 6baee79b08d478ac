"""
What a run operator does while a request to start an execution may still be under way: time and again.

Time is simulated: a pause moves it, in the operator and in the emulator alike.
"""

from __future__ import annotations

import json
import logging
import time as real_time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout
from operator_support import Store, Time, context, end, end_badly, key, make, run, statuses, when_sending
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.cdf import auth, clock, submitting
from airflow_provider_cdf.cdf.errors import (
    CdfApiError,
    CdfError,
    CdfRefusedError,
    CdfSilenceError,
    CdfTimeoutError,
)
from airflow_provider_cdf.emulator import CdfEmulator, ManualClock, Pace
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.operators.cancelling import ANOTHER_WAS_KEPT, Cancellation
from airflow_provider_cdf.operators.identity import Try
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator, cancel_orphan

pytestmark = pytest.mark.usefixtures("cdf_default", "time")


@pytest.fixture(scope="module")
def cdf() -> Iterator[CdfEmulator]:
    """An emulator whose clock stands still."""
    today = ManualClock(round(real_time.time() * 1000))
    pace = Pace(pickup=0, function=0)
    month = 30 * 24 * 3600
    with CdfEmulator(
        clock=today, pace=pace, token_lifetime=month, max_concurrent_executions=10_000
    ) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def project(cdf: CdfEmulator) -> Project:
    return Project(cdf)


@pytest.fixture
def impatient() -> None:
    """Nothing is cut short here: time costs nothing."""


@pytest.fixture
def time(cdf: CdfEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    stopped = Time(cdf)
    for name in ("now", "sleep", "asleep"):
        monkeypatch.setattr(clock, name, getattr(stopped, name))
    monkeypatch.setattr(auth, "_shared", {})
    yield stopped
    assert cdf.faults.waiting() == []


@pytest.fixture
def operator_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> pytest.LogCaptureFixture:
    """What operators log, from INFO on. Airflow's own loggers do not lead to pytest."""
    logger = logging.getLogger("operator under test")
    monkeypatch.setattr(CdfWorkflowRunOperator, "log", logger)
    caplog.set_level(logging.INFO, logger.name)
    return caplog


@pytest.fixture
def workflow(project: Project) -> str:
    """A workflow whose only task waits for a report."""
    return project.define(function_task("approve", waits=True))


class Killed(BaseException):
    """Stands for SIGKILL."""


def die(operator: CdfWorkflowRunOperator) -> Callable[[], None]:
    """Let the process of an operator be killed: no code of it runs after that."""

    def sigkill() -> None:
        operator._to_the_last = lambda work: work()  # type: ignore[method-assign]
        raise Killed

    # What handles the failure is on the stack already.
    operator._cancel_what_may_appear = lambda *_: None  # type: ignore[method-assign]
    return sigkill


def raising(error: BaseException | type[BaseException]) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


def accepted_late(
    time: Time,
    project: Project,
    operator: CdfWorkflowRunOperator,
    seconds: float,
    meanwhile: Callable[[], Any],
) -> None:
    """
    Let CDF accept an operator's run some seconds after it was sent.

    :param meanwhile: what becomes of the sender at once.
    """
    client = operator.hook.client
    send = client.send
    has_sent: list[str] = []

    def sending(call: Any, **options: Any) -> Any:
        if not call.path.endswith("/run") or has_sent:
            return send(call, **options)
        has_sent.append(call.path)
        metadata = json.loads(call.content)["metadata"]
        time.after(seconds, lambda: project.run(operator.workflow_external_id, metadata=metadata))
        meanwhile()
        raise AssertionError("The sender is gone")

    client.send = sending  # type: ignore[method-assign]


def overloaded() -> None:
    raise CdfApiError("Overloaded.", code=503, retry_after=600)


class TestTheLastTry:
    """Nothing of Airflow comes after it, so it looks for what CDF may still accept, to cancel it."""

    @pytest.mark.parametrize("accepted_after", [2, 9, 55])
    @pytest.mark.parametrize("has_store", [True, False], ids=["with a store", "without"])
    def test_that_runs_into_execution_timeout_leaves_nothing(
        self,
        time: Time,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        accepted_after: float,
        has_store: bool,
    ) -> None:
        operator = make(workflow, ti)
        accepted_late(time, project, operator, accepted_after, raising(AirflowTaskTimeout))
        with pytest.raises(AirflowTaskTimeout):
            operator.execute(context(ti, operator, store=Store() if has_store else None))
        assert statuses(project, workflow) == ["TERMINATED"]
        assert operator.is_settled

    def test_is_told_when_nothing_can_appear_any_more(
        self, time: Time, cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance, operator_log: Any
    ) -> None:
        operator = make(workflow, ti)
        when_sending(operator, "/run", raising(AirflowTaskTimeout))
        with pytest.raises(AirflowTaskTimeout):
            operator.execute(context(ti, operator, store=Store()))
        assert submitting.NONCE_DEAD_AFTER <= time.passed < submitting.NONCE_DEAD_AFTER + 10
        assert "No execution has appeared, and none can any more." in operator_log.text
        before = cdf.journal.count("POST", "*/list")
        cancel_orphan(context(ti, operator))
        assert cdf.journal.count("POST", "*/list") == before

    def test_looks_for_nothing_where_cancelling_is_not_wanted(
        self, time: Time, workflow: str, ti: FakeTaskInstance
    ) -> None:
        operator = make(workflow, ti, cancel_on_kill=False)
        when_sending(operator, "/run", raising(AirflowTaskTimeout))
        with pytest.raises(AirflowTaskTimeout):
            operator.execute(context(ti, operator, store=Store()))
        assert time.passed < 1

    def test_is_not_one_that_airflow_follows_with_another(
        self, time: Time, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        ti.max_tries, store = 1, Store()
        operator = make(workflow, ti)
        accepted_late(time, project, operator, 9, raising(AirflowTaskTimeout))
        with pytest.raises(AirflowTaskTimeout):
            operator.execute(context(ti, operator, store=store))
        assert time.passed < 1
        ti.try_number = 2
        again = run(workflow, ti, store=store)
        assert [one["id"] for one in project.executions(workflow)] == [again]

    @pytest.mark.parametrize("retries", [0, 1])
    @pytest.mark.parametrize("has_store", [True, False], ids=["with a store", "without"])
    def test_does_not_believe_a_refusal_while_the_first_copy_is_under_way(
        self,
        time: Time,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        has_store: bool,
        retries: int,
    ) -> None:
        # The session is READY, because CDF has not come to the first copy yet.
        ti.max_tries, store = retries, Store() if has_store else None
        operator = make(workflow, ti)
        accepted_late(time, project, operator, 8, raising(CdfApiError("Conflict.", code=409)))
        with pytest.raises(CdfApiError, match="Conflict"):
            operator.execute(context(ti, operator, store=store))
        # The last try waits for the first copy, to cancel what it starts.
        assert (time.passed < 5) is bool(retries)
        if not retries:
            assert statuses(project, workflow) == ["TERMINATED"]
            return
        ti.try_number = 2
        again = run(workflow, ti, store=store)
        assert [one["id"] for one in project.executions(workflow)] == [again]
        assert statuses(project, workflow) == ["RUNNING"]

    def test_goes_on_with_what_an_overloaded_cdf_accepts_after_all(
        self, time: Time, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        # A Retry-After of ten minutes does not keep from looking.
        operator = make(workflow, ti)
        accepted_late(time, project, operator, 40, overloaded)
        execution_id = operator.execute(context(ti, operator, store=Store()))
        assert [one["id"] for one in project.executions(workflow)] == [execution_id]
        assert statuses(project, workflow) == ["RUNNING"]

    @pytest.mark.parametrize("has_store", [True, False], ids=["with a store", "without"])
    @pytest.mark.parametrize("accepted_after", [9, 35])
    def test_whose_process_is_killed_leaves_nothing_to_the_failure_callback(
        self,
        time: Time,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        accepted_after: float,
        has_store: bool,
    ) -> None:
        operator = make(workflow, ti)

        def sigterm_and_sigkill() -> None:
            operator.on_kill()
            time.sleep(5)
            die(operator)()

        accepted_late(time, project, operator, accepted_after, sigterm_and_sigkill)
        with pytest.raises(Killed):
            operator.execute(context(ti, operator, store=Store() if has_store else None))
        assert project.executions(workflow) == []

        begun = time.passed
        cancel_orphan(context(ti, make(workflow, ti)))
        assert statuses(project, workflow) == ["TERMINATED"]
        assert time.passed - begun <= 40

    def test_whose_process_is_killed_names_what_may_appear_after_the_callback(
        self, time: Time, project: Project, workflow: str, ti: FakeTaskInstance, operator_log: Any
    ) -> None:
        operator = make(workflow, ti)
        accepted_late(time, project, operator, 100, die(operator))
        with pytest.raises(Killed):
            operator.execute(context(ti, operator, store=Store()))
        begun = time.passed
        cancel_orphan(context(ti, make(workflow, ti)))
        assert time.passed - begun <= 40  # Airflow's DAG processor kills its process after 50
        assert f"airflow_run_key = {key(ti)}" in operator_log.text
        time.sleep(100)
        assert statuses(project, workflow) == ["RUNNING"]  # where the promise ends

    def test_of_many_tasks_that_died_at_once_leaves_their_callbacks_40_seconds_together(
        self, time: Time, project: Project, workflow: str
    ) -> None:
        tis = [FakeTaskInstance() for _ in range(5)]
        for ti in tis:
            operator = make(workflow, ti)
            accepted_late(time, project, operator, 8, die(operator))
            with pytest.raises(Killed):
                operator.execute(context(ti, operator, store=Store()))
        begun = time.passed
        for ti in tis:
            cancel_orphan(context(ti, make(workflow, ti)))
        assert time.passed - begun <= 40
        assert statuses(project, workflow) == ["TERMINATED"] * 5

    def test_that_went_on_with_an_older_execution_leaves_it_to_a_callback_that_is_quick(
        self, time: Time, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        ti.max_tries, store = 1, Store()
        run(workflow, ti, store=store)
        ti.try_number = 2
        run(workflow, ti, store=store)  # and dies
        seen: list[list[str]] = []
        time.after(6, lambda: seen.append(statuses(project, workflow)))
        cancel_orphan(context(ti, make(workflow, ti)))
        time.sleep(7)
        # More may appear, but what is there is not left to run for that.
        assert seen == [["TERMINATED"]]

    @pytest.mark.parametrize("error", [AirflowTaskTimeout, "killed"], ids=str)
    def test_that_ends_while_it_looks_for_others_leaves_nothing(
        self, time: Time, project: Project, workflow: str, ti: FakeTaskInstance, error: Any
    ) -> None:
        operator = make(workflow, ti)
        what = operator.on_kill if error == "killed" else raising(error)
        # Without a store it looks in CDF whether another process has started one, too.
        when_sending(operator, "/run", lambda: when_sending(operator, "/list", what), after=True)
        with pytest.raises(CdfError if error == "killed" else error) as caught:
            operator.execute(context(ti, operator))
        cancel_orphan({**context(ti, operator), "exception": caught.value})
        assert statuses(project, workflow) == ["TERMINATED"]

    def test_that_could_not_look_for_others_has_started_all_the_same(
        self, time: Time, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        operator = make(workflow, ti)
        when_sending(
            operator,
            "/run",
            lambda: cdf.faults.add("POST", "*/executions/list", status=403),
            after=True,
        )
        assert operator.execute(context(ti, operator))
        assert statuses(project, workflow) == ["RUNNING"]


class TestAKillWhileCdfStarts:
    """The signal handler has three seconds to find what was started."""

    def kill(self, ti: FakeTaskInstance, submit_id: str) -> str:
        hook = CdfHook()
        assert hook.client
        since = Try.of(context(ti), None).since
        cancellation = Cancellation(hook, execution_id=None, submit_id=submit_id, since=since)
        return cancellation.outcome(timeout=20)

    def test_finds_and_cancels_it(
        self, time: Time, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        others = project.run(workflow, metadata={"airflow_submit_id": "another"})
        metadata = {"airflow_run_key": key(ti), "airflow_submit_id": "wanted"}
        time.after(2, lambda: project.run(workflow, metadata=metadata))
        assert "The execution was cancelled. [execution " in self.kill(ti, "wanted")
        assert statuses(project, workflow) == ["RUNNING", "TERMINATED"]
        assert project.execution(others)["status"] == "RUNNING"

    def test_gives_up_before_sigkill_and_names_what_may_appear(
        self, time: Time, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        project.run(workflow, metadata={"airflow_submit_id": "another"})
        assert "airflow_submit_id = wanted" in self.kill(ti, "wanted")
        assert 3 <= time.passed < 4
        assert statuses(project, workflow) == ["RUNNING"]


@pytest.mark.parametrize("poll_interval", [1, 10])
def test_an_execution_that_cdf_does_not_know_yet_where_it_is_read_is_waited_for(
    time: Time, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance, poll_interval: float
) -> None:
    with cdf.turn() as engine:
        engine.hide_new_executions(50, by_id_too=True)
    operator = make(workflow, ti, wait_for_completion=True, poll_interval=poll_interval)
    time.after(70, lambda: end(project, str(operator.execution_id)))
    assert operator.execute(context(ti, operator, store=Store())) == operator.execution_id
    assert time.passed >= 70


class TestAWaitThatIsGivenUp:
    """Nothing is known of the execution then, so it is left as it is, also by the failure callback."""

    def give_up(
        self, cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance, error: type[CdfError], **fault: Any
    ) -> CdfError:
        operator = make(workflow, ti, wait_for_completion=True, poll_interval=10)
        when_sending(
            operator, "/run", lambda: cdf.faults.add("GET", "*/executions/*", times=1000, **fault), after=True
        )
        try:
            with pytest.raises(
                CdfError, match=r"The execution was left as it is\. \[execution \S+"
            ) as caught:
                operator.execute(context(ti, operator, store=Store()))
        finally:
            cdf.faults.clear()
        assert type(caught.value) is error
        cancel_orphan({**context(ti, operator), "exception": caught.value})
        return caught.value

    def test_because_cdf_is_silent(
        self, time: Time, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        error = self.give_up(cdf, workflow, ti, CdfSilenceError, status=503)
        assert 900 <= time.passed < 1000
        assert statuses(project, workflow) == ["RUNNING"]
        assert not isinstance(error, AirflowFailException)

    def test_because_cdf_refuses_for_good(
        self, time: Time, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        error = self.give_up(cdf, workflow, ti, CdfRefusedError, status=403)
        assert 30 <= time.passed < 120
        assert statuses(project, workflow) == ["RUNNING"]
        assert isinstance(error, AirflowFailException)


class TestAFirstTryThatRunsTwice:
    """Airflow's scheduler may start a try in two processes, which share its id and its store."""

    @pytest.fixture(params=[True, False], ids=["with a store", "without"])
    def store(self, request: pytest.FixtureRequest) -> Store | None:
        return Store() if request.param else None

    def second(self, workflow: str, ti: FakeTaskInstance, store: Store | None) -> Callable[[], Any]:
        return lambda: run(workflow, replace(ti, xcoms={}), store=store)

    def test_one_after_the_other(
        self, project: Project, workflow: str, ti: FakeTaskInstance, store: Store | None
    ) -> None:
        assert run(workflow, ti, store=store) == self.second(workflow, ti, store)()
        assert statuses(project, workflow) == ["RUNNING"]

    @pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
    def test_the_second_after_the_end(
        self, project: Project, workflow: str, ti: FakeTaskInstance, store: Store | None, status: str
    ) -> None:
        first = run(workflow, ti, store=store)
        end(project, first, status)
        assert self.second(workflow, ti, store)() == first
        assert statuses(project, workflow) == [status]

    @pytest.mark.parametrize("ending", ["/sessions", "/run"])
    @pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
    def test_the_second_while_the_first_starts(
        self,
        time: Time,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        store: Store | None,
        ending: str,
        after: bool,
    ) -> None:
        operator = make(workflow, ti)
        results: list[str] = []
        when_sending(
            operator, ending, lambda: results.append(self.second(workflow, ti, store)()), after=after
        )
        results.append(operator.execute(context(ti, operator, store=store)))
        (running,) = [one["id"] for one in project.executions(workflow) if one["status"] == "RUNNING"]
        assert results[-1] == running

    @pytest.mark.parametrize("seconds", [0.3, 3.0])
    def test_the_second_between_a_look_at_the_note_and_a_note(
        self, time: Time, project: Project, workflow: str, ti: FakeTaskInstance, seconds: float
    ) -> None:
        store = Store()
        has_read: list[Any] = []
        operator = make(workflow, ti)

        class Stale(Store):
            """What the first process has read is old when it gets it."""

            def get(self, key: str, default: Any = None) -> Any:
                value = store.get(key, default)
                if not has_read:
                    has_read.append(value)
                    run(workflow, replace(ti, xcoms={}), store=store)
                    time.sleep(seconds)
                return value

            def set(self, key: str, value: Any) -> None:
                store.set(key, value)

        execution_id = operator.execute(context(ti, operator, store=Stale()))
        (running,) = [one["id"] for one in project.executions(workflow) if one["status"] == "RUNNING"]
        assert execution_id == running

    def test_the_one_that_is_cancelled_goes_on_with_the_other(
        self, time: Time, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        store = Store()
        first = run(workflow, ti, store=store)
        younger = project.run(
            workflow, metadata={"airflow_run_key": key(ti), "airflow_submit_id": f"{ti.id}.1.younger"}
        )
        project.cancel(younger, ANOTHER_WAS_KEPT)
        ti.states = {ti.task_id: {ti.task_id: "running"}}
        operator = make(workflow, ti, wait_for_completion=True)
        operator._begin(context(ti, operator, store=store))
        operator.execution_id = younger
        time.after(5, lambda: end(project, first))
        assert (
            operator.execute_complete(
                context(ti, operator, store=store), {"outcome": "impossible", "execution_id": younger}
            )
            == first
        )


class TestAGatewayThatSendsTwice:
    @pytest.mark.parametrize("lag", [0, 50])
    @pytest.mark.parametrize(
        ("code", "message"),
        [
            (400, "authentication.nonce: the nonce is unknown or was used before"),
            (400, "Token already used"),
            (401, "Unauthorized"),
            (403, "Forbidden"),
            (404, "Not found"),
            (409, "Conflict"),
            (422, "Unprocessable"),
        ],
    )
    @pytest.mark.parametrize("kind", ["twice", "lost"])
    def test_is_one_execution(
        self,
        cdf: CdfEmulator,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        code: int,
        message: str,
        lag: float,
        kind: str,
    ) -> None:
        with cdf.turn() as engine:
            engine.hide_new_executions(lag)
        if kind == "twice":
            cdf.faults.add("POST", "*/run", twice="second", status=code, message=message)
        else:
            cdf.faults.add("POST", "*/run", drop="after")
        if (kind == "lost" and lag) or code == 401:
            cdf.faults.add("POST", "*/run", status=code, message=message)
        if kind == "lost" and lag and code == 401:
            cdf.faults.add("POST", "*/run", status=code, message=message)
        try:
            execution_id = run(workflow, ti, store=Store())
        finally:
            cdf.faults.clear()
        assert [one["id"] for one in project.executions(workflow)] == [execution_id]
        assert statuses(project, workflow) == ["RUNNING"]

    def test_a_retry_in_cdf_too(
        self, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        ti.max_tries, store = 1, Store()
        first = run(workflow, ti, store=store)
        end_badly(project, first)
        cdf.faults.add("POST", "*/retry", twice="second", status=409, message="Conflict")
        ti.try_number = 2
        assert run(workflow, ti, store=store, retry_from_failure=True) == first
        assert statuses(project, workflow) == ["RUNNING"]


class TestATrueRefusal:
    """It is believed within seconds, and there is nothing to look for after it."""

    def refuse(
        self, time: Time, cdf: CdfEmulator, operator: CdfWorkflowRunOperator, ti: FakeTaskInstance
    ) -> CdfApiError:
        with pytest.raises(CdfApiError) as caught:
            operator.execute(context(ti, operator, store=Store()))
        assert time.passed < 5
        before = cdf.journal.count("*", "*/projects/*")
        cancel_orphan({**context(ti, operator), "exception": caught.value})
        assert cdf.journal.count("*", "*/projects/*") == before
        return caught.value

    @pytest.mark.parametrize("may_list_sessions", [True, False])
    def test_of_a_version_that_is_not_there(
        self, time: Time, cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance, may_list_sessions: bool
    ) -> None:
        if not may_list_sessions:
            cdf.faults.add("POST", "*/sessions/byids", status=403)
        error = self.refuse(time, cdf, make(workflow, ti, version="9"), ti)
        assert isinstance(error, AirflowFailException)
        cdf.faults.clear()

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            (400, "Sessions chaining depth limit exceeded"),
            (400, "input is no object"),
            (403, "Forbidden"),
            (409, "Conflict"),
            (422, "Unprocessable"),
        ],
    )
    def test_that_only_the_session_speaks_for_is_looked_into_where_no_other_try_follows(
        self, time: Time, cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance, code: int, message: str
    ) -> None:
        # READY it is also while a first copy of the request is under way.
        ti.max_tries, store = 1, Store()
        cdf.faults.add("POST", "*/run", status=code, message=message)
        with pytest.raises(CdfApiError) as caught:
            run(workflow, ti, store=store)
        assert (caught.value.code, caught.value.cdf_message) == (code, message)
        is_final = isinstance(caught.value, AirflowFailException)
        assert is_final is (code in (400, 403))
        assert (time.passed < 5) is not is_final
        assert time.passed < submitting.NONCE_DEAD_AFTER + 10
        assert len(store["cdf_submissions"]) == 1

    def test_takes_its_note_back(self, cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance) -> None:
        store = Store()
        with pytest.raises(CdfRefusedError):
            run(workflow, ti, store=store, version="9")
        assert store["cdf_submissions"] == []


class TestSessions:
    def test_a_full_project_is_no_reason_to_give_up(
        self, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        cdf.faults.add("POST", "*/sessions", status=400, message="There can be only 10000 sessions")
        with pytest.raises(CdfApiError, match="no room for another session") as caught:
            run(workflow, ti, store=Store())
        assert not isinstance(caught.value, AirflowFailException)
        assert project.executions(workflow) == []

    def test_an_unused_one_is_given_back_when_its_nonce_is_dead(
        self, cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance
    ) -> None:
        before = cdf.journal.count("POST", "*/sessions")
        cdf.faults.add("POST", "*/run", status=409)
        cdf.faults.add("POST", "*/sessions/byids", status=403)
        with pytest.raises(CdfApiError):
            run(workflow, ti, store=Store())
        opened = cdf.journal.requests("POST", "*/sessions")[before:]
        revoked = cdf.journal.requests("POST", "*/sessions/revoke")[-1]
        assert revoked.time - opened[0].time >= submitting.NONCE_DEAD_AFTER * 1000


class TestCancelling:
    """CDF may agree to cancel an execution before it has ended it."""

    def timed_out(self, workflow: str, ti: FakeTaskInstance) -> Any:
        return run(workflow, ti, store=Store(), wait_for_completion=True, timeout=0.01)

    def test_one_that_ends_a_little_later_was_cancelled(
        self, cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance
    ) -> None:
        with cdf.turn() as engine:
            engine.delay_cancels(5)
        with pytest.raises(CdfTimeoutError, match="was cancelled"):
            self.timed_out(workflow, ti)

    def test_one_that_does_not_end_is_not_said_to_have_ended(
        self, cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance
    ) -> None:
        with cdf.turn() as engine:
            engine.delay_cancels(600)
        with pytest.raises(
            CdfTimeoutError, match=r"CDF has agreed to cancel the execution, which is still RUNNING"
        ) as caught:
            self.timed_out(workflow, ti)
        assert "ended RUNNING" not in str(caught.value)

    def test_one_that_completes_meanwhile_is_a_success(
        self, time: Time, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        with cdf.turn() as engine:
            engine.delay_cancels(8)
        operator = make(workflow, ti, wait_for_completion=True, timeout=0.01)
        is_over = operator._time_is_over

        def over(*arguments: Any) -> str:
            time.after(3, lambda: end(project, str(operator.execution_id)))
            return is_over(*arguments)

        operator._time_is_over = over  # type: ignore[method-assign]
        assert operator.execute(context(ti, operator, store=Store())) == operator.execution_id
        assert statuses(project, workflow) == ["COMPLETED"]


def test_metadata_of_another_execution_does_not_find_that_one(
    cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    old = CdfHook().get_execution(run(workflow, ti))
    cdf.faults.add("POST", "*/run", drop="after")
    new = CdfHook().run_workflow(workflow, "1", metadata=old.metadata)
    assert new.id != old.id
    assert "airflow_run_key" not in new.metadata
    # So the task does not take it for its own either.
    ti.try_number = 2
    assert run(workflow, ti) == old.id
    assert statuses(project, workflow) == ["RUNNING", "RUNNING"]
