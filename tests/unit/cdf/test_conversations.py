"""
What takes several calls: starting, retrying and reporting.

Conversations are generators that know nothing of who performs them, so one of the two clients is enough here.
"""

from __future__ import annotations

import itertools
import json
import logging
import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import httpx
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from cdf_support import (
    EXECUTION,
    EXECUTION_ID,
    SECRET,
    SESSION,
    TASK,
    TASK_ID,
    FakeTime,
    Network,
    Sender,
    settings,
    started,
)

from airflow_provider_cdf.cdf import conversations, reports, submitting
from airflow_provider_cdf.cdf.auth import shared_login
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfError,
    CdfInputError,
    CdfLoginError,
    CdfNothingToReportToError,
    CdfRefusedError,
    CdfReportRefusedError,
    CdfSessionError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.retry import is_ambiguous, is_transient, was_not_executed

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
    return reports.update_task(
        settings(), more.pop("task_id", TASK_ID), status, more.pop("output", None), execution_id=execution_id
    )


@pytest.fixture
def sender() -> Sender:
    return Sender(is_async=False)


def test_a_list_that_leads_back_to_where_it_was_is_not_followed(sender: Sender) -> None:
    pages = [done({"items": [EXECUTION], "nextCursor": cursor}) for cursor in ("a", "b", "a")]
    network = Network(*pages)
    with pytest.raises(CdfAnswerError, match="CDF's list has no end"):
        sender.perform(network, conversations.list_executions(settings(), lambda execution: True))
    assert len(network.requests) == 3


def test_a_list_is_read_for_a_minute_at_most_unless_it_ends_then(sender: Sender, time: FakeTime) -> None:
    def slow(cursor: str | None) -> Any:
        def answer(_: httpx.Request) -> httpx.Response:
            time.seconds += 25
            return done({"items": [EXECUTION], **({"nextCursor": cursor} if cursor else {})})

        return answer

    listing = conversations.list_executions
    assert len(sender.perform(Network(slow("a"), slow("b"), slow(None)), listing(settings()))) == 3
    network = Network(*(slow(cursor) for cursor in "abcdef"))
    with pytest.raises(CdfAnswerError, match="CDF's list has no end: after 60 s and 3 pages"):
        sender.perform(network, listing(settings()))


def test_a_look_up_in_a_list_without_end_is_given_up(sender: Sender, cdf: Cdf) -> None:
    cursors = itertools.count()
    cdf.plan = {
        "run": [cdf.lost_after],
        "list": [lambda _: done({"items": [], "nextCursor": f"c{next(cursors)}"})] * 10_000,
    }
    with pytest.raises(CdfUnreachableError, match=r"It could not be looked up. CDF's list has no end"):
        start(sender, cdf)
    assert len(cdf.executions) == 1


# -- run and retry ----------------------------------------------------------------------------------------


def test_a_run_is_a_session_and_then_a_run_with_its_nonce(sender: Sender) -> None:
    network = Network(done(SESSION), started)
    execution = sender.perform(network, run(input={"pump": "P-101"}, metadata={"a": "b"}))
    assert execution.id == EXECUTION_ID
    assert network.paths == [f"{PROJECT}/sessions", f"{PROJECT}/workflows/pump/versions/1/run"]
    assert network.bodies == [
        {"items": [{"clientId": "the-client", "clientSecret": SECRET}]},
        {**NONCE, "input": {"pump": "P-101"}, "metadata": {"a": "b", "airflow_submit_id": ANY}},
    ]


def test_a_retry_is_a_session_and_then_a_retry_with_its_nonce(sender: Sender) -> None:
    network = Network(execution_with(status="FAILED"), done(SESSION), done(EXECUTION))
    assert sender.perform(network, conversations.retry_execution(settings(), EXECUTION_ID)).id == EXECUTION_ID
    read = f"{PROJECT}/workflows/executions/{EXECUTION_ID}"
    assert network.paths == [read, f"{PROJECT}/sessions", f"{read}/retry"]
    assert network.bodies[2] == NONCE


def test_each_run_has_a_session_of_its_own(sender: Sender) -> None:
    network = Network(done(SESSION), started, done(SESSION), started)
    sender.perform(network, run())
    sender.perform(network, run())
    assert network.paths.count(f"{PROJECT}/sessions") == 2


