"""Transport retries: which failed requests are sent again, when, and for how long."""

from __future__ import annotations

import logging
import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from cdf_support import (
    EXECUTION,
    EXECUTION_ID,
    SECRET,
    SESSION,
    FakeTime,
    Network,
    Sender,
    settings,
)

from airflow_provider_cdf.cdf import calls
from airflow_provider_cdf.cdf.calls import Repeat
from airflow_provider_cdf.cdf.errors import CdfApiError, CdfError, CdfLoginError, CdfUnreachableError
from airflow_provider_cdf.cdf.retry import (
    LONGEST_PAUSE,
    is_transient,
    pause_after,
    was_not_executed,
)
from airflow_provider_cdf.cdf.transport import Answer

#: One call of each kind; test_calls.py says of which kind every call is.
KINDS: dict[Repeat, tuple[calls.Call[Any], Any]] = {
    Repeat.ALWAYS: (calls.get_execution("p", EXECUTION_ID), EXECUTION),
    Repeat.IF_NOT_EXECUTED: (calls.cancel("p", EXECUTION_ID), EXECUTION),
    Repeat.NEVER: (calls.run("p", "pump", "1", nonce="n"), EXECUTION),
}
GET = KINDS[Repeat.ALWAYS][0]

NOT_EXECUTED: dict[str, Any] = {
    "refused": httpx.ConnectError("[Errno 111] Connection refused"),
    "connect timeout": httpx.ConnectTimeout(""),
    "pool": httpx.PoolTimeout(""),
    "proxy": httpx.ProxyError("407 Proxy Authentication Required"),
    "429": httpx.Response(429),
}
AMBIGUOUS: dict[str, Any] = {
    "read timeout": httpx.ReadTimeout(""),
    "write error": httpx.WriteError("reset"),
    "dropped": httpx.RemoteProtocolError("Server disconnected"),
    "408": httpx.Response(408),
    "500": httpx.Response(500),
    "502": httpx.Response(502),
    "503": httpx.Response(503),
    "504": httpx.Response(504),
    "truncated": httpx.Response(200, content=b'{"items": ['),
    "not json": httpx.Response(200, html="<html>Sign in</html>"),
    "empty": httpx.Response(200),
}
FINAL: dict[str, Any] = {str(code): httpx.Response(code) for code in (302, 400, 403, 404, 409, 422)}

patient = settings(retry_for=60)


def find(failure: str) -> Any:
    return (NOT_EXECUTED | AMBIGUOUS | FINAL)[failure]


# -- which ------------------------------------------------------------------------------------------------


def check_repetition(sender: Sender, time: FakeTime, kind: Repeat, failure: str) -> None:
    call, answer = KINDS[kind]
    assert call.repeat is kind
    repeated = {
        Repeat.ALWAYS: failure not in FINAL,
        Repeat.IF_NOT_EXECUTED: failure in NOT_EXECUTED,
        Repeat.NEVER: False,
    }[kind]
    network = Network(find(failure), httpx.Response(200, json=answer))
    if repeated:
        sender.send(network, call, patient)
        assert len(network.requests) == 2
    else:
        with pytest.raises(CdfError):
            sender.send(network, call, patient)
        assert len(network.requests) == 1
        assert time.pauses == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failure", [*NOT_EXECUTED, *AMBIGUOUS, *FINAL])
def test_a_call_is_repeated_for_the_errors_that_do_no_harm_and_for_no_others(
    time: FakeTime, kind: Repeat, failure: str
) -> None:
    check_repetition(Sender(is_async=False), time, kind, failure)


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_for_coroutines_repeats_the_same_calls(time: FakeTime, kind: Repeat) -> None:
    for failure in ("refused", "read timeout", "409"):
        time.pauses.clear()
        check_repetition(Sender(is_async=True), time, kind, failure)


MAY_BE_REPEATED = {"cdf-is-auto-retryable": "true"}


@pytest.mark.parametrize("kind", [Repeat.ALWAYS, Repeat.IF_NOT_EXECUTED])
@pytest.mark.parametrize("code", [302, 400, 403, 404, 409, 422, 500, 503])
def test_what_cdf_says_may_be_repeated_is_repeated_whatever_its_code(
    sender: Sender, time: FakeTime, kind: Repeat, code: int
) -> None:
    call, answer = KINDS[kind]
    network = Network(httpx.Response(code, headers=MAY_BE_REPEATED), httpx.Response(200, json=answer))
    sender.send(network, call, patient)
    assert len(network.requests) == 2


