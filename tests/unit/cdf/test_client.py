"""What becomes of an answer, or of none, in both clients."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import AirflowException
from cdf_support import (
    BASE_URL,
    EXECUTION,
    EXECUTION_ID,
    SECRET,
    SESSION,
    TASK,
    TASK_ID,
    Answering,
    FakeTime,
    Network,
    Sender,
    loopback_server,
    settings,
    wired,
)

from airflow_provider_cdf import __version__
from airflow_provider_cdf.cdf import calls, client, pages
from airflow_provider_cdf.cdf import sender as sender_module
from airflow_provider_cdf.cdf.client import AsyncCdfClient, CdfClient
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfError,
    CdfInputError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.models import ExecutionPage
from airflow_provider_cdf.cdf.reading import ExecutionPolls
from airflow_provider_cdf.cdf.retry import is_transient

RUN = calls.run("my project", "pump", "1", nonce="n0nce")
READ = calls.get_execution("my project", EXECUTION_ID)


def refused(sender: Sender, response: httpx.Response, call: calls.Call[Any] = RUN) -> CdfApiError:
    """Return the error that an answer of CDF becomes."""
    answers = [response] * (2 if response.status_code == 401 else 1)
    with pytest.raises(CdfApiError) as caught:
        sender.send(Network(*answers), call)
    return caught.value


def envelope(code: int, message: str = "No such thing", **headers: str) -> httpx.Response:
    return httpx.Response(code, json={"error": {"code": code, "message": message}}, headers=headers)


# -- what is sent -----------------------------------------------------------------------------------------


def test_requests_say_who_sends_them_and_take_json(sender: Sender) -> None:
    network = Network(httpx.Response(202, json=EXECUTION))
    sender.send(network, RUN)
    headers = network.requests[0].headers
    assert headers["User-Agent"] == f"airflow-provider-cdf/{__version__}"
    assert headers["x-cdp-app"] == "airflow-provider-cdf"
    assert headers["Accept"] == headers["Content-Type"] == "application/json"


def test_a_request_goes_below_the_path_of_the_base_url(sender: Sender) -> None:
    network = Network(httpx.Response(200, json=EXECUTION))
    sender.send(network, READ, settings(base_url=f"{BASE_URL}/proxy/cdf"))
    assert network.paths == [f"/proxy/cdf/api/v1/projects/my%20project/workflows/executions/{EXECUTION_ID}"]


def test_an_answer_is_read_with_its_model(sender: Sender) -> None:
    execution = sender.send(Network(httpx.Response(202, json=EXECUTION)), RUN)
    assert (type(execution), execution.id) == (RUN.answer, EXECUTION_ID)


# -- errors that CDF answers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "what", "which"),
    [
        (RUN, "run the workflow", "workflow 'pump' version '1'"),
        (READ, "read the execution", f"execution {EXECUTION_ID}"),
        (calls.cancel("my project", EXECUTION_ID), "cancel the execution", f"execution {EXECUTION_ID}"),
        (
            calls.retry("my project", EXECUTION_ID, nonce="n0nce"),
            "retry the execution",
            f"execution {EXECUTION_ID}",
        ),
        (
            calls.update_task("my project", TASK_ID, "completed"),
            "set the task to COMPLETED",
            f"task {TASK_ID}",
        ),
        (
            calls.list_executions("my project", workflow_external_id="pump"),
            "list executions",
            "workflow 'pump'",
        ),
        (
            calls.create_session(
                "my project", client_id="the-client", client_secret=SECRET, what_for="run the workflow"
            ),
            "create a session to run the workflow",
            "",
        ),
    ],
    ids=["run", "get", "cancel", "retry", "update", "list", "session"],
)
def test_an_error_names_what_was_asked_for(
    sender: Sender, call: calls.Call[Any], what: str, which: str
) -> None:
    error = refused(sender, envelope(404), call)
    assert str(error).startswith(f"CDF refused to {what} (HTTP 404): ")
    ids = ", ".join(filter(None, (which, "project 'my project'")))
    assert str(error).endswith(f" [{ids}]")
    assert SECRET not in str(error)
    assert "n0nce" not in str(error)
    assert isinstance(error, AirflowException)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 422, 429, 500, 502, 503, 504])
def test_an_error_says_what_cdf_said(sender: Sender, code: int) -> None:
    error = refused(sender, envelope(code, **{"x-request-id": "r-1"}))
    for words in (f"HTTP {code}", "No such thing", "r-1"):
        assert words in str(error)
    assert (error.code, error.request_id) == (code, "r-1")


@pytest.mark.parametrize("said", ["Already ended.", "Already ended"])
def test_the_words_of_cdf_are_kept_as_they_are_and_end_with_one_full_stop(sender: Sender, said: str) -> None:
    error = refused(sender, envelope(400, said))
    assert error.cdf_message == said
    assert "(HTTP 400): Already ended." in str(error)
    assert ".." not in str(error)


@pytest.mark.parametrize(
    ("code", "transient"),
    [
        (400, False),
        (401, False),
        (403, False),
        (404, False),
        (409, False),
        (429, True),
        (500, True),
        (503, True),
    ],
)
def test_some_errors_may_pass(sender: Sender, code: int, transient: bool) -> None:
    assert is_transient(refused(sender, envelope(code))) is transient


def test_a_401_names_the_client_and_where_to_look(sender: Sender) -> None:
    message = str(refused(sender, envelope(401, "Unauthorized")))
    for words in ("'the-client'", "Airflow connection 'cdf_default'", "project", "host", "scopes"):
        assert words in message


@pytest.mark.parametrize(
    ("call", "capability"),
    [
        (RUN, "workflowOrchestrationAcl:WRITE"),
        (READ, "workflowOrchestrationAcl:READ"),
        (calls.list_executions("p"), "workflowOrchestrationAcl:READ"),
        (calls.update_task("p", TASK_ID, "failed"), "workflowOrchestrationAcl:WRITE"),
        (calls.cancel("p", EXECUTION_ID), "workflowOrchestrationAcl:WRITE"),
        (calls.retry("p", EXECUTION_ID, nonce="n"), "workflowOrchestrationAcl:WRITE"),
        (
            calls.create_session("p", client_id="c", client_secret="s", what_for="run workflow 'w'"),
            "sessionsAcl:CREATE",
        ),
        (calls.read_session("p", 1), "sessionsAcl:LIST"),
        (calls.revoke_session("p", 1), "sessionsAcl:DELETE"),
    ],
)
def test_a_403_names_the_capability_that_is_missing(
    sender: Sender, call: calls.Call[Any], capability: str
) -> None:
    message = str(refused(sender, envelope(403, "Forbidden"), call))
    assert f"needs the capability {capability} for" in message
    assert "'the-client'" in message


ORCHESTRATION, SESSIONS = "workflowOrchestrationAcl", "sessionsAcl"
CREATE_SESSION = calls.create_session("p", client_id="c", client_secret="s", what_for="run workflow 'w'")


@pytest.mark.parametrize(
    ("call", "granted", "words"),
    [
        (
            CREATE_SESSION,
            {ORCHESTRATION: ["READ"]},
            f"lacks the capabilities {SESSIONS}:CREATE, {ORCHESTRATION}:WRITE in",
        ),
        (
            calls.run("p", "pump", "1", nonce="n0nce"),
            {SESSIONS: ["CREATE"]},
            f"lacks the capabilities {ORCHESTRATION}:WRITE, {ORCHESTRATION}:READ in",
        ),
        (
            calls.run("p", "pump", "1", nonce="n0nce"),
            {ORCHESTRATION: ["READ"], SESSIONS: ["CREATE"]},
            f"lacks the capability {ORCHESTRATION}:WRITE in",
        ),
        # An Airflow that only reports needs no sessions.
        (calls.update_task("p", TASK_ID, "failed"), {}, f"lacks the capability {ORCHESTRATION}:WRITE in"),
        (
            CREATE_SESSION,
            {ORCHESTRATION: ["READ", "WRITE"], SESSIONS: ["CREATE"]},
            f"needs the capability {SESSIONS}:CREATE for",
        ),
    ],
)
def test_a_403_names_all_that_cdf_says_is_missing_for_a_run(
    sender: Sender, call: calls.Call[Any], granted: dict[str, list[str]], words: str
) -> None:
    inspection = {
        "subject": "s",
        "projects": [{"projectUrlName": "my project", "groups": [1]}],
        "capabilities": [
            {acl: {"actions": actions}, "projectScope": {"projects": ["my project"]}}
            for acl, actions in granted.items()
        ],
    }
    network = Network(envelope(403, "Forbidden"), inspection=httpx.Response(200, json=inspection))
    with pytest.raises(CdfApiError) as caught:
        sender.send(network, call)
    assert f"Client 'the-client' {words}" in str(caught.value)


def test_a_403_without_a_known_capability_names_none(sender: Sender) -> None:
    assert "capability" not in str(refused(sender, envelope(403), calls.inspect_token()))


@pytest.mark.parametrize(
    ("call", "changes"),
    [
        (RUN, True),
        (calls.revoke_session("p", 1), True),
        (READ, False),
        (calls.read_session("p", 1), False),
        (calls.inspect_token(), False),
    ],
)
def test_only_a_call_that_changes_something_says_that_it_did_not(
    sender: Sender, call: calls.Call[Any], changes: bool
) -> None:
    message = str(refused(sender, envelope(400), call))
    assert ("The request changed nothing in CDF." in message) is changes


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_the_host_is_questioned(sender: Sender, code: int) -> None:
    redirect = httpx.Response(code, headers={"Location": "https://evil.example.com/"})
    network = Network(redirect)
    with pytest.raises(CdfApiError, match="right host") as caught:
        sender.send(network, RUN)
    assert caught.value.code == code
    assert BASE_URL in str(caught.value)
    assert len(network.requests) == 1


HTML = "<html>\n  <body>Bad   Gateway" + "x" * 10_000 + "</body></html>"


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (httpx.Response(502, html=HTML), "Bad Gateway, with an HTML page"),
        (httpx.Response(502), "Bad Gateway, with an empty answer"),
        (httpx.Response(502, content=b"\xff\xfe"), "no JSON object"),
        (httpx.Response(502, json=[]), "no JSON object"),
        (httpx.Response(502, json="text"), "no JSON object"),
        (httpx.Response(502, content=b"null"), "no JSON object"),
        (httpx.Response(502, content=b"[" * 60_000), "no JSON object"),
        (httpx.Response(502, json={"error": "down"}), "Bad Gateway."),
        (httpx.Response(502, json={"message": "down"}), "Bad Gateway."),
        (httpx.Response(502, json={"error": {"code": 502}}), "502"),
        (httpx.Response(502, json={"error": {"message": ""}}), "502"),
        (httpx.Response(502, json={"error": {"message": None}}), "502"),
        (httpx.Response(599), "599"),
    ],
)
def test_an_error_that_is_not_from_cdf_is_one_short_line(
    sender: Sender, response: httpx.Response, words: str
) -> None:
    error = refused(sender, response)
    message = str(error)
    assert words in message
    assert str(response.status_code) in message
    assert len(message) < 500
    assert message.replace("\ufffd", "").isprintable()
    assert "None" not in message
    assert ".." not in message
    assert "<" not in message
    assert error.request_id is None
    assert "request id" not in message


@pytest.mark.parametrize(
    "said", [f"Unexpected value {SECRET}", json.dumps({"clientSecret": SECRET})], ids=["words", "body"]
)
def test_an_error_that_repeats_the_secret_is_shown_without_it(sender: Sender, said: str) -> None:
    session = calls.create_session(
        "p", client_id="the-client", client_secret=SECRET, what_for="run workflow 'w'"
    )
    error = refused(sender, envelope(400, said), session)
    assert SECRET not in str(error) + error.cdf_message + repr(error)


# -- answers that are not what the API promises ------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"", "JSON"),
        (b"<html>Sign in</html>", "JSON"),
        (json.dumps(EXECUTION).encode()[:-20], "JSON"),
        (b'"\xff', "JSON"),
        (b'"\xff"', "the answer"),
        (b"[]", "the answer"),
        (b"null", "the answer"),
        (b"{}", "id"),
        (json.dumps({**EXECUTION, "status": None}).encode(), "status"),
        (json.dumps({**EXECUTION, "id": 5}).encode(), "id"),
    ],
)
def test_an_answer_that_is_not_what_the_api_promises_is_named_as_that(
    sender: Sender, content: bytes, where: str
) -> None:
    network = Network(httpx.Response(202, content=content, headers={"x-request-id": "r-1"}))
    with pytest.raises(CdfAnswerError) as caught:
        sender.send(network, RUN)
    message = str(caught.value)
    for words in ("HTTP 202", "run the workflow", where, "[workflow 'pump' version '1', ", "r-1"):
        assert words in message
    assert message.isprintable()
    assert "pydantic" not in message


@pytest.mark.parametrize(
    "form", [str, str.upper, lambda said: said.encode().hex()], ids=["as it is", "upper", "hex"]
)
def test_a_request_id_that_repeats_a_secret_is_not_shown(sender: Sender, form: Any) -> None:
    error = refused(sender, envelope(400, **{"x-request-id": form(f"r-1 {SECRET}")}))
    assert form(SECRET) not in str(error) + str(error.request_id)


def test_a_session_without_a_nonce_does_not_show_its_answer(sender: Sender) -> None:
    session = calls.create_session(
        "p", client_id="the-client", client_secret=SECRET, what_for="run workflow 'w'"
    )
    answer = {"items": [{"nonce": ["n0nce"]}]}
    with pytest.raises(CdfAnswerError) as caught:
        sender.send(Network(httpx.Response(200, json=answer)), session)
    assert "n0nce" not in str(caught.value)


OTHER_ID = "aaaaaaaa-a17a-4102-910e-2c3591500cce"


@pytest.mark.parametrize(
    ("call", "answer", "other"),
    [
        (READ, {**EXECUTION, "id": OTHER_ID, "status": "COMPLETED"}, f"another execution, {OTHER_ID}"),
        (calls.cancel("p", EXECUTION_ID), {**EXECUTION, "id": OTHER_ID}, f"another execution, {OTHER_ID}"),
        (
            calls.retry("p", EXECUTION_ID, nonce="n"),
            {**EXECUTION, "id": OTHER_ID},
            f"another execution, {OTHER_ID}",
        ),
        (calls.update_task("p", TASK_ID, "FAILED"), {**TASK, "id": OTHER_ID}, f"another task, {OTHER_ID}"),
        (RUN, {**EXECUTION, "workflowExternalId": "valve"}, "version '1' of workflow 'valve'"),
        (RUN, {**EXECUTION, "version": "2"}, "version '2' of workflow 'pump'"),
        (
            calls.run("p", "pump", "1", nonce="n", metadata={calls.SUBMIT_ID: "ours"}),
            {**EXECUTION, "metadata": {calls.SUBMIT_ID: "theirs"}},
            f"another run, {EXECUTION_ID}",
        ),
    ],
    ids=["get", "cancel", "retry", "update", "run: workflow", "run: version", "run: theirs"],
)
def test_an_answer_about_something_else_is_none(
    sender: Sender, call: calls.Call[Any], answer: Any, other: str
) -> None:
    network = Network(httpx.Response(200, json=answer, headers={"x-request-id": "r-1"}))
    with pytest.raises(CdfAnswerError) as caught:
        sender.send(network, call, settings(retry_for=0))
    message = str(caught.value)
    assert message.startswith(
        f"CDF's answer is about something else: {other}. The request was to {call.purpose}."
    )
    assert "r-1" in message
    assert ("not known whether CDF did it" in message) is (not call.changes_nothing)


def test_a_read_that_is_answered_with_something_else_is_sent_again(sender: Sender, time: FakeTime) -> None:
    wrong, right = ({**EXECUTION, "id": id_} for id_ in (OTHER_ID, EXECUTION_ID))
    network = Network(httpx.Response(200, json=wrong), httpx.Response(200, json=right))
    assert sender.send(network, READ, settings(retry_for=60)).id == EXECUTION_ID


def test_ids_are_compared_as_the_ids_that_they_are(sender: Sender) -> None:
    network = Network(httpx.Response(200, json=EXECUTION))
    assert sender.send(network, calls.get_execution("p", EXECUTION_ID.upper())).id == EXECUTION_ID


# -- no answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), False),
        (httpx.ConnectError("[Errno -2] Name or service not known"), False),
        (httpx.ConnectTimeout(""), False),
        (httpx.PoolTimeout(""), False),
        (httpx.ReadTimeout(""), True),
        (httpx.WriteTimeout(""), True),
        (httpx.ReadError(""), True),
        (httpx.WriteError("[Errno 104] Connection reset by peer"), True),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), True),
    ],
    ids=repr,
)
def test_only_where_no_connection_was_made_it_is_certain_that_nothing_was_sent(
    sender: Sender, error: httpx.TransportError, sent: bool
) -> None:
    with pytest.raises(CdfUnreachableError) as caught:
        sender.send(Network(error), RUN)
    assert caught.value.sent is sent
    message = str(caught.value)
    assert ("Nothing was sent to CDF." in message) is not sent
    assert ("It is not known" in message) is sent
    for words in (
        "run the workflow",
        "[workflow 'pump' version '1', ",
        BASE_URL,
        type(error).__name__,
        str(error).rstrip("."),
    ):
        assert words in message
    assert ".." not in message


@pytest.mark.parametrize("error", [httpx.ReadTimeout(""), httpx.ConnectError("no")], ids=repr)
def test_a_read_that_got_no_answer_says_nothing_of_changes(sender: Sender, error: Exception) -> None:
    with pytest.raises(CdfUnreachableError) as caught:
        sender.send(Network(error), READ)
    assert f"). [execution {EXECUTION_ID}, " in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (envelope(400), "The request changed nothing in CDF."),
        (envelope(403), "The request changed nothing in CDF."),
        (envelope(429), "The request changed nothing in CDF."),
        (envelope(408), "It is not known whether CDF did it all the same."),
        (envelope(500), "It is not known whether CDF did it all the same."),
        (httpx.Response(202), "It is not known whether CDF did it all the same."),
        (httpx.ReadTimeout(""), "It is not known whether CDF did it all the same."),
        (httpx.ConnectError("no"), "Nothing was sent to CDF."),
    ],
    ids=repr,
)
def test_the_message_of_a_failed_write_says_what_state_cdf_is_in(
    sender: Sender, answer: Any, state: str
) -> None:
    with pytest.raises(CdfError) as caught:
        sender.send(Network(answer), RUN)
    assert f" {state} " in str(caught.value)


def never_end(request: Answering, time: FakeTime) -> None:
    """Begin an answer, and send no more of it until the time for the request is over."""
    time.seconds += 500
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    request.hang_up()


def drop(request: Answering, time: FakeTime) -> None:
    request.hang_up()


def truncate(request: Answering, time: FakeTime) -> None:
    request.reply(EXECUTION, promised_bytes=10_000)
    request.hang_up()


@pytest.mark.parametrize("fault", [never_end, drop, truncate])
def test_a_request_without_a_whole_answer_over_real_http_may_have_been_executed(
    sender: Sender, time: FakeTime, fault: Callable[[Answering, FakeTime], None]
) -> None:
    received: list[str] = []

    def answer(request: Answering) -> None:
        if request.path == "/token":
            request.reply({"access_token": "t"})
            return
        received.append(request.path)
        fault(request, time)

    with loopback_server(answer) as url, pytest.raises(CdfUnreachableError, match="not known") as caught:
        sender.send(None, RUN, settings(url, f"{url}/token"))
    assert caught.value.sent
    assert ("Timeout" in str(caught.value)) is (fault is never_end)
    assert received == ["/api/v1/projects/my%20project/workflows/pump/versions/1/run"]


def test_a_refused_connection_was_never_executed(sender: Sender) -> None:
    with (
        socket.socket() as unused,
        loopback_server(lambda request: request.reply({"access_token": "t"})) as url,
    ):
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(CdfUnreachableError, match="Nothing was sent to CDF") as caught:
            sender.send(None, RUN, settings(base_url=nobody, token_url=f"{url}/token"))
    assert not caught.value.sent
    assert nobody in str(caught.value)


def shown_by_tools(error: BaseException) -> str:
    """The local variables of all frames but the test's own, of an error and of what it came from."""
    shown = []
    one: BaseException | None = error
    while one is not None:
        trace = one.__traceback__
        while trace is not None:
            if __file__ != trace.tb_frame.f_code.co_filename:
                shown += [f"{name}={value!r}" for name, value in trace.tb_frame.f_locals.items()]
            trace = trace.tb_next
        one = one.__cause__ or one.__context__
    return " ".join(shown)