@pytest.mark.parametrize(
    "conversation",
    [
        lambda: run(input={"a": "x" * 100_000}),
        lambda: run(metadata={f"k{i}": "v" for i in range(11)}),
        lambda: run(workflow_external_id=""),
        lambda: run(version=None),
        lambda: conversations.retry_execution(settings(), "no-uuid"),
        lambda: conversations.cancel_execution(settings(), "no-uuid"),
        lambda: update("RUNNING"),
        lambda: update(task_id="no-uuid"),
        lambda: update(execution_id="no-uuid"),
        lambda: update(execution_id=""),
        lambda: update(output={"a": "x" * 100_000}),
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


class Cdf:
    """
    A CDF that answers by its state and by what is to go wrong, with nonces that live a minute.

    :param clock: its time; that of the clients.
    :param lag: seconds after which an execution is in the list.
    """

    def __init__(self, clock: FakeTime, lag: float = 0) -> None:
        self.clock = clock
        self.lag = lag
        #: What is left of each nonce's time, and whose session it is.
        self.nonces: dict[str, tuple[float, int]] = {}
        self.tokens = self.sessions = 0
        #: The statuses of sessions.
        self.states: dict[int, str] = {}
        #: What the token may do.
        self.granted = ["READ", "WRITE"]
        self.has_version = self.has_workflow = True
        self.executions: list[dict[str, Any]] = []
        #: What happens to the next requests of a kind: "session", "run", "list", "version" or "workflow"
        #: (GET), "byids" and "revoke" (of sessions), "inspect" (of the token); and "token", a login.
        self.plan: dict[str, list[Any]] = {}
        #: The kinds of requests that came, and when.
        self.journal: list[tuple[str, float]] = []
        #: Lost requests that arrive at some time: (when, request).
        self.late: list[tuple[float, httpx.Request]] = []

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.journal]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/token"):
            faults = self.plan.get("token")
            fault = faults.pop(0) if faults else None
            self.tokens += 1
            return fault(request) if fault else done({"access_token": f"t{self.tokens}", "expires_in": 3600})
        kind = self.kind_of(request)
        self.journal.append((kind, self.clock.now()))
        assert len(self.journal) < 1000, "it goes on for ever"
        arrived = [item for item in self.late if item[0] <= self.clock.now()]
        for item in arrived:
            self.late.remove(item)
            self.do("run", item[1], at=item[0])
        plan = self.plan.get(kind)
        fault = plan.pop(0) if plan else None
        return fault(request) if fault else self.do(kind, request)

    @staticmethod
    def kind_of(request: httpx.Request) -> str:
        if request.method == "GET":
            if request.url.path.endswith("/token/inspect"):
                return "inspect"
            return "version" if "/versions/" in request.url.path else "workflow"
        return request.url.path.rsplit("/", 1)[-1].replace("sessions", "session")

    def do(self, kind: str, request: httpx.Request, at: float | None = None) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        now = self.clock.now() if at is None else at
        if kind == "session":
            self.sessions += 1
            self.nonces[f"nonce-{self.sessions}"] = self.clock.now() + 60, self.sessions
            self.states[self.sessions] = "READY"
            return done({"items": [{"id": self.sessions, "nonce": f"nonce-{self.sessions}"}]})
        if kind in ("byids", "revoke"):
            session_id = body["items"][0]["id"]
            if kind == "revoke":
                self.states[session_id] = "REVOKED"
            return done({"items": [{"id": session_id, "status": self.states[session_id]}]})
        if kind == "inspect":
            capability = {
                "workflowOrchestrationAcl": {"actions": self.granted},
                "projectScope": {"allProjects": {}},
            }
            return done(
                {"subject": "x", "projects": [{"projectUrlName": "my project"}], "capabilities": [capability]}
            )
        if kind in ("version", "workflow"):
            return done({}) if getattr(self, f"has_{kind}") else refusal(404)
        if kind == "list":
            visible = [one for one in self.executions if one["visible"] <= self.clock.now()]
            return done({"items": visible})
        until, session_id = self.nonces.pop(body["authentication"]["nonce"], (0.0, 0))
        if until < now:
            return httpx.Response(400, json={"error": {"message": "The nonce is used or has expired."}})
        self.states[session_id] = "ACTIVE"
        execution = {
            **EXECUTION,
            "id": str(uuid.uuid4()),
            "metadata": body["metadata"],
            "visible": now + self.lag,
        }
        self.executions.append(execution)
        return done(execution, 202)

    # -- faults --

    def lost_before(self, _: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset")

    def lost_after_session(self, request: httpx.Request) -> httpx.Response:
        self.do("session", request)
        raise httpx.ReadTimeout("")

    def lost_after(self, request: httpx.Request) -> httpx.Response:
        self.do("run", request)
        raise httpx.ReadTimeout("")

    def late_by(self, seconds: float, waited: float = 0) -> Callable[[httpx.Request], httpx.Response]:
        def fault(request: httpx.Request) -> httpx.Response:
            self.late.append((self.clock.now() + seconds, request))
            self.clock.seconds += waited
            raise httpx.ReadTimeout("")

        return fault

    def slow(self, seconds: float) -> Callable[[httpx.Request], httpx.Response]:
        def fault(request: httpx.Request) -> httpx.Response:
            self.clock.seconds += seconds
            return self.do(self.kind_of(request), request)

        return fault

    @staticmethod
    def answers(code: int, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
        return lambda _: httpx.Response(code, json={"error": {"message": "No."}}, headers=headers)

    @staticmethod
    def refuses_connections(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")


@pytest.fixture
def cdf(time: FakeTime) -> Cdf:
    return Cdf(time)


def start(sender: Sender, cdf: Cdf, retry_for: float = 60, **more: Any) -> Any:
    config = settings(retry_for=retry_for)
    conversation = conversations.run_workflow(config, "pump", "1", metadata={"a": "b"} | more)
    return sender.perform(cdf, conversation, config)  # type: ignore[arg-type]


AMBIGUOUS: dict[str, Callable[[Cdf], Any]] = {
    "reset before the work": lambda cdf: cdf.lost_before,
    "reset after the work": lambda cdf: cdf.lost_after,
    "503 with Retry-After": lambda cdf: cdf.answers(503, **{"Retry-After": "20"}),
    "unreadable": lambda cdf: lambda _: httpx.Response(202, content=b"{"),
    "executed 1 s later": lambda cdf: cdf.late_by(1),
    "executed 40 s later": lambda cdf: cdf.late_by(40),
    "executed 59 s later": lambda cdf: cdf.late_by(59),
    "too late to be executed": lambda cdf: cdf.late_by(61),
}


# -- both clients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [True, False], ids=["found in the end", "never found"])
def test_both_clients_perform_the_same_conversation(time: FakeTime, found: bool) -> None:
    # Sessions, repetitions, pauses, errors that are thrown in, and a result or an error that comes out.
    performed = []
    for is_async in (False, True):
        time.seconds, time.pauses = 1000.0, []
        random.seed(4)
        cdf = Cdf(time, lag=30)
        cdf.plan = {
            "session": [cdf.lost_after_session],
            "run": [cdf.answers(429, **{"Retry-After": "3"}), cdf.lost_after],
            "list": [cdf.answers(503)] * (2 if found else 1000),
        }
        try:
            start(Sender(is_async), cdf)
        except CdfUnreachableError as error:
            outcome: Any = error.sent
        else:
            outcome = len(cdf.executions)
        performed.append((outcome, cdf.journal, time.pauses))
    assert performed[0] == performed[1]
    outcome, journal, pauses = performed[0]
    assert outcome == 1 if found else outcome is True
    assert [kind for kind, _ in journal][:5] == ["session", "session", "run", "run", "list"]
    assert 3 in pauses


# -- starting a run exactly once ---------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [0, 30, 55])
@pytest.mark.parametrize("fault", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_run_whose_answer_was_lost_is_one_execution(
    sender: Sender, cdf: Cdf, fault: Any, lag: float
) -> None:
    cdf.lag = lag
    cdf.plan["run"] = [fault(cdf)]
    execution = start(sender, cdf)
    cdf.clock.seconds += 300
    cdf(httpx.Request("POST", "https://x/list", json={}))  # what is on its way arrives
    (only,) = cdf.executions
    assert execution.id == only["id"]
    assert cdf.late == []


@pytest.mark.parametrize("seed", range(60))
def test_whatever_goes_wrong_in_whatever_order_it_is_one_execution_or_an_error_that_says_so(
    sender: Sender, time: FakeTime, seed: int
) -> None:
    dice = random.Random(seed)
    cdf = Cdf(time, lag=dice.choice([0, 0, 1, 20, 50]))
    harmless = [cdf.answers(429), cdf.refuses_connections, cdf.answers(429, **{"Retry-After": "30"})]
    run_faults = [
        cdf.lost_before,
        cdf.lost_after,
        cdf.answers(503),
        cdf.late_by(dice.uniform(0, 80), waited=30),
        cdf.late_by(dice.uniform(0, 80), waited=dice.uniform(0, 30)),
        cdf.slow(dice.uniform(0, 70)),
        *harmless,
    ]
    other = [cdf.answers(503), cdf.answers(500), cdf.lost_before, *harmless, None, None, None]
    cdf.plan = {
        "run": dice.choices([*run_faults, None], k=4),
        "list": dice.choices(other, k=6),
        "session": dice.choices(other, k=3),
    }
    try:
        execution = start(sender, cdf)
    except CdfError as error:
        outcome = error
    else:
        outcome = None
    time.seconds += 600
    cdf.plan.clear()
    cdf(httpx.Request("POST", "https://x/list", json={}))  # what is on its way arrives
    if outcome is None:
        assert [one["id"] for one in cdf.executions] == [execution.id]
    elif getattr(outcome, "sent", False):
        assert "airflow_submit_id = " in str(outcome)
        assert len(cdf.executions) <= 1
    else:
        assert cdf.executions == []


def test_a_first_try_costs_no_look_up(sender: Sender, cdf: Cdf) -> None:
    start(sender, cdf)
    assert cdf.kinds == ["session", "run"]


def test_an_execution_that_is_found_is_not_asked_for_again(sender: Sender, cdf: Cdf) -> None:
    cdf.plan["run"] = [cdf.lost_after]
    start(sender, cdf)
    assert cdf.kinds == ["session", "run", "list"]


def test_a_lost_request_is_looked_up_and_sent_again_with_the_same_nonce(sender: Sender, cdf: Cdf) -> None:
    cdf.plan["run"] = [cdf.lost_before]
    start(sender, cdf)
    assert cdf.kinds == ["session", "run", "list", "run"]
    assert cdf.sessions == 1


def test_a_refused_nonce_means_that_the_lost_request_has_used_it(sender: Sender, cdf: Cdf) -> None:
    cdf.lag = 30
    cdf.plan["run"] = [cdf.lost_after]
    start(sender, cdf)
    assert cdf.kinds[:4] == ["session", "run", "list", "run"]
    assert set(cdf.kinds[4:]) == {"list"}
    assert cdf.sessions == 1


def test_a_new_nonce_is_used_only_when_the_lost_request_can_no_longer_be_executed(
    sender: Sender, cdf: Cdf
) -> None:
    cdf.plan["run"] = [cdf.lost_before]
    cdf.plan["list"] = [cdf.slow(50)]
    start(sender, cdf)
    sessions = [at for kind, at in cdf.journal if kind == "session"]
    assert len(sessions) == 2
    assert sessions[1] - sessions[0] >= submitting.NONCE_DEAD_AFTER
    assert cdf.kinds[-4:] == ["list", "revoke", "session", "run"]
    assert len(cdf.executions) == 1


def test_a_request_is_not_sent_again_without_a_good_look_first(sender: Sender, cdf: Cdf) -> None:
    # Should CDF ever take a nonce twice, the look-up has found the first execution.
    cdf.plan["run"] = [cdf.lost_before]
    cdf.plan["list"] = [cdf.answers(503)] * 3
    start(sender, cdf, retry_for=0)
    assert cdf.kinds == ["session", "run", "list", "list", "list", "list", "run"]


def test_an_execution_of_somebody_else_is_not_taken_for_ours(sender: Sender, cdf: Cdf) -> None:
    start(sender, cdf)
    cdf.plan["run"] = [cdf.lost_before]
    execution = start(sender, cdf)
    assert execution.id == cdf.executions[1]["id"]


def test_the_look_up_reaches_back_beyond_a_wrong_time_zone(sender: Sender, cdf: Cdf) -> None:
    filters: list[Any] = []

    def look(request: httpx.Request) -> httpx.Response:
        filters.append(json.loads(request.content)["filter"])
        return cdf.do("list", request)

    cdf.plan = {"run": [cdf.lost_after], "list": [look]}
    start(sender, cdf)
    (only,) = filters
    assert only["workflowFilters"] == [{"externalId": "pump", "version": "1"}]
    off_by = datetime.now(UTC) - datetime.fromtimestamp(only["createdTimeStart"] / 1000, UTC)
    assert off_by >= timedelta(hours=14)


def test_a_look_up_that_goes_on_failing_ends_in_an_error_that_says_where_to_look(
    sender: Sender, cdf: Cdf
) -> None:
    cdf.plan = {"run": [cdf.lost_after], "list": [cdf.answers(503)] * 1000}
    begun = cdf.clock.now()
    with pytest.raises(CdfUnreachableError) as caught:
        start(sender, cdf)
    submit_id = cdf.executions[0]["metadata"]["airflow_submit_id"]
    message = str(caught.value)
    assert (
        f"To find out, look for an execution with the metadata airflow_submit_id = {submit_id}. [" in message
    )
    assert "[workflow 'pump' version '1', project 'my project'" in message
    for words in ("It is not known whether CDF did it", "could not be looked up", "HTTP 503"):
        assert words in message
    assert caught.value.sent
    assert not isinstance(caught.value, AirflowFailException)
    assert cdf.clock.now() - begun >= submitting.SUBMIT_WITHIN
    assert len(cdf.executions) == 1


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_look_up_that_is_refused_for_a_moment_is_made_again(sender: Sender, cdf: Cdf, code: int) -> None:
    # To give up here would leave the lost request to a retry of the Airflow task, seconds after it was sent.
    cdf.plan = {"run": [cdf.lost_after], "list": [cdf.answers(code)] * 4}
    start(sender, cdf)
    assert len(cdf.executions) == 1


def test_a_retry_after_does_not_keep_from_looking(sender: Sender, cdf: Cdf) -> None:
    # What was lost may be about to start an execution, which would be nobody's.
    def overloaded(request: httpx.Request) -> httpx.Response:
        cdf.late.append((cdf.clock.now() + 20, request))
        return httpx.Response(503, headers={"Retry-After": "3600"})

    cdf.plan["run"] = [overloaded, *[cdf.answers(503, **{"Retry-After": "3600"})] * 20]
    execution = start(sender, cdf)
    assert [execution.id] == [one["id"] for one in cdf.executions]
    assert max(cdf.clock.pauses) <= 20


def test_metadata_without_room_for_a_key_is_sent_as_it_is_and_a_lost_answer_stays_unclear(
    sender: Sender, cdf: Cdf
) -> None:
    full = {f"key{number}": "value" for number in range(9)}
    start(sender, cdf, **full)
    assert len(cdf.executions[0]["metadata"]) == 10
    assert "airflow_submit_id" not in cdf.executions[0]["metadata"]
    cdf.plan["run"] = [cdf.lost_after]
    with pytest.raises(CdfUnreachableError, match=r"leave no room.*with your metadata\."):
        start(sender, cdf, **full)
    assert cdf.kinds == ["session", "run"] * 2


def test_the_submit_id_of_another_execution_is_replaced(sender: Sender, cdf: Cdf) -> None:
    start(sender, cdf, airflow_submit_id="old")
    assert cdf.executions[0]["metadata"] == {"a": "b", "airflow_submit_id": ANY}
    assert cdf.executions[0]["metadata"]["airflow_submit_id"] != "old"


# -- what was certainly not executed -----------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, None], ids=["429", "refused connection"])
def test_a_run_that_was_never_executed_is_sent_again_with_the_same_young_nonce(
    sender: Sender, cdf: Cdf, code: int | None
) -> None:
    cdf.plan["run"] = [cdf.answers(code) if code else cdf.refuses_connections] * 3
    start(sender, cdf)
    assert cdf.kinds == ["session", *["run"] * 4]


def test_a_pause_that_outlives_the_nonce_is_followed_by_a_new_one(sender: Sender, cdf: Cdf) -> None:
    cdf.plan["run"] = [cdf.answers(429, **{"Retry-After": "50"})]
    start(sender, cdf)
    assert cdf.kinds == ["session", "run", "list", "revoke", "session", "run"]
    assert cdf.clock.pauses == [50]


def limited(cdf: Cdf, wait: str, times: int = 1) -> list[Any]:
    """A gateway sends a run twice: the first copy is executed, and the second one is one too many."""

    def first(request: httpx.Request) -> httpx.Response:
        cdf.do("run", request)
        return cdf.answers(429, **{"Retry-After": wait})(request)

    return [first, *[cdf.answers(429, **{"Retry-After": wait})] * (times - 1)]


@pytest.mark.parametrize(("wait", "times"), [("50", 1), ("23", 2), ("3600", 1)], ids=str)
def test_a_429_to_a_second_copy_leaves_one_execution(sender: Sender, cdf: Cdf, wait: str, times: int) -> None:
    # Before another nonce is made, and before it is given up.
    cdf.plan["run"] = limited(cdf, wait, times)
    execution = start(sender, cdf)
    assert [execution.id] == [one["id"] for one in cdf.executions]
    assert cdf.kinds == ["session", *["run"] * times, "list"]


@pytest.mark.parametrize("wait", ["50", "3600"])
def test_a_429_is_unclear_where_it_cannot_be_looked_up(sender: Sender, cdf: Cdf, wait: str) -> None:
    cdf.plan = {"run": limited(cdf, wait), "list": [cdf.answers(403)]}
    with pytest.raises(CdfUnreachableError, match=r"first copy.*airflow_submit_id = ") as caught:
        start(sender, cdf)
    assert caught.value.sent
    assert len(cdf.executions) == 1


def test_a_429_and_then_a_refused_connection_is_looked_up_before_it_is_given_up(
    sender: Sender, cdf: Cdf
) -> None:
    cdf.plan["run"] = [*limited(cdf, "1"), *[cdf.refuses_connections] * 1000]
    assert [start(sender, cdf).id] == [one["id"] for one in cdf.executions]
    assert cdf.sessions == 1


def test_a_retry_after_beyond_the_total_time_ends_at_once(sender: Sender, cdf: Cdf) -> None:
    cdf.plan["run"] = [cdf.answers(429, **{"Retry-After": "3600"})]
    with pytest.raises(CdfApiError, match=r"The request changed nothing in CDF\."):
        start(sender, cdf)
    assert cdf.clock.pauses == [submitting.LISTED_WITHIN]


def test_a_connection_that_is_refused_for_long_is_given_up_within_the_total_time(
    sender: Sender, cdf: Cdf
) -> None:
    cdf.plan["run"] = [cdf.refuses_connections] * 1000
    begun = cdf.clock.now()
    with pytest.raises(CdfUnreachableError, match=r"Nothing was sent to CDF\."):
        start(sender, cdf)
    assert 20 < cdf.clock.now() - begun < 60


def test_a_session_whose_answer_was_lost_is_made_again(sender: Sender, cdf: Cdf) -> None:
    cdf.plan["session"] = [cdf.lost_after_session, cdf.answers(500)]
    start(sender, cdf)
    assert cdf.kinds == ["session", "session", "session", "run"]
    assert len(cdf.executions) == 1


@pytest.mark.parametrize(
    "fault",
    [
        lambda cdf: cdf.answers(503),
        lambda cdf: cdf.lost_after_session,
        lambda cdf: lambda _: httpx.Response(200, content=b"{"),
    ],
    ids=["503", "lost", "unreadable"],
)
def test_without_a_session_nothing_was_submitted(sender: Sender, cdf: Cdf, fault: Any) -> None:
    cdf.plan["session"] = [fault(cdf)] * 1000
    with pytest.raises(CdfSessionError) as caught:
        start(sender, cdf)
    assert was_not_executed(caught.value)
    assert not is_ambiguous(caught.value)
    assert is_transient(caught.value)
    assert "It is not known" not in str(caught.value)
    assert set(cdf.kinds) == {"session"}


# -- nonces that come too late -----------------------------------------------------------------------------


def test_a_nonce_that_has_expired_on_its_way_is_replaced_once(sender: Sender, cdf: Cdf) -> None:
    cdf.plan["run"] = [cdf.slow(61)]
    start(sender, cdf)
    # Not before it is certain that it was not used: a gateway may have sent the request twice.
    kinds = [kind for kind in cdf.kinds if kind != "list"]
    assert kinds == ["session", "run", "revoke", "session", "run"]
    assert "list" in cdf.kinds


def test_a_nonce_that_is_refused_again_and_again_is_a_permanent_error(sender: Sender, cdf: Cdf) -> None:
    cdf.plan["run"] = [cdf.slow(61), cdf.slow(61)]
    with pytest.raises(AirflowFailException, match="nonce"):
        start(sender, cdf)
    assert cdf.sessions == 2


# -- refusals ----------------------------------------------------------------------------------------------

#: What CDF, or something on the way, may say to the second copy of a request.
REFUSALS = {
    "nonce": (400, "authentication.nonce: the nonce is unknown or was used before"),
    "token": (400, "Token already used"),
    "401": (401, "Unauthorized"),
    "403": (403, "Forbidden"),
    "404": (404, "Not found"),
    "409": (409, "Conflict"),
    "422": (422, "Unprocessable"),
}
refusals = pytest.mark.parametrize(("code", "words"), REFUSALS.values(), ids=REFUSALS)


def says(code: int, words: str) -> httpx.Response:
    return httpx.Response(code, json={"error": {"code": code, "message": words}})


@pytest.mark.parametrize("lag", [0, 55])
@pytest.mark.parametrize("may_list_sessions", [True, False], ids=["may list sessions", "may not"])
@refusals
def test_a_refusal_may_be_the_answer_to_a_second_copy(
    sender: Sender, cdf: Cdf, code: int, words: str, may_list_sessions: bool, lag: float
) -> None:
    # A gateway has sent the request twice.
    def twice(request: httpx.Request) -> httpx.Response:
        cdf.do("run", request)
        return says(code, words)

    cdf.lag = lag
    cdf.plan = {"run": [twice, twice] if code == 401 else [twice]}  # a 401 is tried with a new token
    if not may_list_sessions:
        cdf.plan["byids"] = [cdf.answers(403)] * 5
    execution = start(sender, cdf)
    assert execution.id == cdf.executions[0]["id"]
    assert "revoke" not in cdf.kinds  # the execution runs under that session
    assert set(cdf.states.values()) == {"ACTIVE"}


@pytest.mark.parametrize("login", [503, 401])
def test_a_401_and_a_login_that_fails_may_be_the_answer_to_a_second_copy(
    sender: Sender, cdf: Cdf, login: int
) -> None:
    def twice(request: httpx.Request) -> httpx.Response:
        cdf.do("run", request)
        return says(401, "Unauthorized")

    cdf.lag = 30
    cdf.plan = {"token": [None, *[cdf.answers(login)] * 3], "run": [twice]}
    if login == 503:
        assert start(sender, cdf).id == cdf.executions[0]["id"]
    else:
        with pytest.raises(CdfUnreachableError, match="It could not be looked up") as caught:
            start(sender, cdf)
        assert caught.value.sent
    assert len(cdf.executions) == cdf.sessions == cdf.kinds.count("run") == 1


@refusals
def test_a_lost_answer_and_then_a_refusal_is_one_execution(
    sender: Sender, cdf: Cdf, code: int, words: str
) -> None:
    cdf.lag = 30
    cdf.plan["run"] = [cdf.lost_after, *[lambda _: says(code, words)] * 2]
    execution = start(sender, cdf)
    assert [execution.id] == [one["id"] for one in cdf.executions]


def refused(sender: Sender, cdf: Cdf) -> tuple[CdfApiError, float]:
    """Start in vain; return why, and after how many seconds."""
    begun = cdf.clock.now()
    with pytest.raises(CdfApiError, match=r"The request changed nothing in CDF\.") as caught:
        start(sender, cdf)
    assert cdf.executions == []
    return caught.value, cdf.clock.now() - begun


@refusals
def test_a_refusal_is_believed_at_once_where_the_nonce_has_not_been_used(
    sender: Sender, cdf: Cdf, code: int, words: str
) -> None:
    cdf.plan["run"] = [lambda _: says(code, words)] * 2
    error, seconds = refused(sender, cdf)
    assert (error.code, error.cdf_message) == (code, words)
    assert isinstance(error, AirflowFailException) is (code in (400, 403, 404))
    assert seconds < 5
    assert "list" not in cdf.kinds
    assert "revoke" not in cdf.kinds
    assert error.may_be_under_way  # a first copy, to which this refusal was not the answer


def test_that_the_nonce_is_unused_confirms_no_page_of_a_gateway(sender: Sender, cdf: Cdf) -> None:
    def first(request: httpx.Request) -> httpx.Response:
        cdf.late.append((cdf.clock.now() + 8, request))
        return httpx.Response(409, html="<html>")

    cdf.plan["run"] = [first]
    assert [start(sender, cdf).id] == [one["id"] for one in cdf.executions]


def test_a_refusal_that_speaks_of_sessions_is_believed_as_any_other(sender: Sender, cdf: Cdf) -> None:
    cdf.plan["run"] = [lambda _: says(400, "Sessions chaining depth limit exceeded")]
    assert refused(sender, cdf)[1] < 5


@pytest.mark.parametrize(
    ("has_workflow", "missing"),
    [
        (True, "The workflow exists, but it has no such version."),
        (False, "There is no such workflow in this project."),
    ],
)
def test_a_version_that_is_not_there_is_believed_at_once(
    has_workflow: bool, missing: str, sender: Sender, cdf: Cdf
) -> None:
    cdf.has_version, cdf.has_workflow = False, has_workflow
    cdf.plan = {"run": [lambda _: says(404, "no such version")], "byids": [cdf.answers(403)]}
    error, seconds = refused(sender, cdf)
    assert isinstance(error, AirflowFailException)
    assert not error.may_be_under_way
    assert seconds < 5
    assert cdf.kinds == ["session", "run", "version", "workflow", "revoke"]
    assert missing in str(error)


#: What a gateway answers by itself.
PAGES = {
    "HTML": httpx.Response(404, html="<html>default backend - 404</html>"),
    "empty": httpx.Response(404),
    "JSON of another kind": httpx.Response(404, json={"message": "no Route matched"}),
    "a list": httpx.Response(404, json=[]),
}
pages = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


def again_and_again(page: httpx.Response) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(page.status_code, content=page.content)


@pages
def test_a_page_of_a_gateway_is_no_refusal_and_confirms_none(
    sender: Sender, cdf: Cdf, page: httpx.Response
) -> None:
    # For a minute the gateway knows no backend: right after the first copy went through.
    def first(request: httpx.Request) -> httpx.Response:
        cdf.do("run", request)
        return again_and_again(page)(request)

    cdf.plan = {kind: [again_and_again(page)] * 2 for kind in ("list", "version", "workflow", "byids")}
    cdf.plan["run"] = [first]
    execution = start(sender, cdf)
    assert [execution.id] == [one["id"] for one in cdf.executions]
    assert cdf.sessions == 1


@pages
def test_a_host_that_is_not_cdf_is_asked_about_and_tried_again_by_airflow(
    sender: Sender, cdf: Cdf, page: httpx.Response
) -> None:
    cdf.plan["session"] = [again_and_again(page)]
    with pytest.raises(CdfApiError, match=r"Is https://\S+ the right host\?") as caught:
        start(sender, cdf)
    assert not isinstance(caught.value, AirflowFailException)
    assert not caught.value.is_about_the_id
    assert cdf.kinds == ["session"]


def test_a_capability_that_is_missing_is_believed_at_once(sender: Sender, cdf: Cdf) -> None:
    cdf.granted = ["READ"]
    cdf.plan = {"run": [lambda _: says(403, "Forbidden")], "byids": [cdf.answers(403)]}
    error, seconds = refused(sender, cdf)
    assert isinstance(error, AirflowFailException)
    assert not error.may_be_under_way
    assert seconds < 5
    assert cdf.kinds == ["session", "run", "inspect", "revoke"]


@pytest.mark.parametrize("code", [400, 403, 404, 409])
def test_what_nothing_confirms_is_believed_when_the_nonce_is_dead(
    sender: Sender, cdf: Cdf, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    cdf.plan = {"run": [lambda _: says(code, "No.")], "byids": [cdf.answers(403)]}
    error, seconds = refused(sender, cdf)
    assert error.code == code
    assert submitting.NONCE_DEAD_AFTER <= seconds < submitting.NONCE_DEAD_AFTER + 25
    assert "A first copy of the request may have been accepted all the same" in caplog.text
    # Nothing runs under this session, and nothing will.
    assert cdf.states == {1: "REVOKED"}
    revoked = [at for kind, at in cdf.journal if kind == "revoke"]
    assert revoked[0] - cdf.journal[0][1] >= submitting.NONCE_DEAD_AFTER


@pytest.mark.parametrize("said", ["a wrong version", "a 429", "no connection", "no login"])
def test_a_session_with_which_nothing_was_started_is_given_back(sender: Sender, cdf: Cdf, said: str) -> None:
    if said == "a wrong version":
        cdf.has_version = False
        cdf.plan["run"] = [cdf.answers(404)] * 3
    elif said == "a 429":
        cdf.plan["run"] = [cdf.answers(429, **{"Retry-After": "3600"})] * 3
    elif said == "no connection":
        cdf.plan["run"] = [cdf.refuses_connections] * 3
    else:

        def expire(request: httpx.Request) -> httpx.Response:
            shared_login(settings(retry_for=0))._token = None
            cdf.plan["token"] = [cdf.answers(503)]
            return cdf.do("session", request)

        cdf.plan["session"] = [expire] * 3
    for _ in range(3):
        with pytest.raises(CdfError):
            start(sender, cdf, retry_for=0)
        cdf.clock.seconds += 60  # a failed login is tried again
        cdf.plan.pop("token", None)
    assert cdf.states == dict.fromkeys((1, 2, 3), "READY" if said == "no login" else "REVOKED")


def test_a_session_whose_nonce_grows_too_old_is_given_back(sender: Sender, cdf: Cdf) -> None:
    cdf.plan["run"] = [cdf.answers(429, **{"Retry-After": "50"})]
    start(sender, cdf)
    assert cdf.states == {1: "REVOKED", 2: "ACTIVE"}


def test_a_session_that_cannot_be_revoked_is_no_reason_to_fail(
    sender: Sender, cdf: Cdf, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cdf.plan = {"run": [cdf.slow(61)], "revoke": [cdf.answers(403)]}
    start(sender, cdf)
    assert "An unused session could not be revoked" in caplog.text
    assert len(cdf.executions) == 1


def test_a_project_that_is_full_of_sessions_is_tried_again_by_airflow(sender: Sender, cdf: Cdf) -> None:
    cdf.plan["session"] = [lambda _: says(400, "There can be only 10000 sessions")]
    with pytest.raises(CdfApiError, match="no room for another session") as caught:
        start(sender, cdf)
    assert not isinstance(caught.value, AirflowFailException)
    assert cdf.kinds == ["session"]


def test_an_answer_about_another_execution_is_no_answer(sender: Sender, cdf: Cdf) -> None:
    cdf.plan["run"] = [lambda _: done({**EXECUTION, "metadata": {"airflow_submit_id": "another"}}, 202)]
    execution = start(sender, cdf)
    assert [execution.id] == [one["id"] for one in cdf.executions]


def without_metadata(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "metadata": {}}


def with_metadata_cut(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "metadata": {key: value[:20] for key, value in one["metadata"].items()}}


def showing(cdf: Cdf, shown: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Let CDF show executions in lists as something makes them."""
    return [lambda _: done({"items": [shown(one) for one in cdf.executions]})] * 900


@pytest.mark.parametrize("shown", [without_metadata, with_metadata_cut])
def test_an_answer_that_lacks_metadata_is_the_execution_that_was_started(
    sender: Sender, cdf: Cdf, caplog: pytest.LogCaptureFixture, shown: Any
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return done(shown(cdf.do("run", request).json()), 202)

    cdf.plan = {"run": [answer] * 5, "list": showing(cdf, shown)}
    assert [start(sender, cdf).id] == [one["id"] for one in cdf.executions]
    assert cdf.kinds == ["session", "run"]
    assert "lacks metadata that the run was sent with" in caplog.text


@pytest.mark.parametrize(
    "change",
    [{"metadata": {"airflow_submit_id": "another"}}, {"id": "no-uuid"}],
    ids=["another run", "an id that is no UUID"],
)
def test_an_answer_that_names_a_start_is_followed_by_no_other_nonce(
    sender: Sender, cdf: Cdf, change: dict[str, Any]
) -> None:
    def shown(one: dict[str, Any]) -> dict[str, Any]:
        return {**one, **change}

    def answer(request: httpx.Request) -> httpx.Response:
        return done(shown(cdf.do("run", request).json()), 202)

    cdf.plan = {"run": [answer] * 5, "list": showing(cdf, shown)}
    with pytest.raises(CdfUnreachableError) as caught:
        start(sender, cdf)
    (only,) = cdf.executions
    assert shown(only)["id"] in str(caught.value)
    assert "Nothing was sent" not in str(caught.value)
    assert caught.value.sent
    assert cdf.sessions == 1
    assert "revoke" not in cdf.kinds


@pytest.mark.parametrize("lacking", ["id", "status", "workflowExternalId", "all but the id"])
def test_a_list_with_an_item_that_cannot_be_read_does_not_say_that_nothing_was_started(
    sender: Sender, cdf: Cdf, lacking: str
) -> None:
    def shown(one: dict[str, Any]) -> dict[str, Any]:
        return {"id": one["id"]} if lacking.startswith("all") else {**one, lacking: None}

    cdf.plan = {"run": [cdf.lost_after], "list": showing(cdf, shown)}
    with pytest.raises(CdfUnreachableError, match=r"cannot be read, which may be the wanted one"):
        start(sender, cdf)
    assert len(cdf.executions) == cdf.sessions == 1
    assert "revoke" not in cdf.kinds


def test_an_item_of_another_submission_that_cannot_be_read_is_no_obstacle(sender: Sender, cdf: Cdf) -> None:
    start(sender, cdf)
    cdf.executions[0]["status"] = None
    cdf.plan["run"] = [cdf.lost_before]
    start(sender, cdf)
    assert len(cdf.executions) == 2


def test_the_keys_of_another_execution_are_dropped(sender: Sender, cdf: Cdf) -> None:
    # hook.run_workflow(metadata=old.metadata), with a lost answer.
    old = start(sender, cdf, airflow_run_key="key")
    cdf.executions[0]["metadata"]["airflow_run_key"] = "key"
    cdf.plan["run"] = [cdf.lost_after]
    new = start(sender, cdf, **cdf.executions[0]["metadata"])
    assert new.id != old.id
    assert cdf.executions[1]["metadata"] == {"a": "b", "airflow_submit_id": ANY}


# -- retrying an execution ---------------------------------------------------------------------------------

FAILED_TASK = {"status": "FAILED"}
NEW_ATTEMPT = {"id": "11111111-2222-4333-8444-555555555555", "status": "IN_PROGRESS"}


def again(sender: Sender, *answers: Any) -> tuple[Any, Network]:
    network = Network(*answers)
    config = settings(retry_for=60)
    return sender.perform(network, conversations.retry_execution(config, EXECUTION_ID), config), network


@pytest.mark.parametrize("answer", [httpx.ReadTimeout(""), refusal(503), done({"id": 5})], ids=str)
@pytest.mark.parametrize(
    "after",
    [
        execution_with(FAILED_TASK, NEW_ATTEMPT),
        execution_with(FAILED_TASK),
        execution_with(FAILED_TASK, {**NEW_ATTEMPT, "status": "FAILED"}, status="FAILED"),
    ],
    ids=["runs", "runs without a task yet", "has failed again"],
)
def test_a_retry_whose_answer_was_lost_is_found(
    sender: Sender, time: FakeTime, answer: Any, after: Any
) -> None:
    before = execution_with(FAILED_TASK, status="FAILED")
    _, network = again(sender, before, done(SESSION), answer, after)
    assert [path.endswith("/retry") for path in network.paths].count(True) == 1


def test_a_retry_that_was_not_executed_is_sent_again_with_the_same_nonce(
    sender: Sender, time: FakeTime
) -> None:
    before = execution_with(FAILED_TASK, status="FAILED")
    _, network = again(sender, before, done(SESSION), httpx.ReadError(""), before, done(EXECUTION))
    assert network.bodies[2] == network.bodies[4] == NONCE


def test_an_end_time_that_comes_late_is_not_taken_for_a_retry(sender: Sender, time: FakeTime) -> None:
    # CDF may answer a cancellation before endTime is set.
    before = done({**EXECUTION, "status": "TERMINATED", "executedTasks": []})
    later = done({**EXECUTION, "status": "TERMINATED", "endTime": 1, "executedTasks": []})
    _, network = again(sender, before, done(SESSION), httpx.ReadError(""), later, done(EXECUTION))
    assert len(network.requests) == 5


@refusals
def test_a_refusal_to_retry_may_be_the_answer_to_a_second_copy(
    sender: Sender, time: FakeTime, code: int, words: str
) -> None:
    capability = {"workflowOrchestrationAcl": {"actions": ["WRITE"]}, "projectScope": {"allProjects": {}}}
    token = {"subject": "x", "projects": [{"projectUrlName": "my project"}], "capabilities": [capability]}

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/inspect"):
            return done(token)
        if path.endswith("/byids"):
            return done({"items": [{"status": "ACTIVE"}]})
        if path.endswith("/sessions"):
            return done(SESSION)
        has_retried = any(path.endswith("/retry") for path in network.paths)
        if path.endswith("/retry"):
            return says(code, words)
        return execution_with(FAILED_TASK, status="RUNNING" if has_retried else "FAILED")

    network = Network(*[answer] * 20)
    retried = sender.perform(network, conversations.retry_execution(settings(retry_for=60), EXECUTION_ID))
    assert retried.status == "RUNNING"


@pytest.mark.parametrize("state", ["READY", "ACTIVE"])
def test_an_execution_that_ran_before_its_retry_is_no_proof_of_it(
    sender: Sender, time: FakeTime, state: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return execution_with()
        if request.url.path.endswith("/byids"):
            return done({"items": [{"status": state}]})
        return done(SESSION) if request.url.path.endswith("/sessions") else refusal()

    begun = time.now()
    with pytest.raises(CdfApiError, match="HTTP 400"):
        again(sender, *[answer] * 100)
    assert (time.now() - begun < 5) is (state == "READY")


# -- cancelling --------------------------------------------------------------------------------------------


def cancel(sender: Sender, *answers: Any, retry_for: float = 60) -> tuple[Any, Network]:
    network = Network(*answers)
    config = settings(retry_for=retry_for)
    conversation = conversations.cancel_execution(config, EXECUTION_ID, "Enough.")
    return sender.perform(network, conversation, config), network


def test_a_cancellation_whose_answer_was_lost_is_read_back(sender: Sender, time: FakeTime) -> None:
    execution, network = cancel(sender, httpx.ReadTimeout(""), execution_with(status="TERMINATED"))
    assert execution.status == "TERMINATED"
    assert len(network.requests) == 2


def test_a_cancellation_that_was_not_carried_out_is_repeated(sender: Sender, time: FakeTime) -> None:
    execution, _ = cancel(sender, refusal(503), execution_with(), done({**EXECUTION, "status": "TERMINATED"}))
    assert execution.status == "TERMINATED"
    assert len(time.pauses) == 1


@pytest.mark.parametrize("code", [400, 409])
def test_an_execution_that_has_ended_before_is_returned_as_it_is(
    sender: Sender, time: FakeTime, code: int
) -> None:
    completed = execution_with(status="COMPLETED")
    execution, _ = cancel(sender, httpx.Response(code), completed)
    assert execution.status == "COMPLETED"


def test_an_execution_that_cdf_is_about_to_end_is_waited_for(sender: Sender, time: FakeTime) -> None:
    ended = execution_with(status="TERMINATED")
    execution, network = cancel(sender, done(EXECUTION), execution_with(), refusal(503), ended)
    assert execution.status == "TERMINATED"
    assert network.answers == []


def test_an_execution_that_completes_while_cdf_is_about_to_cancel_it_has_completed(
    sender: Sender, time: FakeTime
) -> None:
    execution, _ = cancel(sender, done(EXECUTION), execution_with(status="COMPLETED"))
    assert execution.status == "COMPLETED"


def test_an_execution_that_goes_on_after_its_cancellation_is_returned_as_it_is(
    sender: Sender, time: FakeTime
) -> None:
    begun = time.now()
    execution, _ = cancel(sender, done(EXECUTION), *[execution_with()] * 30)
    assert execution.status == "RUNNING"
    assert conversations.CANCEL_WITHIN <= time.now() - begun < conversations.CANCEL_WITHIN + 1


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([refusal(409), *[refusal(503)] * 40], CdfUnreachableError),
        ([refusal(409), refusal(403)], CdfApiError),
        ([refusal(409), execution_with()], CdfApiError),
        ([httpx.ReadTimeout(""), execution_with(), refusal(403), refusal(403)], CdfUnreachableError),
        ([httpx.ReadTimeout(""), execution_with(), refusal(403), execution_with()], CdfRefusedError),
    ],
    ids=["refused, unread", "refused, not to be read", "refused, runs", "lost, not to be read", "lost, runs"],
)
def test_a_refused_cancellation_is_unclear_only_where_it_may_have_been_done(
    sender: Sender, time: FakeTime, answers: list[Any], kind: type[CdfError]
) -> None:
    with pytest.raises(CdfError) as caught:
        cancel(sender, *answers)
    assert type(caught.value) is kind
    assert ("To find out, look whether" in str(caught.value)) is (kind is CdfUnreachableError)


def test_a_cancellation_without_time_is_one_request_if_cdf_answers(sender: Sender, time: FakeTime) -> None:
    with pytest.raises(CdfApiError):
        cancel(sender, httpx.Response(429), retry_for=0)
    _, network = cancel(sender, done(EXECUTION), retry_for=0)
    assert len(network.requests) == 1


def test_a_cancellation_that_stays_unclear_says_where_to_look(sender: Sender, time: FakeTime) -> None:
    with pytest.raises(CdfUnreachableError) as caught:
        cancel(sender, httpx.ReadTimeout(""), httpx.ReadTimeout(""), retry_for=0)
    assert f"To find out, look whether the execution still runs. [execution {EXECUTION_ID}, " in str(
        caught.value
    )
    assert caught.value.sent


# -- reporting a task's end -------------------------------------------------------------------------------


def test_an_update_that_cdf_accepts_is_one_call(sender: Sender) -> None:
    network = Network(done({**TASK, "status": "COMPLETED"}))
    task = sender.perform(network, update("completed", output={"risk": 1}))
    assert (task.id, task.status) == (TASK_ID, "COMPLETED")
    assert network.paths == [f"{PROJECT}/workflows/tasks/{TASK_ID}/update"]
    assert network.bodies == [{"status": "COMPLETED", "output": {"risk": 1}}]


#: One of each kind of answer that leaves open what became of an update.
UNCLEAR = {
    "refused": refusal(400),
    "503": refusal(503),
    "no answer": httpx.ReadTimeout(""),
    "unreadable": httpx.Response(200, content=b"{"),
    "not done": done(TASK),
    "an unknown status": done({**TASK, "status": "PAUSED"}),
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


@pytest.mark.parametrize("status", ["IN_PROGRESS", "FAILED", "CANCELED", "PAUSED"])
def test_an_answer_that_the_task_is_in_another_status_is_no_success(sender: Sender, status: str) -> None:
    answer = done({**TASK, "status": status})
    with pytest.raises(CdfAnswerError, match=f"a task that is {status}.*It is not known whether CDF did it"):
        sender.perform(Network(answer), update(execution_id=None))
    network = Network(answer, execution_with({"status": "COMPLETED", "output": {"a": 1}}))
    assert sender.perform(network, update()).output == {"a": 1}


@pytest.mark.parametrize("status", ["FAILED", "FAILED_WITH_TERMINAL_ERROR"])
def test_an_answer_that_the_workflow_skips_a_reported_failure_is_success(sender: Sender, status: str) -> None:
    network = Network(done({**TASK, "status": "COMPLETED_WITH_ERRORS"}))
    assert sender.perform(network, update(status)).status == "COMPLETED_WITH_ERRORS"


@pytest.mark.parametrize("status", ["FAILED", "FAILED_WITH_TERMINAL_ERROR"])
def test_a_reported_failure_that_the_workflow_skips_is_success(sender: Sender, status: str) -> None:
    # What a failed task with onFailure: skipTask becomes.
    network = Network(refusal(), execution_with({"status": "COMPLETED_WITH_ERRORS"}))
    assert sender.perform(network, update(status)).status == "COMPLETED_WITH_ERRORS"


def test_the_task_is_found_however_its_id_is_written(sender: Sender) -> None:
    network = Network(refusal(), execution_with({"status": "COMPLETED"}))
    assert sender.perform(network, update(task_id=TASK_ID.upper())).id == TASK_ID
    network = Network(refusal(), execution_with({"status": "COMPLETED", "id": TASK_ID.upper()}))
    assert sender.perform(network, update(task_id=TASK_ID)).id == TASK_ID


@unclear
@pytest.mark.parametrize("status", ["CANCELED", "FAILED", "COMPLETED_WITH_ERRORS"])
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
    with pytest.raises(
        (CdfApiError, CdfAnswerError, CdfUnreachableError),
        match=rf"set the task to COMPLETED.*\[task {TASK_ID}",
    ):
        sender.perform(network, update())


WAITS = {"status": "IN_PROGRESS", "input": {"isAsyncComplete": True}}


def patient_update(sender: Sender, *answers: Any, execution_id: str | None = EXECUTION_ID) -> Any:
    config = settings(retry_for=60)
    conversation = reports.update_task(config, TASK_ID, "completed", execution_id=execution_id)
    return sender.perform(Network(*answers), conversation, config)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 422])
def test_a_refusal_while_the_task_still_waits_is_no_answer_and_is_repeated(
    sender: Sender, time: FakeTime, code: int
) -> None:
    # A client asks for a new login once, after a 401.
    refusals = [refusal(code)] * (2 if code == 401 else 1)
    task = patient_update(sender, *refusals, execution_with(WAITS), done({**TASK, "status": "COMPLETED"}))
    assert task.status == "COMPLETED"
    assert len(time.pauses) == 1


def test_a_refusal_that_stays_is_an_error_that_airflow_retries(sender: Sender, time: FakeTime) -> None:
    with pytest.raises(CdfReportRefusedError, match="still waits") as caught:
        patient_update(sender, *[refusal(409), execution_with(WAITS)] * 3)
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.code == 409
    for words in (TASK_ID, EXECUTION_ID, "'score'", "IN_PROGRESS"):
        assert words in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("execution_id", [EXECUTION_ID, None])
def test_a_refusal_that_cdf_marks_as_retryable_is_repeated_for_as_long_as_there_is_time(
    sender: Sender, time: FakeTime, execution_id: str | None
) -> None:
    marked = httpx.Response(409, json={"error": {}}, headers={"cdf-is-auto-retryable": "true"})
    task = patient_update(
        sender, *[marked] * 4, done({**TASK, "status": "COMPLETED"}), execution_id=execution_id
    )
    assert task.status == "COMPLETED"

    def always(request: httpx.Request) -> httpx.Response:
        return marked if request.method == "POST" else execution_with(WAITS)

    begun = time.now()
    with pytest.raises(CdfApiError) as caught:
        patient_update(sender, *[always] * 500, execution_id=execution_id)
    assert not isinstance(caught.value, AirflowFailException)
    assert time.now() - begun > 40


def test_a_refused_report_of_a_task_that_is_not_asynchronous_is_final(sender: Sender, time: FakeTime) -> None:
    synchronous = {"status": "IN_PROGRESS", "input": {"isAsyncComplete": False}}
    with pytest.raises(CdfNothingToReportToError, match="isAsyncComplete") as caught:
        patient_update(sender, refusal(400), execution_with(synchronous))
    assert isinstance(caught.value, AirflowFailException)
    assert not time.pauses


def test_without_an_execution_a_refusal_is_repeated_before_it_is_believed(
    sender: Sender, time: FakeTime
) -> None:
    done_after_all = done({**TASK, "status": "COMPLETED"})
    assert patient_update(sender, refusal(404), done_after_all, execution_id=None).status == "COMPLETED"
    with pytest.raises(CdfRefusedError) as caught:
        patient_update(sender, *[refusal(404)] * 3, execution_id=None)
    assert caught.value.code == 404


def test_a_refusal_that_cannot_be_read_back_either_is_final_if_that_is_refused_too(
    sender: Sender, time: FakeTime
) -> None:
    with pytest.raises(CdfRefusedError, match="set the task"):
        patient_update(sender, *[refusal(404), refusal(404)] * 3)


@pytest.mark.parametrize("then", ["done", "refused"])
def test_an_update_that_is_not_done_yet_is_repeated_within_the_total_time(
    sender: Sender, time: FakeTime, then: str
) -> None:
    # "refused": the slow first request was executed after all, before the second.
    waits, ended = execution_with({"status": "IN_PROGRESS"}), execution_with({"status": "COMPLETED"})
    rest = [done({**TASK, "status": "COMPLETED"})] if then == "done" else [refusal(), ended]
    network = Network(httpx.ReadTimeout(""), waits, *rest)
    config = settings(retry_for=60)
    conversation = reports.update_task(config, TASK_ID, "completed", execution_id=EXECUTION_ID)
    assert sender.perform(network, conversation, config).status == "COMPLETED"
    assert len(time.pauses) == 1


def test_an_update_that_stays_unclear_says_where_to_look(sender: Sender, time: FakeTime) -> None:
    waits = execution_with({"status": "IN_PROGRESS"})
    config = settings(retry_for=60)
    conversation = reports.update_task(config, TASK_ID, "completed", execution_id=EXECUTION_ID)
    begun = time.now()
    with pytest.raises(CdfUnreachableError) as caught:
        sender.perform(Network(*[httpx.ReadTimeout(""), waits] * 50), conversation, config)
    assert "It is not known whether CDF did it" in str(caught.value)
    assert "To find out, look at the task in CDF. [" in str(caught.value)
    assert str(caught.value).endswith(f", execution {EXECUTION_ID}]")
    assert time.now() - begun < 60


@unclear
def test_without_an_execution_nothing_is_read_back(sender: Sender, answer: Any) -> None:
    network = Network(answer)
    with pytest.raises(
        (CdfApiError, CdfAnswerError, CdfUnreachableError),
        match=rf"set the task to COMPLETED.*\[task {TASK_ID}",
    ):
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


@unclear
@pytest.mark.parametrize(
    "read_back",
    [httpx.ConnectError("refused"), httpx.ReadTimeout(""), refusal(503), done({})],
    ids=["refused", "timeout", "503", "unreadable"],
)
def test_an_unclear_update_that_cannot_be_read_back_stays_unclear(
    sender: Sender, answer: Any, read_back: Any
) -> None:
    network = Network(answer, read_back)
    with pytest.raises(CdfUnreachableError, match=rf"set the task to COMPLETED.*\[task {TASK_ID}") as caught:
        sender.perform(network, update())
    # "Nothing was sent" would be true of the read only.
    assert caught.value.sent
    assert "Nothing was" not in str(caught.value)


def test_an_unclear_update_whose_task_may_not_be_read_stays_unclear(sender: Sender) -> None:
    with pytest.raises(CdfUnreachableError, match=r"Whether it is done could not be read.*HTTP 403"):
        sender.perform(Network(httpx.ReadTimeout(""), refusal(403)), update())


def test_a_refused_update_that_cannot_be_read_back_for_the_moment_is_not_final(sender: Sender) -> None:
    with pytest.raises(
        CdfUnreachableError, match=r"Whether it is done could not be read.*HTTP 503"
    ) as caught:
        sender.perform(Network(refusal(404), refusal(503)), update())
    assert not isinstance(caught.value, AirflowFailException)
    assert "refused to set the task" in str(caught.value)