@pytest.mark.parametrize("code", [302, 400, 403, 404, 409, 422, 503])
def test_who_decides_about_a_nonce_is_told_that_it_may_be_repeated(sender: Sender, code: int) -> None:
    network = Network(httpx.Response(code, headers=MAY_BE_REPEATED))
    with pytest.raises(CdfApiError) as caught:
        sender.send(network, KINDS[Repeat.NEVER][0], patient)
    assert caught.value.is_auto_retryable
    assert is_transient(caught.value)
    assert not was_not_executed(caught.value), "CDF does not say that"
    assert "It is not known whether CDF did it" in str(caught.value)
    assert not caught.value.is_about_the_id
    assert not isinstance(caught.value, AirflowFailException), "Airflow may try it again, too"


def test_what_may_be_repeated_is_repeated_only_as_long_as_there_is_time(
    sender: Sender, time: FakeTime
) -> None:
    begun = time.now()
    network = Network(*[httpx.Response(409, headers=MAY_BE_REPEATED)] * 100)
    with pytest.raises(CdfApiError, match="HTTP 409"):
        sender.send(network, GET, patient)
    assert 1 < len(network.requests) < 100
    assert time.now() - begun < 60


@pytest.mark.parametrize("value", ["false", "", "1", "yes"])
def test_any_other_value_permits_nothing(sender: Sender, time: FakeTime, value: str) -> None:
    network = Network(httpx.Response(409, headers={"cdf-is-auto-retryable": value}))
    with pytest.raises(CdfApiError) as caught:
        sender.send(network, GET, patient)
    assert not caught.value.is_auto_retryable
    assert len(network.requests) == 1


@pytest.mark.parametrize("kind", [Repeat.ALWAYS, Repeat.IF_NOT_EXECUTED])
def test_a_token_endpoint_that_says_html_once_with_200_is_a_gateways_bad_moment(
    sender: Sender, time: FakeTime, kind: Repeat
) -> None:
    call, answer = KINDS[kind]
    pages = [httpx.Response(200, html="<html>One moment</html>")]
    token = httpx.Response(200, json={"access_token": "the-token"})
    network = Network(httpx.Response(200, json=answer), login=lambda _: pages.pop() if pages else token)
    sender.send(network, call, patient)
    assert len(network.token_requests) == 2


@pytest.mark.parametrize("kind", [Repeat.ALWAYS, Repeat.IF_NOT_EXECUTED])
def test_a_token_endpoint_that_is_down_for_a_while_is_outlived(
    sender: Sender, time: FakeTime, kind: Repeat
) -> None:
    call, answer = KINDS[kind]
    logins = [httpx.ConnectError("refused"), httpx.Response(503, html="<html>"), httpx.ReadTimeout("")]
    token = httpx.Response(200, json={"access_token": "t"})

    def login(_: httpx.Request) -> httpx.Response:
        outcome = logins.pop(0) if logins else token
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    network = Network(httpx.Response(200, json=answer), login=login)
    sender.send(network, call, patient)
    assert (len(network.token_requests), len(network.requests)) == (4, 1)


@pytest.mark.parametrize("code", [302, 400, 401, 404])
def test_a_login_that_is_refused_for_good_is_not_repeated(sender: Sender, time: FakeTime, code: int) -> None:
    network = Network(login=httpx.Response(code, html="<html>Sign in</html>"))
    with pytest.raises(CdfLoginError):
        sender.send(network, GET, patient)
    assert len(network.token_requests) == 1


# -- when -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("longest_pauses")
def test_pauses_grow_exponentially_up_to_a_limit_and_within_a_total_time(
    sender: Sender, time: FakeTime
) -> None:
    begun = time.now()
    with pytest.raises(CdfUnreachableError):
        sender.send(Network(*[httpx.ReadTimeout("")] * 20), GET, patient)
    assert time.pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE]
    assert time.now() - begun < 60