TOLD = {
    "no answer": httpx.ReadTimeout(""),
    "refused": envelope(400, f"no {SECRET} n0nce token-1"),
    "unreadable": httpx.Response(200, json={"id": [SECRET, "n0nce", "token-1"]}),
    "something else": httpx.Response(
        200, json={**EXECUTION, "workflowExternalId": f"{SECRET} n0nce token-1"}
    ),
    "a bug": AssertionError(SECRET, "n0nce", "token-1"),
}


@pytest.mark.parametrize("answer", TOLD.values(), ids=TOLD.keys())
def test_an_error_leaves_without_the_requests_and_answers_that_it_came_from(
    sender: Sender, answer: Any
) -> None:
    with pytest.raises(CdfError) as caught:
        sender.send(Network(answer), RUN)
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    shown = shown_by_tools(error) + str(error) + repr(error) + repr(vars(error))
    for secret in (SECRET, "n0nce", "token-1"):
        assert secret not in shown


@pytest.mark.parametrize(
    "error", [AssertionError("x"), OverflowError(), RecursionError(), ValueError()], ids=repr
)
def test_whatever_goes_wrong_below_is_an_error_of_this_package(sender: Sender, error: Exception) -> None:
    with pytest.raises(CdfUnreachableError, match=type(error).__name__) as caught:
        sender.send(Network(error), RUN)
    assert caught.value.sent, "it may have been"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_is_to_end_the_process_or_the_task_passes_through(error: type[BaseException]) -> None:
    def end(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(error):
        Sender(is_async=False).send(Network(end), RUN)


def test_an_error_of_a_conversation_leaves_without_its_frames(sender: Sender) -> None:
    def conversation() -> Any:
        nonce = "the-nonce"
        yield calls.run("p", "pump", "1", nonce=nonce)

    with pytest.raises(CdfError) as caught:
        sender.perform(Network(envelope(403, "Forbidden")), conversation())
    assert "conversation" not in [entry.name for entry in caught.traceback]


@pytest.mark.parametrize("at", ["login", "CDF"])
def test_what_is_no_http_is_not_quoted(sender: Sender, at: str) -> None:
    """It may be anything, such as a token that this side has never seen."""
    error = httpx.RemoteProtocolError("""illegal status line: bytearray(b'{"access_token": "unheard-of"}')""")
    network = Network(login=error) if at == "login" else Network(error)
    with pytest.raises(CdfUnreachableError, match="RemoteProtocolError: illegal status line") as caught:
        sender.send(network, RUN)
    assert "unheard-of" not in str(caught.value)


# -- lists ------------------------------------------------------------------------------------------------


def page(*ids: str, cursor: str | None = None) -> httpx.Response:
    items = [{**EXECUTION, "id": one} for one in ids]
    return httpx.Response(200, json={"items": items, **({"nextCursor": cursor} if cursor else {})})


def page_at(cursor: str | None) -> Any:
    return calls.list_executions("p", status="running", cursor=cursor)


def test_a_list_goes_through_all_pages_with_the_same_filter(sender: Sender) -> None:
    network = Network(page("a", "b", cursor="c1"), page(cursor="c2"), page("c"))
    assert [one.id for one in sender.use(network, "executions", page_at)] == ["a", "b", "c"]
    assert [body.get("cursor") for body in network.bodies] == [None, "c1", "c2"]
    assert {json.dumps(body["filter"]) for body in network.bodies} == {'{"status": ["RUNNING"]}'}


def test_an_empty_list_is_empty(sender: Sender) -> None:
    assert sender.use(Network(page()), "executions", page_at) == []


@pytest.mark.parametrize("cursors", [["a", "a"], ["a", "b", "a"], ["a", "b", "c", "b"]], ids="".join)
def test_a_list_that_leads_back_to_where_it_was_is_not_followed(sender: Sender, cursors: list[str]) -> None:
    network = Network(*(page("x", cursor=cursor) for cursor in cursors))
    with pytest.raises(CdfAnswerError, match="CDF's list has no end"):
        sender.use(network, "executions", page_at)
    assert len(network.requests) == len(cursors)


def endless(*ids: str) -> Network:
    """A list that has another page after each one."""
    cursors = (f"c{number}" for number in itertools.count())
    return Network(*[lambda _: page(*ids, cursor=next(cursors))] * 100)


def test_ten_empty_pages_in_a_row_are_no_list(sender: Sender) -> None:
    network = endless()
    with pytest.raises(CdfAnswerError, match=r"CDF's list has no end: 10 empty pages in a row"):
        sender.use(network, "executions", page_at)
    assert len(network.requests) == 10


def test_empty_pages_between_others_are_followed(sender: Sender) -> None:
    nine = [page(cursor=f"a{number}") for number in range(9)]
    more = [page(cursor=f"b{number}") for number in range(9)]
    network = Network(*nine, page("a", cursor="c"), *more, page("b"))
    assert [one.id for one in sender.use(network, "executions", page_at)] == ["a", "b"]


def test_a_list_that_is_kept_as_a_whole_has_a_limit() -> None:
    one, other = (
        ExecutionPage.model_validate({"items": [{**EXECUTION, "id": "x"}] * 4, "nextCursor": cursor})
        for cursor in "ab"
    )
    ends = pages.Pages(most=5)
    assert len(list(ends.items_of(one))) == 4
    with pytest.raises(CdfAnswerError, match="has no end: after 8 executions"):
        list(ends.items_of(other))


def test_a_list_that_goes_on_and_on_is_given_up(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_PAGES", 20)
    network = endless("a")
    with pytest.raises(CdfAnswerError, match="CDF's list has no end: after 20 pages"):
        sender.use(network, "executions", page_at)
    assert len(network.requests) == 20


@pytest.mark.parametrize("cursor", [None, ""])
def test_a_list_ends_at_a_cursor_that_is_null_or_empty(sender: Sender, cursor: str | None) -> None:
    network = Network(httpx.Response(200, json={"items": [EXECUTION], "nextCursor": cursor}))
    assert len(sender.use(network, "executions", page_at)) == 1


def test_an_error_on_a_later_page_is_raised(sender: Sender) -> None:
    with pytest.raises(CdfApiError, match="list executions"):
        sender.use(Network(page("a", cursor="c"), envelope(503)), "executions", page_at)


def test_a_page_is_read_only_when_it_is_needed() -> None:
    network = Network(page("a", cursor="c"))
    with wired(client.CdfClient(settings()), httpx.MockTransport(network)) as cdf:
        executions = cdf.executions(page_at)
        assert network.requests == []
        assert next(executions).id == "a"
    assert len(network.requests) == 1


# -- conversations ----------------------------------------------------------------------------------------


def test_a_conversation_is_sent_answers_and_thrown_errors(sender: Sender) -> None:
    def conversation() -> Any:
        session = yield calls.create_session(
            "p", client_id="c", client_secret="s", what_for="run workflow 'w'"
        )
        try:
            yield RUN
        except CdfApiError as error:
            execution = yield READ
            return session.items[0].nonce, error.code, execution.id
        raise AssertionError("no error was thrown")

    network = Network(
        httpx.Response(200, json=SESSION), envelope(503), httpx.Response(200, json={**EXECUTION})
    )
    assert sender.perform(network, conversation()) == ("the-nonce", 503, EXECUTION_ID)


def test_an_error_that_a_conversation_does_not_catch_is_raised(sender: Sender) -> None:
    def conversation() -> Any:
        yield RUN

    with pytest.raises(CdfApiError, match="HTTP 503"):
        sender.perform(Network(envelope(503)), conversation())


def test_an_error_of_the_conversation_itself_is_raised(sender: Sender) -> None:
    def conversation() -> Any:
        yield READ
        raise CdfInputError("Wrong.")

    with pytest.raises(CdfInputError):
        sender.perform(Network(httpx.Response(200, json=EXECUTION)), conversation())


def test_nothing_for_this_machine_passes_a_proxy(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain http is permitted to loopback only, and a proxy would see the secret in clear text."""
    with socket.create_server(("127.0.0.1", 0)) as proxy, socket.create_server(("127.0.0.1", 0)) as cdf:
        proxy.settimeout(0.2)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        url = f"http://127.0.0.1:{cdf.getsockname()[1]}"
        cdf.close()  # nobody answers there, which is all the same to this test
        with pytest.raises(CdfUnreachableError):
            sender.send(None, calls.inspect_token(), settings(base_url=url, token_url=f"{url}/token"))
        with pytest.raises(TimeoutError):
            proxy.accept()


# -- what CDF says about an execution -----------------------------------------------------------------------


def answers(**fields: Any) -> httpx.Response:
    return httpx.Response(200, json={**EXECUTION, **fields})


def test_what_cdf_says_about_an_execution_holds_no_secret(sender: Sender) -> None:
    encoded = base64.b64encode(SECRET.encode()).decode()
    task = {**TASK, "status": f"of {SECRET}", "reasonForIncompletion": f"no {encoded}"}
    said = {"status": f"is {SECRET}", "version": SECRET, "workflowExternalId": f"pump {SECRET}"}
    reason = f"Authorization: Bearer token-1 {SECRET}"
    network = Network(answers(**said, reasonForIncompletion=reason, executedTasks=[task]))
    read = sender.send(network, READ)
    assert read.reason_for_incompletion == "Authorization: Bearer *** ***"
    assert (read.version, read.workflow_external_id) == ("***", "pump ***")
    assert read.executed_tasks[0].reason_for_incompletion == "(left out, because it repeats a secret)"
    left_out = "(LEFT OUT, BECAUSE IT REPEATS A SECRET)"  # a status is read in upper case
    assert (read.status, read.executed_tasks[0].status) == (left_out, left_out)
    assert read.executed_tasks[0].id == TASK_ID


@pytest.mark.parametrize("of", ["poll", "read"])
def test_what_cdf_says_about_an_execution_is_cut_and_one_line(sender: Sender, of: str) -> None:
    long = "x\n\x1b[31m" * 200_000
    task = {**TASK, "reasonForIncompletion": long}
    network = Network(answers(workflowExternalId=long, reasonForIncompletion=long, executedTasks=[task]))
    call = READ if of == "read" else calls.poll_execution("my project", EXECUTION_ID, ExecutionPolls())
    read = sender.send(network, call)
    said = [
        read.workflow_external_id,
        read.reason_for_incompletion,
        read.executed_tasks[0].reason_for_incompletion,
    ]
    assert all(len(text) <= 500 and text.isprintable() for text in said)


def test_what_is_no_secret_and_not_too_long_is_kept_as_it_is(sender: Sender) -> None:
    said = {"workflowExternalId": "two  blanks", "version": " 1 ", "reasonForIncompletion": "It is off."}
    read = sender.send(Network(answers(**said, executedTasks=[TASK])), READ)
    assert (read.workflow_external_id, read.version) == ("two  blanks", " 1 ")
    assert read.reason_for_incompletion == "It is off."


def test_the_same_words_are_searched_once(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    # A wait reads them at each poll, and a search takes milliseconds of the event loop.
    searched: list[str] = []
    monkeypatch.setattr(sender_module, "without_secrets", lambda text, _: searched.append(text) or text)
    task = {**TASK, "reasonForIncompletion": "off"}
    tasks = [{**task, "id": str(number)} for number in range(5)]
    sender.send(Network(answers(executedTasks=tasks)), READ)
    assert sorted(searched) == sorted(["1", "off", "pump", TASK["externalId"]])


def test_a_tokens_projects_are_named_without_secrets_and_not_all(sender: Sender) -> None:
    projects = [{"projectUrlName": f"q{number} {SECRET}"} for number in range(50)]

    def forbidden(request: httpx.Request) -> httpx.Response:
        if request.url.host == httpx.URL(settings().credentials.token_url).host:  # type: ignore[attr-defined]
            return httpx.Response(200, json={"access_token": "token-1", "expires_in": 3600})
        is_inspection = request.url.path.endswith("/inspect")
        return httpx.Response(200, json={"projects": projects}) if is_inspection else envelope(403)

    with pytest.raises(CdfApiError, match=r"'q0 \*\*\*'.*'q9 \*\*\*' and 40 more") as caught:
        sender.send(forbidden, READ)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


def test_what_a_token_may_do_is_asked_within_the_time_of_the_call(sender: Sender, time: FakeTime) -> None:
    asked: list[float] = []

    def forbidden(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/oauth2/token"):
            return httpx.Response(200, json={"access_token": "token-1", "expires_in": 3600})
        if request.url.path.endswith("/inspect"):
            asked.append(request.extensions["timeout"]["read"])
        time.seconds += 0.75
        return envelope(403)

    transport = httpx.MockTransport(forbidden)

    def ask(within: float | None) -> Any:
        if sender.is_async:
            return asyncio.run(wired(AsyncCdfClient(settings()), transport).send(READ, within=within))
        return wired(CdfClient(settings()), transport).send(READ, within=within)

    for within in (1.0, None):
        with pytest.raises(CdfApiError, match="HTTP 403"):
            ask(within)
    assert asked == [0.25, sender_module.INSPECT_WITHIN]
