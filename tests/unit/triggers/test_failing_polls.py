"""What becomes of a deferred wait whose polls fail: over HTTP, in a time that passes at once."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support import Project, first_event, function_task

from airflow_provider_cdf.cdf import auth, clock
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks import lookup
from airflow_provider_cdf.triggers import polling, streams, waits
from airflow_provider_cdf.triggers.task import CdfTaskTrigger
from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger

pytestmark = pytest.mark.usefixtures("cdf_default")


class Time:
    """
    Stands still but for the pauses between polls, which are over at once.

    In each pause one thing happens, in the order in which a test has listed them in :attr:`meanwhile`.
    """

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.pauses: list[float] = []
        self.meanwhile: list[Callable[[], object]] = []
        self._ends = math.inf

    def time(self) -> float:
        return self.now

    monotonic = time

    async def sleep(self, seconds: float) -> None:
        pause = min(seconds, self._ends - self.now)
        self.pauses.append(pause)
        self.now += pause
        if pause < seconds:
            raise asyncio.CancelledError
        assert self.meanwhile, f"The wait goes on, with these pauses so far: {self.pauses}"
        await asyncio.to_thread(self.meanwhile.pop(0))

    @contextlib.asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[Time]:
        """Stand in for ``asyncio.timeout``."""
        self._ends = math.inf if seconds is None else self.now + seconds
        try:
            yield self
        except asyncio.CancelledError:
            raise TimeoutError from None
        finally:
            self._ends = math.inf

    def when(self) -> float | None:
        return None if self._ends == math.inf else self._ends

    def reschedule(self, when: float | None) -> None:
        self._ends = math.inf if when is None else when


def nothing() -> None:
    """Let a pause pass."""


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """The time of the trigger and of its login, without jitter."""
    time = Time()
    monkeypatch.setattr(waits, "time", time)
    monkeypatch.setattr(
        waits, "asyncio", SimpleNamespace(timeout=time.timeout, get_running_loop=lambda: time)
    )
    monkeypatch.setattr(streams, "asyncio", SimpleNamespace(sleep=time.sleep))
    monkeypatch.setattr(streams, "random", SimpleNamespace(uniform=lambda low, high: (low + high) / 2))
    monkeypatch.setattr(clock, "now", time.monotonic)
    # Not the tokens that other tests have fetched, in another time.
    monkeypatch.setattr(auth, "_shared", {})
    return time


class Approval:
    """
    An execution whose one task, ``approve``, waits for its approval.

    :param cdf: where it runs.
    """

    def __init__(self, cdf: CdfEmulator, project: Project) -> None:
        self.cdf = cdf
        self.execution_id = project.run(project.define(function_task("approve", waits=True)))
        self._task_id = project.task(self.execution_id, "approve")["id"]
        self._path = f"*/executions/{self.execution_id}"
        self._looks_before = cdf.journal.count("GET", self._path)
        self._logins_before = cdf.journal.count("POST", "/oauth2/token")

    def approve(self) -> None:
        with self.cdf.turn() as engine:
            engine.update_task(self._task_id, "COMPLETED")

    def fail_next(self, times: int = 1, **what: Any) -> Callable[[], None]:
        """Return what lets the next polls fail."""
        return lambda: self.cdf.faults.add("GET", self._path, times=times, **what)

    @property
    def answers(self) -> list[int | None]:
        """The HTTP statuses that the polls were answered with."""
        return [one.status for one in self.cdf.journal.requests("GET", self._path)][self._looks_before :]

    @property
    def logins(self) -> int:
        return self.cdf.journal.count("POST", "/oauth2/token") - self._logins_before


@pytest.fixture
def approval(cdf: CdfEmulator, project: Project) -> Iterator[Approval]:
    yield Approval(cdf, project)
    cdf.faults.clear()


@pytest.fixture(params=["task", "workflow"])
def wait(request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """Wait for an approval with either trigger, and return the payload of its event."""

    def wait(approval: Approval, **arguments: Any) -> dict[str, Any]:
        arguments = {"execution_id": approval.execution_id, "poll_interval": 10.0, **arguments}
        if request.param == "workflow":
            trigger: polling.ExecutionTrigger = CdfWorkflowTrigger(**arguments)
        else:
            trigger = CdfTaskTrigger(task_external_id="approve", target_statuses=["COMPLETED"], **arguments)
        event = asyncio.run(first_event(trigger))
        assert isinstance(event, dict)
        return event

    return wait


class TestRefusals:
    @pytest.mark.parametrize("status", [400, 403, 404])
    def test_a_single_one_may_be_a_gateways_bad_moment(
        self, status: int, approval: Approval, time: Time, wait: Any
    ) -> None:
        time.meanwhile = [approval.fail_next(status=status), approval.approve]

        assert wait(approval)["outcome"] == "reached"

        assert approval.answers == [200, status, 200]

    def test_two_in_a_row_are_not_three_however_often(
        self, approval: Approval, time: Time, wait: Any
    ) -> None:
        two = approval.fail_next(2, status=404)
        time.meanwhile = [two, nothing, nothing, two, nothing, approval.approve]

        assert wait(approval)["outcome"] == "reached"

        assert approval.answers == [200, 404, 404, 200, 404, 404, 200]

    def test_of_what_was_started_a_moment_ago_are_counted_by_time_and_not_by_polls(
        self, approval: Approval, time: Time, wait: Any
    ) -> None:
        # With polls each second, three of them are over in no time.
        time.meanwhile = [approval.fail_next(5, status=404), *[nothing] * 5, approval.approve]

        assert wait(approval, poll_interval=1.0)["outcome"] == "reached"

        assert approval.answers == [200, *[404] * 5, 200, 200]
        assert sum(time.pauses) < 100

    @pytest.mark.parametrize("status", [400, 403, 404])
    def test_three_in_a_row_are_an_answer_that_a_retry_would_not_change(
        self, status: int, approval: Approval, time: Time, wait: Any
    ) -> None:
        time.meanwhile = [approval.fail_next(3, status=status), nothing, nothing]

        event = wait(approval)

        assert approval.answers == [200, status, status, status]
        assert event["outcome"] == "error"
        assert event["is_permanent"] is True
        assert approval.execution_id in event["message"]
        assert str(status) in event["message"]


class TestIntervals:
    def test_grow_up_to_a_minute_while_polls_fail_and_are_their_own_again_after_that(
        self, approval: Approval, time: Time, wait: Any
    ) -> None:
        time.meanwhile = [approval.fail_next(5, status=503), *[nothing] * 5, approval.approve]

        assert wait(approval)["outcome"] == "reached"

        assert time.pauses == [10, 20, 40, 60, 60, 60, 10]

    def test_are_stretched_by_what_cdf_asks_for(self, approval: Approval, time: Time, wait: Any) -> None:
        busy = approval.fail_next(status=429, retry_after=45)
        time.meanwhile = [busy, nothing, approval.approve]

        assert wait(approval)["outcome"] == "reached"

        assert time.pauses == [10, 45, 10]

    def test_are_not_shortened_by_what_cdf_asks_for(self, approval: Approval, time: Time, wait: Any) -> None:
        time.meanwhile = [approval.fail_next(status=503, retry_after=1), approval.approve]

        assert wait(approval)["outcome"] == "reached"

        assert time.pauses == [10, 20]

    def test_are_stretched_by_what_the_identity_provider_asks_for(
        self, approval: Approval, time: Time, wait: Any
    ) -> None:
        approval.cdf.faults.add("POST", "/oauth2/token", status=429, retry_after=45)
        time.meanwhile = [approval.approve]

        assert wait(approval)["outcome"] == "reached"

        assert time.pauses == [45]

    def test_are_stretched_to_a_tenth_of_the_longest_silence_at_most(
        self, approval: Approval, time: Time, wait: Any
    ) -> None:
        time.meanwhile = [approval.fail_next(status=503, retry_after=86_400), approval.approve]

        assert wait(approval, max_poll_silence=300)["outcome"] == "reached"

        assert time.pauses == [10, 30]

    def test_are_not_stretched_beyond_the_end_of_the_wait(
        self, approval: Approval, time: Time, wait: Any
    ) -> None:
        time.meanwhile = [approval.fail_next(2, status=503, retry_after=86_400), nothing]

        event = wait(approval, end_time=time.now + 30)

        assert time.pauses == [10, 20]
        # By what was seen before CDF fell silent.
        assert event == {
            "outcome": "timeout",
            "execution_id": approval.execution_id,
            "end_time": time.now,
            "observed": event["observed"],
        }
        assert event["observed"] in {"IN_PROGRESS", "RUNNING"}

    def test_differ_a_little_so_that_triggers_do_not_stay_in_step(
        self, approval: Approval, time: Time, wait: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streams, "random", random)
        time.meanwhile = [*[nothing] * 5, approval.approve]

        assert wait(approval)["outcome"] == "reached"

        assert all(9 <= pause <= 11 for pause in time.pauses)
        assert len(set(time.pauses)) > 1


class TestOutages:
    def test_are_logged_once_when_they_begin_and_once_when_they_end(
        self, approval: Approval, time: Time, wait: Any, log: pytest.LogCaptureFixture
    ) -> None:
        def outage() -> None:
            approval.fail_next(status=503)()
            approval.fail_next(drop="before")()
            approval.fail_next(spoil="not-json")()

        time.meanwhile = [
            outage,
            nothing,
            nothing,
            nothing,
            outage,
            nothing,
            nothing,
            nothing,
            approval.approve,
        ]

        assert wait(approval)["outcome"] == "reached"

        state, *outages = log.messages
        assert approval.execution_id in state
        assert len(outages) == 4
        for begin, end in (outages[:2], outages[2:]):
            assert "HTTP 503" in begin
            assert "Polling goes on, at growing intervals. [" in begin
            assert end == "CDF answers again, after 3 failed polls in 130 s."

    def test_that_last_too_long_end_the_wait_for_now_with_the_last_error(
        self, approval: Approval, time: Time, wait: Any
    ) -> None:
        def outage() -> None:
            approval.fail_next(3, status=503)()
            approval.fail_next(status=500)()

        time.meanwhile = [outage, nothing, nothing, nothing]

        event = wait(approval, max_poll_silence=100)

        assert approval.answers == [200, 503, 503, 503, 500]
        assert event["outcome"] == "error"
        assert event["is_permanent"] is False
        assert event["message"].startswith("No poll has succeeded for 130 s. The last one: ")
        assert "(HTTP 500)" in event["message"]
        # Not 503 alone: the ids in the message are random.
        assert "(HTTP 503)" not in event["message"]

    def test_of_airflow_are_outlived_too(
        self, approval: Approval, time: Time, wait: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = lookup.find

        async def too_early(*_: Any, **__: Any) -> Any:
            monkeypatch.setattr(lookup, "find", read)
            raise RuntimeError("The api-server is down")

        monkeypatch.setattr(lookup, "find", too_early)
        time.meanwhile = [nothing, approval.approve]

        assert wait(approval)["outcome"] == "reached"

        assert approval.answers == [200, 200]
        assert time.pauses == [20, 10]

    def test_of_a_secrets_backend_are_outlived_too(
        self, approval: Approval, time: Time, wait: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow says then that there is no such connection."""
        uri = approval.cdf.airflow_connection_uri()
        monkeypatch.delenv("AIRFLOW_CONN_CDF_DEFAULT")
        time.meanwhile = [lambda: monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", uri), approval.approve]

        assert wait(approval)["outcome"] == "reached"

        assert approval.answers == [200, 200]
        assert time.pauses == [20, 10]

    def test_of_a_connection_that_is_not_there_end_the_wait_after_its_silence(
        self, approval: Approval, time: Time, wait: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_CDF_DEFAULT")
        time.meanwhile = [nothing] * 2

        event = wait(approval, max_poll_silence=50)

        assert (event["outcome"], event["is_permanent"]) == ("error", False)
        assert "Airflow found no connection 'cdf_default'." in event["message"]


class TestContradiction:
    """An execution that is RUNNING and has an end time."""

    def test_is_told_once_and_waited_for_as_long_as_a_silence(
        self, approval: Approval, time: Time, wait: Any, log: pytest.LogCaptureFixture
    ) -> None:
        with approval.cdf.turn() as engine:
            engine.execution(approval.execution_id).end_time = 1_900_000_000_000
        time.meanwhile = [nothing, nothing]

        event = wait(approval, max_poll_silence=50)

        assert event["outcome"] == "error"
        assert event["is_permanent"] is False
        assert "CDF says that the workflow is RUNNING, and when it ended." in event["message"]
        (told,) = log.messages
        assert told.startswith("CDF says that the workflow is RUNNING, and when it ended.")
        assert time.pauses == [20, 40]

    def test_that_passes_is_none(self, approval: Approval, time: Time, wait: Any) -> None:
        def end(at: int | None) -> None:
            with approval.cdf.turn() as engine:
                engine.execution(approval.execution_id).end_time = at

        end(1_900_000_000_000)
        time.meanwhile = [lambda: end(None), approval.approve]

        assert wait(approval, max_poll_silence=50)["outcome"] == "reached"


class TestLogins:
    @pytest.fixture
    def approval(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Approval]:
        """One in a CDF of its own, whose tokens and secret a test may change."""
        with CdfEmulator(token_lifetime=3600) as cdf:
            monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection_uri())
            yield Approval(cdf, Project(cdf))

    def test_are_renewed_before_they_expire(self, approval: Approval, time: Time, wait: Any) -> None:
        time.meanwhile = [nothing, nothing, approval.approve]

        assert wait(approval, poll_interval=1500.0)["outcome"] == "reached"

        assert approval.logins == 2
        assert approval.answers == [200] * 4

    def test_that_have_expired_all_the_same_are_renewed_within_the_same_poll(
        self, approval: Approval, time: Time, wait: Any, log: pytest.LogCaptureFixture
    ) -> None:
        time.meanwhile = [approval.cdf.tokens.expire_all, approval.approve]

        assert wait(approval)["outcome"] == "reached"

        assert approval.logins == 2
        assert approval.answers == [200, 401, 200, 200]
        assert time.pauses == [10, 10]
        assert len(log.messages) == 1  # the state of the execution, and no outage

    def test_are_made_with_the_secret_that_the_connection_has_by_now(
        self, approval: Approval, time: Time, wait: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cdf = approval.cdf

        def renew_in_cdf() -> None:
            cdf.client_secret = cdf.tokens._secret = "r3newed"
            cdf.tokens.expire_all()

        def renew_in_airflow() -> None:
            monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection_uri())

        time.meanwhile = [renew_in_cdf, nothing, renew_in_airflow, approval.approve]

        assert wait(approval)["outcome"] == "reached"

        # A login that is refused costs CDF nothing.
        assert approval.answers == [200, 401, 200, 200]
        assert time.pauses == [10, 20, 40, 10]
