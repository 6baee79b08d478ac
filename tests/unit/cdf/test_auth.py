"""Logging in: how often, with what, and what is said when it does not work."""

from __future__ import annotations

import asyncio
import json
import operator
import re
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from secrets import token_urlsafe
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus

import httpx
import pytest
from cdf_support import (
    BASE_URL,
    SECRET,
    SESSION,
    TASK_ID,
    TOKEN_URL,
    Answering,
    FakeTime,
    Network,
    Sender,
    loopback_server,
    settings,
    wired,
)

from airflow_provider_cdf.cdf import auth as auth_module
from airflow_provider_cdf.cdf import calls
from airflow_provider_cdf.cdf import client as client_module
from airflow_provider_cdf.cdf.auth import Login, shared_login
from airflow_provider_cdf.cdf.client import AsyncCdfClient, CdfClient
from airflow_provider_cdf.cdf.errors import CdfApiError, CdfError, CdfLoginError, CdfUnreachableError
from airflow_provider_cdf.cdf.logins import base
from airflow_provider_cdf.cdf.logins.clients import ClientCredentials
from airflow_provider_cdf.cdf.retry import is_transient, was_not_executed
from airflow_provider_cdf.cdf.settings import Settings

CREDENTIALS = ClientCredentials(TOKEN_URL, "the-client", SECRET, scope="a b")
INSPECTION = {"subject": "s", "projects": [], "capabilities": []}


def login_of(credentials: ClientCredentials, ca_bundle: str | None = None) -> Login:
    return shared_login(replace(settings(), credentials=credentials, ca_bundle=ca_bundle))


def login(**answer: Any) -> Callable[[httpx.Request], httpx.Response]:
    """An identity provider's answer, made anew for each request."""
    content = json.dumps({"access_token": "the-token", **answer})
    return lambda request: httpx.Response(200, content=content)


def inspected(*_: Any) -> httpx.Response:
    return httpx.Response(200, json=INSPECTION)


def inspect(sender: Sender, network: Network, times: int = 1) -> None:
    for _ in range(times):
        network.answers.append(inspected)
        sender.send(network, calls.inspect_token())


# -- what is sent, and how often --------------------------------------------------------------------------


def test_the_token_request_is_a_form_with_the_client_and_its_secret(sender: Sender) -> None:
    network = Network()
    inspect(sender, network)
    (request,) = network.token_requests
    assert (request.method, str(request.url)) == ("POST", TOKEN_URL)
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "Authorization" not in request.headers
    assert parse_qs(request.content.decode(), strict_parsing=True) == {
        "grant_type": ["client_credentials"],
        "client_id": ["the-client"],
        "client_secret": [SECRET],
        "scope": ["a b"],
    }


@pytest.mark.parametrize("given", [{}, {"scope": "s"}, {"audience": "a"}, {"scope": "s", "audience": "a"}])
def test_scope_and_audience_are_sent_where_there_are_any(given: dict[str, str]) -> None:
    network = Network(inspected)
    config = Settings(BASE_URL, "p", ClientCredentials(TOKEN_URL, "c", "s", **given))
    Sender(is_async=False).send(network, calls.inspect_token(), config)
    form = parse_qs(network.token_requests[0].content.decode(), strict_parsing=True)
    assert {name: form[name][0] for name in form if name in ("scope", "audience")} == given


def test_the_token_goes_with_each_request_and_is_fetched_once(sender: Sender) -> None:
    network = Network()
    inspect(sender, network, times=3)
    assert [request.headers["Authorization"] for request in network.requests] == ["Bearer token-1"] * 3
    assert len(network.token_requests) == 1


def test_login_and_request_share_the_time_for_a_request(sender: Sender, time: FakeTime) -> None:
    def slow(_: httpx.Request) -> httpx.Response:
        time.seconds += 3
        return httpx.Response(200, json={"access_token": "the-token"})

    network = Network(inspected, login=slow)
    sender.send(network, calls.inspect_token(), settings(request_timeout=10))
    timeouts = [one.extensions["timeout"]["read"] for one in (*network.token_requests, *network.requests)]
    assert timeouts == [10, 7]


