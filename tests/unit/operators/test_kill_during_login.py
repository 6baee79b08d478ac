"""A signal that comes while the task fetches a token: what it interrupts does not go on before it is done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.cdf import auth, calls
from airflow_provider_cdf.cdf.auth import Login
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.operators import cancelling, marks
from airflow_provider_cdf.operators.cancelling import Cancellation
from airflow_provider_cdf.operators.reporting import Target
from airflow_provider_cdf.operators.task_kill import LastReport


def fetches_a_token(login: Login, stack: ExitStack) -> None:
    login._token, login._fetching = None, Future()


def holds_the_lock_of_the_login(login: Login, stack: ExitStack) -> None:
    stack.enter_context(login._lock)


interrupted = pytest.mark.parametrize("interrupted", [fetches_a_token, holds_the_lock_of_the_login])


@pytest.fixture
def hook(cdf_default: CdfEmulator, monkeypatch: pytest.MonkeyPatch) -> CdfHook:
    monkeypatch.setattr(auth, "_shared", {})
    for module in (cancelling, marks):
        monkeypatch.setattr(module, "KILL_PATIENCE", 60.0)  # however busy this machine is
    hook = CdfHook()
    hook.client.send(calls.inspect_token())
    return hook


@pytest.fixture
def execution_id(project: Project) -> str:
    return project.run(project.define(function_task("score", waits=True)))


@interrupted
def test_the_execution_is_cancelled(
    hook: CdfHook,
    project: Project,
    execution_id: str,
    interrupted: Callable[[Login, ExitStack], None],
) -> None:
    since = datetime.now(UTC) - timedelta(days=1)
    with ExitStack() as stack:
        interrupted(auth.shared_login(hook.client.settings), stack)
        cancellation = Cancellation(hook, execution_id=execution_id, submit_id=None, since=since)
        outcome = cancellation.outcome(timeout=20)
    assert outcome == f"The execution was cancelled. [execution {execution_id}]"
    assert project.execution(execution_id)["status"] == "TERMINATED"


@interrupted
def test_the_last_report_is_made(
    hook: CdfHook,
    project: Project,
    execution_id: str,
    interrupted: Callable[[Login, ExitStack], None],
) -> None:
    project.task(execution_id, "score")
    ti = FakeTaskInstance(task_id="judge", states={"judge": {"judge": "failed"}})
    target = Target(execution_id=execution_id, task_external_id="score")
    with ExitStack() as stack:
        interrupted(auth.shared_login(hook.client.settings), stack)
        LastReport(hook, ti, target, "FAILED_WITH_TERMINAL_ERROR").wait(20)
    project.task(execution_id, "score", "FAILED_WITH_TERMINAL_ERROR")


def test_a_token_that_is_there_is_used(hook: CdfHook, cdf: CdfEmulator) -> None:
    before = len(cdf.journal.requests("POST", "/oauth2/token"))
    sibling = hook.sibling(retry_for=0, in_signal_handler=True)
    sibling.client.send(calls.inspect_token())
    assert len(cdf.journal.requests("POST", "/oauth2/token")) == before
