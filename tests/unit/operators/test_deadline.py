"""The time that callbacks have: 40 s for all of a process, whatever CDF does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import DAG
from operator_support import context
from support import FakeTaskInstance, call

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.connections import request_ends
from airflow_provider_cdf.cdf.errors import CdfError
from airflow_provider_cdf.cdf.network import Network
from airflow_provider_cdf.notifications.task import CdfTaskNotifier
from airflow_provider_cdf.operators import deadline
from airflow_provider_cdf.operators.callbacks import cancel_orphan, report_failure
from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator

pytestmark = pytest.mark.usefixtures("cdf_default")

UNKNOWN = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def impatient() -> None:
    """Nothing is cut short here: time costs nothing."""


class Clock:
    """
    A clock that only pauses move, and requests that come to nothing.

    :param answered_after: seconds after which each is answered 503.
    """

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.requests = 0
        self.answered_after = 1e6

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def hang(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        ends = request_ends.get()
        assert ends is not None
        if self.seconds + self.answered_after < ends:
            self.seconds += self.answered_after
            return httpx.Response(503, content=b"")
        self.seconds = max(self.seconds, ends)
        raise httpx.ReadTimeout("No answer.", request=request)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr(clock, "now", stopped.now)
    monkeypatch.setattr(clock, "sleep", stopped.sleep)
    return stopped


@pytest.fixture(params=[1e6, 6.0, 0.1], ids=["silent", "slow", "down"])
def silent(
    time: Clock,
    monkeypatch: pytest.MonkeyPatch,
    connect: Callable[..., None],
    request: pytest.FixtureRequest,
) -> Clock:
    """A CDF that takes connections and does not answer, or takes its time to say that it is down."""
    time.answered_after = request.param
    connect({"token": "a-token-of-its-own", "token_url": None}, login=None, password=None)
    monkeypatch.setattr(Network, "handle_request", lambda _, request: time.hang(request))
    return time


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What operators log. Airflow's own loggers do not lead to pytest."""
    logger = logging.getLogger("operator under test")
    for kind in (CdfWorkflowRunOperator, CdfTaskUpdateOperator):
        monkeypatch.setattr(kind, "log", logger)
    return caplog


def report(number: int, **more: Any) -> None:
    with DAG("plant"):
        operator = CdfTaskUpdateOperator(
            task_id="report", execution_id=UNKNOWN, task_external_id=f"score_{number}"
        )
    report_failure(context(FakeTaskInstance(task_id="report"), operator, **more))


def orphan(number: int, **more: Any) -> None:
    with DAG("plant"):
        operator = CdfWorkflowRunOperator(task_id="run", workflow_external_id=f"w_{number}", version="1")
    cancel_orphan(context(FakeTaskInstance(task_id="run"), operator, **more))


def notify(number: int, **more: Any) -> None:
    one = CdfTaskNotifier(
        status="FAILED", execution_id=UNKNOWN, task_external_id=f"score_{number}", output={}
    )
    with pytest.raises(CdfError, match="may still wait") as error:
        call(one, context(FakeTaskInstance(task_id="judge"), **more))
    logging.getLogger("operator under test").warning("%s", error.value)


@pytest.mark.parametrize("kind", [report, orphan, notify])
def test_all_of_a_process_take_40_s_and_name_what_is_left(
    kind: Callable[[int], None], silent: Clock, said: pytest.LogCaptureFixture
) -> None:
    began = silent.now()
    for number in range(40):
        kind(number)
        if silent.now() - began >= deadline.ALL_CALLBACKS_WITHIN:
            break
    assert silent.now() - began <= deadline.ALL_CALLBACKS_WITHIN + 1
    requests = silent.requests
    said.clear()
    kind(8)
    assert silent.requests == requests
    assert "There is no time left" in said.text
    assert "task 'score_8'" in said.text or "workflow 'w_8'" in said.text


def test_one_that_is_not_answered_leaves_time_for_others(silent: Clock) -> None:
    began = silent.now()
    report(1)
    assert silent.now() - began <= deadline.CALLBACK_PATIENCE + 1


def test_in_the_process_of_a_task_one_has_its_own_time(silent: Clock) -> None:
    for number in range(8):
        before, requests = silent.now(), silent.requests
        report(number, exception=RuntimeError("down"))
        assert silent.requests > requests
        assert silent.now() - before <= deadline.CALLBACK_PATIENCE + 1


def test_in_a_process_that_lives_on_they_have_time_again(silent: Clock) -> None:
    report(1)
    silent.sleep(deadline.ALL_CALLBACKS_WITHIN)
    report(2)
    silent.sleep(deadline.KILLED_WITHIN - deadline.ALL_CALLBACKS_WITHIN)
    requests = silent.requests
    report(3)
    assert silent.requests > requests