@pytest.mark.parametrize(
    ("answer", "still_used_after", "renewed_after"),
    [
        ({"expires_in": 3600}, 3569, 3571),
        ({"expires_in": "3600"}, 3569, 3571),
        ({"expires_in": 3600.0}, 3569, 3571),
        ({"expires_in": 61}, 30.4, 31.1),
        ({"expires_in": 10}, 4, 10),
        ({"expires_in": 1}, 2.4, 2.6),
        ({"expires_in": 1e-9}, 2.4, 2.6),
    ],
    ids=str,
)
def test_a_token_is_renewed_30_s_before_its_end(
    sender: Sender, time: FakeTime, answer: dict[str, Any], still_used_after: float, renewed_after: float
) -> None:
    network = Network(login=login(**answer))
    inspect(sender, network)
    start = time.seconds
    time.seconds = start + still_used_after
    inspect(sender, network)
    assert len(network.token_requests) == 1
    time.seconds = start + renewed_after
    inspect(sender, network)
    assert len(network.token_requests) == 2


NONSENSE = ["soon", [], {}, 0, "0", -5, float("nan"), float("inf"), "inf", "9" * 400]


@pytest.mark.parametrize("expires_in", [None, *NONSENSE], ids=repr)
def test_a_token_of_unknown_life_is_used_again_but_not_for_ever(
    sender: Sender, time: FakeTime, expires_in: Any
) -> None:
    network = Network(login=login(expires_in=expires_in) if expires_in is not None else login())
    inspect(sender, network, times=2)
    assert len(network.token_requests) == 1
    time.seconds += 3600
    inspect(sender, network)
    assert len(network.token_requests) == 2


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_life_of_hundreds_of_digits_breaks_nothing(sender: Sender, digits: int) -> None:
    content = b'{"access_token": "the-token", "expires_in": ' + b"9" * digits + b"}"
    network = Network(login=lambda _: httpx.Response(200, content=content))
    if digits == 400:
        inspect(sender, network, times=2)
    else:  # more than Python reads
        with pytest.raises(CdfLoginError):
            sender.send(network, calls.inspect_token())
    assert len(network.token_requests) == 1


@pytest.mark.parametrize(
    "content", [b"[" * 10_000, b'{"a":' * 10_000, b'{"access_token": ' + b"[" * 10_000], ids=len
)
def test_a_token_that_is_nested_too_deep_is_no_token(sender: Sender, content: bytes) -> None:
    with pytest.raises(CdfLoginError):
        sender.send(Network(login=httpx.Response(200, content=content)), calls.inspect_token())


def test_a_token_of_more_than_64_kb_is_not_read(sender: Sender) -> None:
    big = httpx.Response(200, json={"access_token": "t" * 65_536})
    with pytest.raises(CdfLoginError, match="more than 65536 bytes"):
        sender.send(Network(login=big), calls.inspect_token())


@pytest.mark.parametrize("expires_in", [1, 0.5, 1e-9])
def test_a_short_lived_token_is_used_for_seconds_instead_of_fetched_for_ever(
    sender: Sender, time: FakeTime, expires_in: Any
) -> None:
    network = Network(login=login(expires_in=expires_in))
    inspect(sender, network, times=2)
    assert len(network.token_requests) == 1
    time.seconds += 3
    inspect(sender, network)
    assert len(network.token_requests) == 2


def test_a_token_is_told_to_whoever_keeps_it_out_of_logs_before_it_is_used(sender: Sender) -> None:
    told: list[str] = []
    network = Network(lambda _: httpx.Response(200, json={**INSPECTION, "subject": told[0]}))
    answer = sender.send(network, calls.inspect_token(), settings(on_token=told.append))
    assert answer.subject == "token-1"
    assert told == ["token-1"]


def test_of_a_long_token_the_end_is_kept_out_of_logs(sender: Sender) -> None:
    """Airflow's masker makes one pattern of all that it was ever told: whole tokens hold it up."""
    token = f"{token_urlsafe(40)}.{token_urlsafe(900)}.{token_urlsafe(256)}"
    for issued in (token, f"eyJ{token}"):
        told: list[str] = []
        network = Network(inspected, login=login(access_token=issued))
        config = settings(token_url=f"{TOKEN_URL}/{len(issued)}", on_token=told.append)
        sender.send(network, calls.inspect_token(), config)
        (said,) = told
        assert issued.endswith(said)
        assert len(said) == 43  # 256 bits of it