def test_each_pause_is_a_random_part_of_its_longest() -> None:
    random.seed(4)
    for tries, longest in ((1, 1), (2, 2), (3, 4), (5, 16), (6, LONGEST_PAUSE), (10_000, LONGEST_PAUSE)):
        pauses = [pause_after(None, tries) for _ in range(500)]
        assert all(0 <= pause <= longest for pause in pauses)
        assert min(pauses) < 0.1 * longest
        assert max(pauses) > 0.9 * longest
        assert 0.4 * longest < sum(pauses) / 500 < 0.6 * longest


def test_slow_requests_count_into_the_total_time(sender: Sender, time: FakeTime) -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        time.seconds += 30
        raise httpx.ReadTimeout("", request=request)

    network = Network(slow, slow, slow)
    with pytest.raises(CdfUnreachableError):
        sender.send(network, GET, patient)
    assert len(network.requests) == 2


@pytest.mark.parametrize("failure", ["refused", "read timeout", "429"])
def test_somebody_with_a_patience_of_their_own_gets_the_first_error(
    sender: Sender, time: FakeTime, failure: str
) -> None:
    network = Network(find(failure))
    with pytest.raises(CdfError):
        sender.send(network, GET, settings(retry_for=0))
    assert (len(network.requests), time.pauses) == (1, [])


def test_each_repetition_is_told_without_the_secret(
    sender: Sender, time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    said = httpx.Response(503, json={"error": {"message": f"no {SECRET}"}})
    with caplog.at_level(logging.WARNING):
        session = calls.create_session("p", client_id="c", client_secret="s", what_for="run workflow 'w'")
        sender.send(Network(said, httpx.Response(200, json=SESSION)), session, patient)
    (line,) = caplog.messages
    assert "HTTP 503" in line
    assert f"Trying again in {time.pauses[0]:.1f} s." in line
    assert SECRET not in line


# -- Retry-After ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_in_seconds_is_obeyed(sender: Sender, time: FakeTime, code: int) -> None:
    network = Network(
        httpx.Response(code, headers={"Retry-After": "17"}), httpx.Response(200, json=EXECUTION)
    )
    sender.send(network, GET, patient)
    assert time.pauses == [17]


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_of_the_token_endpoint_is_obeyed(sender: Sender, time: FakeTime, code: int) -> None:
    logins = [httpx.Response(code, headers={"Retry-After": "9"}, json={"error": "busy"})]
    token = httpx.Response(200, json={"access_token": "t"})
    network = Network(httpx.Response(200, json=EXECUTION), login=lambda _: logins.pop() if logins else token)
    sender.send(network, GET, patient)
    assert time.pauses == [9]


@pytest.mark.parametrize("clock_is_off", [timedelta(0), timedelta(minutes=-20), timedelta(hours=5)], ids=str)
def test_retry_after_as_a_date_is_obeyed_by_the_clock_of_the_one_who_says_it(clock_is_off: timedelta) -> None:
    theirs = datetime.now(UTC) + clock_is_off
    headers = {
        "Date": format_datetime(theirs, usegmt=True),
        "Retry-After": format_datetime(theirs + timedelta(seconds=40), usegmt=True),
    }
    assert Answer(429, httpx.Headers(headers)).retry_after == 40


def test_retry_after_as_a_date_without_theirs_goes_by_our_clock() -> None:
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    seconds = Answer(429, httpx.Headers({"Retry-After": in_an_hour})).retry_after
    assert seconds is not None
    assert 3000 < seconds <= 3600


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("17.0", 17.0),
        (" 17 ", 17.0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("-5", None),
        ("1_0", None),
        ("1e9", None),
        ("٣", None),
        ("9" * 400, None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("Fri, 99 Dec 1999 23:59:59 GMT", None),
        ("Fri, 31 Dec 1999 23:59:59 +9999999999999999", None),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_anything_else_asks_for_nothing(
    value: str, seconds: float | None
) -> None:
    assert Answer(429, {"Retry-After": value}).retry_after == seconds


def test_a_retry_after_beyond_the_total_time_ends_at_once(sender: Sender, time: FakeTime) -> None:
    network = Network(httpx.Response(429, headers={"Retry-After": "3600"}))
    with pytest.raises(CdfApiError) as caught:
        sender.send(network, GET, patient)
    assert (caught.value.retry_after, time.pauses) == (3600, [])
