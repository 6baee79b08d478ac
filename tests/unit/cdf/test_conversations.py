"""What takes several calls: starting, retrying and reporting."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from cdf_support import EXECUTION, EXECUTION_ID, SECRET, SESSION, TASK, TASK_ID, Network, Sender, settings

from airflow_provider_cdf.cdf import conversations
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfError,
    CdfInputError,
    CdfLoginError,
    CdfNothingToReportToError,
    CdfUnreachableError,
)

PROJECT = "/api/v1/projects/my%20project"
NONCE = {"authentication": {"nonce": "the-nonce"}}


def refusal(code: int = 400) -> httpx.Response:
    message = f"Task with id {TASK_ID} is already in a terminal state"
    return httpx.Response(code, json={"error": {"code": code, "message": message}})


def done(body: Any, code: int = 200) -> httpx.Response:
    return httpx.Response(code, json=body)


def execution_with(*tasks: dict[str, Any], status: str = "RUNNING") -> httpx.Response:
    return done({**EXECUTION, "status": status, "executedTasks": [{**TASK, **task} for task in tasks]})


def run(**changes: Any) -> Any:
    return conversations.run_workflow(
        settings(), changes.pop("workflow_external_id", "pump"), changes.pop("version", "1"), **changes
    )


def update(status: str = "COMPLETED", execution_id: str | None = EXECUTION_ID, **more: Any) -> Any:
    return conversations.update_task(
        settings(), more.pop("task_id", TASK_ID), status, more.pop("output", None), execution_id=execution_id
    )


# -- run and retry ----------------------------------------------------------------------------------------


def test_a_run_is_a_session_and_then_a_run_with_its_nonce(sender: Sender) -> None:
    network = Network(done(SESSION), done(EXECUTION, 202))
    execution = sender.perform(network, run(input={"pump": "P-101"}, metadata={"a": "b"}))
    assert execution.id == EXECUTION_ID
    assert network.paths == [f"{PROJECT}/sessions", f"{PROJECT}/workflows/pump/versions/1/run"]
    assert network.bodies == [
        {"items": [{"clientId": "the-client", "clientSecret": SECRET}]},
        {**NONCE, "input": {"pump": "P-101"}, "metadata": {"a": "b"}},
    ]


def test_a_retry_is_a_session_and_then_a_retry_with_its_nonce(sender: Sender) -> None:
    network = Network(done(SESSION), done(EXECUTION))
    assert sender.perform(network, conversations.retry_execution(settings(), EXECUTION_ID)).id == EXECUTION_ID
    assert network.paths == [f"{PROJECT}/sessions", f"{PROJECT}/workflows/executions/{EXECUTION_ID}/retry"]
    assert network.bodies[1] == NONCE


def test_each_run_has_a_session_of_its_own(sender: Sender) -> None:
    network = Network(done(SESSION), done(EXECUTION), done(SESSION), done(EXECUTION))
    sender.perform(network, run())
    sender.perform(network, run())
    assert network.paths.count(f"{PROJECT}/sessions") == 2


@pytest.mark.parametrize(
    "conversation",
    [
        lambda: run(input={"a": "x" * 100_000}),
        lambda: run(input={"a": float("nan")}),
        lambda: run(input="text"),
        lambda: run(metadata={f"k{i}": "v" for i in range(11)}),
        lambda: run(metadata={"k" * 33: "v"}),
        lambda: run(metadata={"k": "v" * 256}),
        lambda: run(workflow_external_id=""),
        lambda: run(workflow_external_id=".."),
        lambda: run(version=None),
        lambda: conversations.retry_execution(settings(), "no-uuid"),
        lambda: update("RUNNING"),
        lambda: update(task_id="no-uuid"),
        lambda: update(execution_id="no-uuid"),
        lambda: update(execution_id=""),
        lambda: update(output={"a": "x" * 100_000}),
        lambda: update(output=["a"]),
    ],
)
def test_bad_input_sends_nothing_at_all(sender: Sender, conversation: Any) -> None:
    network = Network()
    with pytest.raises(CdfInputError, match="Nothing was sent"):
        sender.perform(network, conversation())
    assert network.requests == network.token_requests == []


def test_a_session_that_is_refused_starts_no_run(sender: Sender) -> None:
    network = Network(refusal(403))
    with pytest.raises(CdfApiError, match="sessionsAcl:CREATE"):
        sender.perform(network, run())
    assert len(network.requests) == 1


@pytest.mark.parametrize("error", [httpx.ReadTimeout(""), refusal(503), done({"id": 5}, 202)], ids=str)
def test_a_run_with_an_unclear_answer_is_not_sent_again(sender: Sender, error: Any) -> None:
    network = Network(done(SESSION), error)
    with pytest.raises(CdfError, match="run workflow 'pump' version '1'"):
        sender.perform(network, run())
    assert len(network.requests) == 2


# -- reporting a task's end -------------------------------------------------------------------------------


def test_an_update_that_cdf_accepts_is_one_call(sender: Sender) -> None:
    network = Network(done({**TASK, "status": "COMPLETED"}))
    task = sender.perform(network, update("completed", output={"risk": 1}))
    assert (task.id, task.status) == (TASK_ID, "COMPLETED")
    assert network.paths == [f"{PROJECT}/workflows/tasks/{TASK_ID}/update"]
    assert network.bodies == [{"status": "COMPLETED", "output": {"risk": 1}}]


UNCLEAR = {
    "400": refusal(400),
    "404": refusal(404),
    "409": refusal(409),
    "500": refusal(500),
    "503": refusal(503),
    "read timeout": httpx.ReadTimeout(""),
    "dropped": httpx.RemoteProtocolError("Server disconnected"),
    "unreadable": httpx.Response(200, content=b"{"),
}
unclear = pytest.mark.parametrize("answer", UNCLEAR.values(), ids=UNCLEAR.keys())


@unclear
@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR"])
def test_a_task_that_is_in_the_wanted_status_already_is_success(
    sender: Sender, answer: Any, status: str
) -> None:
    network = Network(answer, execution_with({"id": EXECUTION_ID}, {"status": status, "output": {"a": 1}}))
    task = sender.perform(network, update(status.lower()))
    assert (task.id, task.status, task.output) == (TASK_ID, status, {"a": 1})
    assert network.paths[1] == f"{PROJECT}/workflows/executions/{EXECUTION_ID}"
    assert len(network.requests) == 2


def test_the_task_is_found_however_its_id_is_written(sender: Sender) -> None:
    network = Network(refusal(), execution_with({"status": "COMPLETED"}))
    assert sender.perform(network, update(task_id=TASK_ID.upper())).id == TASK_ID


@unclear
@pytest.mark.parametrize("status", ["CANCELED", "TIMED_OUT", "FAILED", "SKIPPED"])
def test_a_task_that_has_ended_otherwise_is_an_error_that_names_both_statuses(
    sender: Sender, answer: Any, status: str
) -> None:
    network = Network(answer, execution_with({"status": status}, status="TERMINATED"))
    with pytest.raises(CdfNothingToReportToError) as caught:
        sender.perform(network, update())
    message = str(caught.value)
    for words in ("'score'", TASK_ID, EXECUTION_ID, "COMPLETED", status, "TERMINATED"):
        assert words in message
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.__suppress_context__


@unclear
@pytest.mark.parametrize(
    "execution",
    [
        execution_with({"status": "IN_PROGRESS"}),
        execution_with({"status": "SCHEDULED"}),
        execution_with({"id": EXECUTION_ID, "status": "COMPLETED"}),
        execution_with(),
    ],
    ids=["in progress", "scheduled", "another task", "no task"],
)
def test_a_task_that_has_not_ended_raises_the_first_error(
    sender: Sender, answer: Any, execution: httpx.Response
) -> None:
    network = Network(answer, execution)
    with pytest.raises((CdfApiError, CdfAnswerError, CdfUnreachableError), match=f"set task {TASK_ID}"):
        sender.perform(network, update())


@unclear
def test_without_an_execution_nothing_is_read_back(sender: Sender, answer: Any) -> None:
    network = Network(answer)
    with pytest.raises((CdfApiError, CdfAnswerError, CdfUnreachableError), match=f"set task {TASK_ID}"):
        sender.perform(network, update(execution_id=None))
    assert len(network.requests) == 1


def test_a_refused_connection_is_raised_as_it_is(sender: Sender) -> None:
    network = Network(httpx.ConnectError("[Errno 111] Connection refused"))
    with pytest.raises(CdfUnreachableError, match="Nothing was sent") as caught:
        sender.perform(network, update())
    assert not caught.value.sent
    assert len(network.requests) == 1


def test_a_failed_login_is_raised_as_it_is(sender: Sender) -> None:
    network = Network(login=httpx.Response(401, json={"error": "invalid_client"}))
    with pytest.raises(CdfLoginError):
        sender.perform(network, update())
    assert len(network.token_requests) == 1


@pytest.mark.parametrize(
    "answer", [httpx.ReadTimeout(""), refusal(400), httpx.Response(200)], ids=["timeout", "400", "unreadable"]
)
@pytest.mark.parametrize(
    "read_back",
    [httpx.ConnectError("refused"), httpx.ReadTimeout(""), refusal(503), done({})],
    ids=["refused", "timeout", "503", "unreadable"],
)
def test_an_unclear_update_that_cannot_be_read_back_stays_unclear(
    sender: Sender, answer: Any, read_back: Any
) -> None:
    network = Network(answer, read_back)
    with pytest.raises(
        (CdfApiError, CdfAnswerError, CdfUnreachableError), match=f"set task {TASK_ID}"
    ) as caught:
        sender.perform(network, update())
    # "Nothing was sent" would be true of the read only.
    assert getattr(caught.value, "sent", True)
    assert "Nothing was" not in str(caught.value)