def test_airflow_is_told_so_many_tokens_that_it_does_not_slow_down(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MOST_MASKED", 2)
    told: list[str] = []
    for number in range(4):
        network = Network(inspected, login=login(access_token=f"token-{number}"))
        config = settings(token_url=f"{TOKEN_URL}/of-many/{number}", on_token=told.append)
        sender.send(network, calls.inspect_token(), config)
    assert told == ["token-0", "token-1"]


def test_all_clients_of_a_process_share_the_login_of_the_same_credentials() -> None:
    assert login_of(CREDENTIALS) is login_of(ClientCredentials(TOKEN_URL, "the-client", SECRET, "a b"))
    others = [
        ClientCredentials(TOKEN_URL, "the-client", "new secret", "a b"),
        ClientCredentials(TOKEN_URL, "the-client", SECRET, "a"),
        ClientCredentials(TOKEN_URL, "the-client", SECRET, "a b", "audience"),
        ClientCredentials(TOKEN_URL, "other", SECRET, "a b"),
        ClientCredentials("https://other.example.com", "the-client", SECRET, "a b"),
    ]
    assert len({id(login_of(one)) for one in [CREDENTIALS, *others]}) == 6
    assert login_of(CREDENTIALS, ca_bundle="/ca.pem") is not login_of(CREDENTIALS)


def test_a_connection_with_a_wrong_ca_bundle_leaves_another_one_of_the_same_client_alone(
    sender: Sender, time: FakeTime
) -> None:
    wrong = Network(login=httpx.ConnectError("certificate verify failed"))
    with pytest.raises(CdfUnreachableError, match="certificate verify failed"):
        sender.send(wrong, calls.inspect_token(), settings(ca_bundle="/of-another-plant.pem"))
    right = Network()
    inspect(sender, right)
    assert len(right.token_requests) == 1


def test_a_process_keeps_the_logins_that_it_uses(sender: Sender, time: FakeTime) -> None:
    """Each press of Test, and each secret that was renewed, would stay in memory otherwise."""
    network = Network()
    for number in range(2 * auth_module.MOST_LOGINS):
        time.seconds += 1
        inspect(sender, network)  # the one that is in use all the time
        network.answers.append(inspected)
        old = replace(settings().credentials, client_secret=f"secret-{number}")
        sender.send(network, calls.inspect_token(), replace(settings(), credentials=old))
    kept = {login.credentials.secrets[0] for login in auth_module._shared.values()}
    assert len(kept) == len(auth_module._shared) == auth_module.MOST_LOGINS
    assert SECRET in kept
    assert len(network.token_requests) == 1 + 2 * auth_module.MOST_LOGINS


def test_secret_and_token_are_in_no_repr(sender: Sender) -> None:
    network = Network(login=login(expires_in=3600))
    inspect(sender, network)
    flow = shared_login(settings())
    shown = repr(settings()) + repr(flow) + repr(flow.credentials) + repr(flow._token)
    assert SECRET not in shown
    assert "the-token" not in shown


# -- 401 --------------------------------------------------------------------------------------------------


def test_a_401_is_tried_once_more_with_a_new_token(sender: Sender) -> None:
    network = Network(httpx.Response(401, json={}), inspected)
    sender.send(network, calls.inspect_token())
    assert [one.headers["Authorization"] for one in network.requests] == ["Bearer token-1", "Bearer token-2"]


def test_a_body_is_sent_again_after_a_401(sender: Sender) -> None:
    network = Network(httpx.Response(401, json={}), httpx.Response(200, json=SESSION))
    sender.send(
        network, calls.create_session("p", client_id="c", client_secret="s", what_for="run workflow 'w'")
    )
    assert network.requests[0].content == network.requests[1].content
    assert network.bodies[0] == {"items": [{"clientId": "c", "clientSecret": "s"}]}


def test_a_second_401_gives_up(sender: Sender) -> None:
    network = Network(httpx.Response(401, json={}), httpx.Response(401, json={}))
    with pytest.raises(CdfApiError) as caught:
        sender.send(network, calls.inspect_token())
    assert caught.value.code == 401
    assert (len(network.requests), len(network.token_requests)) == (2, 2)


def test_a_token_that_was_refused_is_not_used_again(sender: Sender) -> None:
    network = Network(httpx.Response(401, json={}), inspected, inspected)
    sender.send(network, calls.inspect_token())
    sender.send(network, calls.inspect_token())
    assert [one.headers["Authorization"][-1] for one in network.requests] == ["1", "2", "2"]


def test_a_401_that_somebody_else_has_settled_costs_no_other_token() -> None:
    network = Network()
    with wired(CdfClient(settings()), httpx.MockTransport(network)) as client:

        def settled_meanwhile(request: httpx.Request) -> httpx.Response:
            network.answers[:0] = [httpx.Response(401), inspected]
            client.send(calls.inspect_token())
            return httpx.Response(401)

        network.answers = [settled_meanwhile, inspected]
        client.send(calls.inspect_token())
    assert len(network.token_requests) == 2


def test_a_client_without_access_does_not_log_in_for_each_request(sender: Sender, time: FakeTime) -> None:
    network = Network(*[httpx.Response(401, json={})] * 100)

    def ask() -> None:
        with pytest.raises(CdfApiError, match="HTTP 401"):
            sender.send(network, calls.inspect_token())

    for _ in range(10):
        ask()
    assert (len(network.requests), len(network.token_requests)) == (11, 2)
    time.seconds += auth_module.TRUST_A_REPLACEMENT
    ask()
    assert len(network.token_requests) == 3


LOST_SECRET = httpx.Response(401, json={"error": "invalid_client", "error_description": "Unknown secret."})
UPDATE = calls.update_task("my project", TASK_ID, "COMPLETED")


@pytest.mark.parametrize(
    ("login", "words", "may_succeed_later"),
    [
        (LOST_SECRET, "invalid_client: Unknown secret", False),
        (httpx.Response(503), "HTTP 503", True),
        (httpx.ConnectError("refused"), "no answer from the token endpoint at idp.example.com", True),
        (httpx.ReadTimeout(""), "no answer from the token endpoint at idp.example.com", True),
    ],
    ids=["refused", "down", "unreachable", "slow"],
)
def test_a_401_that_no_other_token_follows_is_what_is_told(
    sender: Sender, login: Any, words: str, may_succeed_later: bool
) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        network.login = login
        return httpx.Response(401, json={"error": {"code": 401, "message": "Unauthorized"}})

    network = Network(refuse)
    with pytest.raises(CdfApiError) as caught:
        sender.send(network, UPDATE)
    error = caught.value
    # CDF has got the request: it may have been the second copy of one that was carried out.
    assert (error.code, was_not_executed(error)) == (401, False)
    assert "Nothing was sent" not in str(error)
    assert words in str(error)
    assert str(error).startswith("CDF refused to set the task to COMPLETED (HTTP 401): Unauthorized. ")
    assert "Look at Airflow connection 'cdf_default'." in str(error)
    assert is_transient(error) is may_succeed_later


def test_a_401_after_which_cdf_is_not_reached_any_more_is_what_is_told(
    sender: Sender, time: FakeTime
) -> None:
    refusal = httpx.Response(401, json={"error": {"code": 401, "message": "Unauthorized"}})
    with pytest.raises(CdfApiError, match=r"Unauthorized\..*ConnectError: refused") as caught:
        sender.send(Network(refusal, httpx.ConnectError("refused")), UPDATE)
    assert caught.value.code == 401
    assert is_transient(caught.value)
    time.seconds += auth_module.TRUST_A_REPLACEMENT
    with pytest.raises(CdfUnreachableError) as unclear:
        sender.send(Network(refusal, httpx.ReadError("reset")), UPDATE)
    assert unclear.value.sent


def test_other_errors_of_cdf_fetch_no_new_token(sender: Sender) -> None:
    network = Network(httpx.Response(403, json={}))
    with pytest.raises(CdfApiError):
        sender.send(network, calls.inspect_token())
    assert len(network.token_requests) == 1


# -- answers of the token endpoint that are no token -------------------------------------------------------

ENTRA = (
    "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1\r\nCorrelation ID: 2\r\n"
    "Timestamp: 2026-11-23 00:00:00Z"
)


@dataclass
class Refusal:
    answer: httpx.Response | Exception
    words: tuple[str, ...]
    error: type[CdfError] = CdfLoginError


REFUSALS = {
    "400 JSON": Refusal(
        httpx.Response(400, json={"error": "invalid_scope", "error_description": "Unknown scope."}),
        ("400", "invalid_scope", "Unknown scope", "the-client"),
    ),
    "401 JSON": Refusal(
        httpx.Response(401, json={"error": "invalid_client", "error_description": ENTRA}),
        ("401", "invalid_client", "AADSTS7000215", "the-client"),
    ),
    "401 that repeats the secret": Refusal(
        httpx.Response(401, json={"error": "invalid_client", "error_description": f"not {SECRET}"}),
        ("401", "invalid_client"),
    ),
    "401 that repeats the form": Refusal(
        httpx.Response(
            401, json={"error": "invalid", "error_description": f"client_secret={quote_plus(SECRET)}"}
        ),
        ("401",),
    ),
    "401 without words": Refusal(httpx.Response(401, json={}), ("401", "the-client")),
    "401 that repeats the secret packed": Refusal(
        httpx.Response(401, json={"error": "x", "error_description": b64encode(SECRET.encode()).decode()}),
        ("401", "left out"),
    ),
    "HTML 200": Refusal(
        httpx.Response(200, html="<html>Sign in</html>"), ("200", "an HTML page", "Is its URL right?")
    ),
    "HTML 500": Refusal(httpx.Response(500, html="<html>Oops</html>"), ("500",)),
    "empty 503": Refusal(httpx.Response(503), ("503",)),
    "no access_token": Refusal(httpx.Response(200, json={"expires_in": 1}), ("200", "access_token")),
    # It would come back in the message of the HTTP library.
    "unusable access_token": Refusal(
        httpx.Response(200, json={"access_token": "the-token\n"}), ("access_token that cannot be sent",)
    ),
    "an error with HTTP 200": Refusal(
        httpx.Response(200, json={"error": "invalid_client", "error_description": f"Not {SECRET}."}),
        ("HTTP 200", "invalid_client: Not ***.", "does not accept the client"),
    ),
    "null access_token": Refusal(httpx.Response(200, json={"access_token": None}), ("access_token",)),
    "a list": Refusal(httpx.Response(200, json=["token"]), ("200",)),
    "no UTF-8": Refusal(httpx.Response(200, content=b'{"access_token": "\xff"}'), ("cannot be sent",)),
    "redirect": Refusal(httpx.Response(302, headers={"Location": "https://evil.example.com/"}), ("302",)),
    "redirect that keeps the body": Refusal(
        httpx.Response(307, headers={"Location": "https://evil.example.com/"}, json={}), ("307",)
    ),
    "refused": Refusal(
        httpx.ConnectError("[Errno 111] Connection refused"), ("refused",), CdfUnreachableError
    ),
    "timeout": Refusal(httpx.ReadTimeout(""), ("ReadTimeout",), CdfUnreachableError),
    "dropped": Refusal(
        httpx.RemoteProtocolError("Server disconnected"), ("disconnected",), CdfUnreachableError
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_login_that_does_not_work_ends_in_one_clear_sentence(sender: Sender, refusal: Refusal) -> None:
    network = Network(login=refusal.answer)
    with pytest.raises(refusal.error) as caught:
        sender.send(network, calls.inspect_token())
    message = str(caught.value)
    assert httpx.URL(TOKEN_URL).host in message
    for word in refusal.words:
        assert word in message
    for secret in (SECRET, quote(SECRET, safe=""), quote_plus(SECRET)):
        assert secret not in message + repr(caught.value)
    assert message.isprintable(), "more than one line"
    assert ".." not in message
    assert (len(network.token_requests), len(network.requests)) == (1, 0)
    if isinstance(caught.value, CdfUnreachableError):
        assert caught.value.sent is False


FAILURES = {
    "refused": httpx.Response(401, json={"error": "invalid_client"}),
    "down": httpx.Response(503),
    "unreachable": httpx.ConnectError("refused"),
    "reset": httpx.ReadError("reset"),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_a_login_that_did_not_work_is_not_tried_again_for_a_while(
    sender: Sender, time: FakeTime, failure: httpx.Response | Exception
) -> None:
    """By nobody: 500 triggers with an expired secret would lock the client out."""
    network = Network(login=failure)
    news = set()
    for pause in (2, 4, 8, 16, 32, 60, 60):
        before = len(network.token_requests)
        start = time.seconds
        messages = []
        for left in (pause, pause / 2, 0.1):
            time.seconds = start + pause - left
            with pytest.raises(CdfError) as caught:
                sender.send(network, calls.inspect_token())
            messages.append(str(caught.value))
            assert caught.value.retry_after == pytest.approx(left)
        assert len(network.token_requests) == before + 1
        time.seconds += 0.2
        news.add(messages[0])
        assert "before" not in messages[0]
        # Later ones are told that it is old, and for how long nothing is asked.
        assert messages[1] == messages[2]
        old = r"hat was at (\d\d):(\d\d):(\d\d) UTC, and no login is tried before (\d\d):(\d\d):(\d\d) UTC"
        (times,) = re.findall(old, messages[1])
        said, again = (sum(map(operator.mul, map(int, one), (3600, 60, 1))) for one in (times[:3], times[3:]))
        assert (again - said) % 86_400 == pytest.approx(pause, abs=1)
    assert len(news) == 1
    network.login = None
    inspect(sender, network)
    network.login = failure
    shared_login(settings())._token = None
    with pytest.raises(CdfError) as caught:
        sender.send(network, calls.inspect_token())
    assert caught.value.retry_after == 2, "the next failure begins anew"


@pytest.mark.parametrize(("asked_for", "obeyed"), [("17", 17), ("1", 2), ("99999999", 300)])
def test_a_token_endpoint_says_how_long_it_is_left_alone(
    sender: Sender, time: FakeTime, asked_for: str, obeyed: float
) -> None:
    network = Network(login=httpx.Response(429, headers={"Retry-After": asked_for}, json={"error": "busy"}))
    for _ in range(3):
        with pytest.raises(CdfLoginError) as caught:
            sender.send(network, calls.inspect_token())
        assert caught.value.retry_after == obeyed
    time.seconds += obeyed
    network.login = None
    inspect(sender, network)
    assert len(network.token_requests) == 2


def test_a_login_that_took_longer_than_its_request_had_is_no_failure_of_the_next_one(sender: Sender) -> None:
    network = Network(login=httpx.ReadTimeout(""))
    with pytest.raises(CdfUnreachableError):
        sender.send(network, calls.inspect_token())
    network.login = None
    inspect(sender, network)
    assert len(network.token_requests) == 2


def test_an_error_while_a_token_is_kept_out_of_logs_is_one_of_ours(sender: Sender) -> None:
    def fail(token: str) -> None:
        raise OSError(f"no supervisor for {token}")

    with pytest.raises(CdfUnreachableError, match="unexpected OSError") as caught:
        sender.send(Network(), calls.inspect_token(), settings(on_token=fail))
    assert "token-1" not in str(caught.value)


def test_a_token_endpoint_that_nobody_listens_at_is_named(sender: Sender) -> None:
    with loopback_server(lambda request: request.reply({})) as url:
        pass
    with pytest.raises(CdfUnreachableError) as caught:
        sender.send(None, calls.inspect_token(), settings(base_url=url, token_url=f"{url}/token"))
    assert url.removeprefix("http://") in str(caught.value)
    assert "token endpoint" in str(caught.value)
    assert not caught.value.sent


@pytest.mark.parametrize(
    "token_url",
    [
        "https://idp.example.com:443/token",
        "https://idp.example.com/a token",
        "https://idp.example.com/ü",
        "https://idp.example.com/a/../token",
        "https://idp.example.com",
    ],
)
def test_the_token_endpoint_is_to_blame_however_its_url_is_written(sender: Sender, token_url: str) -> None:
    network = Network(login=httpx.ReadTimeout(""))
    with pytest.raises(CdfUnreachableError, match="token endpoint") as caught:
        sender.send(network, calls.inspect_token(), settings(token_url=token_url))
    assert BASE_URL not in str(caught.value)
    assert not caught.value.sent


# -- where the secret goes --------------------------------------------------------------------------------


def test_the_secret_is_sent_to_the_token_url_only(sender: Sender) -> None:
    network = Network(
        httpx.Response(401, json={}),
        httpx.Response(307, headers={"Location": "https://evil.example.com/api"}),
    )
    with pytest.raises(CdfApiError):
        sender.send(network, calls.list_executions("p"))
    assert [str(request.url) for request in network.token_requests] == [TOKEN_URL] * 2
    assert {request.url.host for request in network.requests} == {httpx.URL(BASE_URL).host}
    for request in network.requests:
        raw = repr((request.url, request.headers.raw, request.content))
        for form in (SECRET, quote(SECRET, safe=""), quote_plus(SECRET)):
            assert form not in raw


def test_a_cookie_of_the_identity_provider_does_not_reach_cdf(sender: Sender) -> None:
    def with_cookie(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"access_token": "t"}, headers={"Set-Cookie": "idp=secret; Path=/"})

    network = Network(login=with_cookie)
    inspect(sender, network)
    assert "Cookie" not in network.requests[0].headers


# -- many at once -----------------------------------------------------------------------------------------


@dataclass
class Server:
    """Identity provider and CDF in one, over real HTTP."""

    settings: Settings
    token_requests: list[float]
    bearers: list[str]
    #: The token is answered as soon as this is set.
    may_answer: threading.Event

    def get(self, **more: Any) -> str:
        with CdfClient(replace(self.settings, **more)) as client:
            return client.send(calls.inspect_token()).subject

    async def aget(self, **more: Any) -> str:
        async with AsyncCdfClient(replace(self.settings, **more)) as client:
            return (await client.send(calls.inspect_token())).subject


@pytest.fixture
def server() -> Iterator[Server]:
    def answer(request: Answering) -> None:
        if request.path == "/token":
            running.token_requests.append(time.monotonic())
            running.may_answer.wait(20)
            request.reply({"access_token": f"t{len(running.token_requests)}", "expires_in": 3600})
        else:
            running.bearers.append(request.headers["Authorization"])
            request.reply(INSPECTION)

    with loopback_server(answer) as url:
        running = Server(settings(url, f"{url}/token", request_timeout=20), [], [], threading.Event())
        yield running
        running.may_answer.set()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The threads and coroutines that have begun to wait for another one's token."""
    waiting: list[object] = []
    wait, wrap_future = client_module.wait, asyncio.wrap_future

    def counted(*args: Any, **kwargs: Any) -> Any:
        waiting.append(threading.current_thread())
        return wait(*args, **kwargs)

    def async_counted(future: Any) -> Any:
        waiting.append(asyncio.current_task())
        return wrap_future(future)

    monkeypatch.setattr(client_module, "wait", counted)
    monkeypatch.setattr(asyncio, "wrap_future", async_counted)
    return waiting


@pytest.mark.parametrize(
    ("threads", "loops", "coroutines"),
    [(12, 0, 0), (0, 1, 30), (6, 2, 10)],
    ids=["threads", "coroutines", "threads and coroutines of two loops"],
)
def test_one_token_request_serves_everybody_who_waits(
    server: Server, waiting: list[object], threads: int, loops: int, coroutines: int
) -> None:
    subjects: list[str] = []

    def run_loop() -> None:
        async def all_at_once() -> list[str]:
            return await asyncio.gather(*(server.aget() for _ in range(coroutines)))

        subjects.extend(asyncio.run(all_at_once()))

    workers = [threading.Thread(target=lambda: subjects.append(server.get())) for _ in range(threads)]
    workers += [threading.Thread(target=run_loop) for _ in range(loops)]
    for worker in workers:
        worker.start()
    everybody = threads + loops * coroutines
    # Everybody but the one who fetches has found somebody else fetching.
    until(lambda: len(waiting) == everybody - 1)
    server.may_answer.set()
    for worker in workers:
        worker.join(20)
    assert subjects == ["s"] * everybody
    assert server.bearers == ["Bearer t1"] * everybody
    assert len(server.token_requests) == 1
    assert len(waiting) == everybody - 1, "each waits once, it does not look again and again"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "has not happened"
        time.sleep(0.01)


def test_a_cancelled_coroutine_that_was_fetching_passes_the_login_on(
    server: Server, waiting: list[object]
) -> None:
    subjects: list[str] = []

    async def scene() -> str:
        fetching = asyncio.create_task(server.aget())
        await asyncio.to_thread(until, lambda: len(server.token_requests) == 1)
        thread = threading.Thread(target=lambda: subjects.append(server.get()))
        thread.start()
        other = asyncio.create_task(server.aget())
        await asyncio.to_thread(until, lambda: len(waiting) == 2)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        await asyncio.to_thread(until, lambda: len(server.token_requests) == 2)
        server.may_answer.set()
        async with asyncio.timeout(20):
            await asyncio.to_thread(thread.join)
            return await other

    assert asyncio.run(scene()) == "s"
    assert subjects == ["s"]
    assert len(server.token_requests) == 2


def test_a_cancelled_coroutine_that_was_waiting_does_not_stop_the_one_that_fetches(
    server: Server, waiting: list[object]
) -> None:
    async def scene() -> str:
        fetching = asyncio.create_task(server.aget())
        await asyncio.to_thread(until, lambda: len(server.token_requests) == 1)
        other = asyncio.create_task(server.aget())
        await asyncio.to_thread(until, lambda: other in waiting)
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
        server.may_answer.set()
        async with asyncio.timeout(20):
            return await fetching

    assert asyncio.run(scene()) == "s"
    assert len(server.token_requests) == 1


def test_who_waits_for_a_login_waits_no_longer_than_its_own_request_may_take(
    sender: Sender, server: Server, waiting: list[object]
) -> None:
    thread = threading.Thread(target=server.get)
    thread.start()
    until(lambda: len(server.token_requests) == 1)
    with pytest.raises(CdfUnreachableError, match="token endpoint") as caught:
        sender.send(None, calls.inspect_token(), replace(server.settings, request_timeout=0.1))
    assert not caught.value.sent
    assert "another request of this process" in str(caught.value)
    assert len(server.token_requests) == 1
    server.may_answer.set()
    thread.join(20)
    assert server.bearers == ["Bearer t1"]


def test_a_login_that_outlasts_one_request_is_taken_over_by_one_that_has_more_time(
    server: Server, waiting: list[object]
) -> None:
    subjects: list[str] = []
    errors: list[CdfError] = []

    def impatient() -> None:
        try:
            server.get(request_timeout=1)
        except CdfError as error:
            errors.append(error)

    first = threading.Thread(target=impatient)
    first.start()
    until(lambda: len(server.token_requests) == 1)
    second = threading.Thread(target=lambda: subjects.append(server.get()))
    second.start()
    until(lambda: len(server.token_requests) == 2)
    server.may_answer.set()
    for thread in (first, second):
        thread.join(20)
    assert subjects == ["s"]
    assert [type(error) for error in errors] == [CdfUnreachableError]


def test_a_login_that_failed_is_told_to_all_who_waited_for_it(waiting: list[object]) -> None:
    asked: list[str] = []

    async def scene() -> list[Any]:
        async def answer(request: httpx.Request) -> httpx.Response:
            asked.append("token")
            await asyncio.to_thread(until, lambda: len(waiting) == 9)
            return httpx.Response(401, json={"error": "invalid_client"})

        async with wired(AsyncCdfClient(settings()), httpx.MockTransport(answer)) as client:
            everybody = (client.send(calls.inspect_token()) for _ in range(10))
            return await asyncio.gather(*everybody, return_exceptions=True)

    errors = asyncio.run(scene())
    assert {type(error) for error in errors} == {CdfLoginError}
    assert len({str(error) for error in errors}) == 1
    assert len({id(error) for error in errors}) == 10
    assert asked == ["token"]


IN_A_FORKED_CHILD = """
import os, signal, threading
import httpx
from airflow_provider_cdf.cdf import auth, calls
from airflow_provider_cdf.cdf.client import CdfClient
from airflow_provider_cdf.cdf.logins import base
from airflow_provider_cdf.cdf.logins.clients import ClientCredentials
from airflow_provider_cdf.cdf.settings import Settings

settings = Settings("https://cdf", "p", ClientCredentials("https://idp/token", "c", "s"))
arrived, may_answer = threading.Event(), threading.Event()


def answer(request):
    if request.url.host != "idp":
        return httpx.Response(200, json={"subject": "s", "projects": [], "capabilities": []})
    if threading.current_thread() is not threading.main_thread():
        arrived.set()
        may_answer.wait(20)
    return httpx.Response(200, json={"access_token": "t"})


client = CdfClient(settings)
client._transport = lambda: httpx.MockTransport(answer)
fetching = threading.Thread(target=client.send, args=(calls.inspect_token(),))
fetching.start()
assert arrived.wait(20)
# The child is made while another thread fetches a token, and a third one holds the lock of that login.
auth.shared_login(settings)._lock.acquire()
child = os.fork()
if child == 0:
    signal.alarm(10)  # ends a child that waits for what nobody in it will ever do
    client.send(calls.inspect_token())
    os._exit(0)
auth.shared_login(settings)._lock.release()
_, status = os.waitpid(child, 0)
may_answer.set()
fetching.join()
raise SystemExit(os.waitstatus_to_exitcode(status) != 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork()")
def test_a_forked_child_logs_in_though_a_thread_of_its_parent_was_just_fetching() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FORKED_CHILD], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
