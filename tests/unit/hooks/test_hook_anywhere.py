"""One hook in several threads, loops and copies; and what it says when its connection cannot be read."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from support import Project, function_task

from airflow_provider_cdf.cdf.errors import CdfConnectionError, CdfConnectionUnreadError, CdfError
from airflow_provider_cdf.cdf.settings import Settings
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks import lookup
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.versions import AIRFLOW_VERSION

SECRET = "s3cr3t-of-the-connection"


@pytest.fixture
def execution_id(cdf_default: CdfEmulator, project: Project) -> str:
    return project.run(project.define(function_task("approve", waits=True)))


async def close_and(hook: CdfHook, execution_id: str) -> str:
    try:
        return (await hook.aget_execution(execution_id)).id
    finally:
        await hook.aclose()


# -- anywhere ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_closed", [True, False])
def test_one_hook_serves_one_event_loop_after_the_other(execution_id: str, is_closed: bool) -> None:
    hook = CdfHook()

    async def ask() -> str:
        return (
            await close_and(hook, execution_id) if is_closed else (await hook.aget_execution(execution_id)).id
        )

    for _ in range(3):
        assert asyncio.run(ask()) == execution_id
        assert hook.get_execution(execution_id).id == execution_id


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda hook: pickle.loads(pickle.dumps(hook))]
)
def test_a_connected_hook_can_be_copied_and_pickled_without_its_secret(
    execution_id: str, cdf: CdfEmulator, duplicate: Callable[[CdfHook], CdfHook]
) -> None:
    hook = CdfHook("cdf_default", retry_for=7)
    asyncio.run(hook.aget_execution(execution_id))
    hook.get_execution(execution_id)
    assert cdf.client_secret.encode() not in pickle.dumps(hook)

    other = duplicate(hook)

    assert not other.is_connected
    assert other.client is not hook.client
    assert other.client.settings == hook.client.settings
    assert other.get_execution(execution_id).id == execution_id
    assert asyncio.run(other.aget_execution(execution_id)).id == execution_id
    assert hook.is_connected, "the original keeps its own"


@pytest.mark.parametrize(
    "operator",
    [
        CdfWorkflowRunOperator(task_id="run", workflow_external_id="pump", version="1"),
        CdfTaskUpdateOperator(task_id="update", cdf_task_id="{{ x }}", status="completed"),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_an_operator_whose_hook_is_connected_can_be_copied_and_pickled(
    execution_id: str, cdf: CdfEmulator, operator: Any
) -> None:
    operator.hook.get_execution(execution_id)

    for other in (copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        assert other.hook is not operator.hook
        assert other.hook.get_execution(execution_id).id == execution_id
    assert cdf.client_secret.encode() not in pickle.dumps(operator)


# -- times ------------------------------------------------------------------------------------------------


def test_the_connection_says_how_patient_a_hook_is_unless_the_hook_does(
    connect: Any, cdf: CdfEmulator
) -> None:
    connect({"request_timeout": 12, "retry_for": "5"})

    def times(hook: CdfHook) -> tuple[float, float]:
        settings = hook.client.settings
        return settings.request_timeout, settings.retry_for

    assert times(CdfHook()) == (12, 5)
    assert times(CdfHook(retry_for=0)) == (12, 0)
    assert times(CdfHook().sibling(retry_for=3)) == (12, 3)
    assert times(CdfHook().sibling(retry_for=3, request_timeout=4)) == (4, 3)


def test_an_execution_is_read_within_the_time_that_is_left(execution_id: str) -> None:
    hook = CdfHook()
    assert hook.get_execution(execution_id, within=20).id == execution_id
    with pytest.raises(CdfError, match="no time is left"):
        hook.get_execution(execution_id, within=0)
    with pytest.raises(CdfError, match="no time is left"):
        asyncio.run(hook.aget_execution(execution_id, within=0))


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_first_uses_at_once_share_one_client(
    cdf_default: CdfEmulator, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """None is left behind with connections that nothing closes."""
    hook = CdfHook()
    if is_async:

        async def make() -> list[object]:
            return [*await asyncio.gather(*(hook.aclient() for _ in range(5)))]

        made = asyncio.run(make())
    else:
        read, made = lookup.read_settings, []

        def read_while_another_does(*args: Any) -> Settings:
            settings = read(*args)
            monkeypatch.setattr(lookup, "read_settings", read)
            made.append(hook.client)
            return settings

        monkeypatch.setattr(lookup, "read_settings", read_while_another_does)
        made += [hook.client, hook.client]
    assert len({id(client) for client in made}) == 1


def test_a_closed_hook_makes_another_client(execution_id: str) -> None:
    hook = CdfHook()

    async def ask() -> tuple[object, object]:
        first = await hook.aclient()
        assert await close_and(hook, execution_id) == execution_id
        second = await hook.aclient()
        await hook.aclose()
        return first, second

    first, second = asyncio.run(ask())
    assert first is not second
    one = hook.client
    hook.close()
    assert not hook.is_connected
    assert hook.client is not one


# -- a connection that cannot be read ----------------------------------------------------------------------


def connection(**changes: Any) -> str:
    return json.dumps(
        {
            "conn_type": "cdf",
            "host": "westeurope-1",
            "login": "the-client",
            "password": SECRET,
            "extra": {"project": "p", "tenant_id": "t"},
            **changes,
        }
    )


WRONG = {
    "no project": connection(extra={"tenant_id": "t"}),
    "unknown field": connection(extra={"project": "p", "tenant_id": "t", "token_": SECRET}),
    "secret with a blank": connection(password=f"{SECRET} "),
    "a list": json.dumps([SECRET]),
}
#: Airflow 3.0 and 3.1 say of these that there is no such connection; others hand them over.
WRONG_EXTRA = {
    "extra is a list": connection(extra=["project", SECRET]),
    "extra is text": connection(extra=json.dumps("project")),
    "extra is a number": connection(extra=5),
    "extra is no JSON": connection(extra="{project"),
}
#: Airflow says of these that there is no such connection, or that something in it is wrong, as it may of what
#: a secrets backend answers in its bad moment.
NOT_PARSED = {
    "no JSON": connection()[:-5],
    "a secret in the port": f"cdf://client:{SECRET}/p@westeurope-1",
}


def ask(hook: CdfHook, is_async: bool) -> None:
    if is_async:
        asyncio.run(hook.aget_execution("059edaa4-a17a-4102-910e-2c3591500cce"))
    else:
        hook.get_execution("059edaa4-a17a-4102-910e-2c3591500cce")


def everything_of(error: BaseException) -> str:
    """Its words, and the local variables of its frames outside of this file."""
    shown = [str(error), repr(error), repr(vars(error)), repr(error.__cause__), repr(error.__context__)]
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != __file__:
            shown += [f"{name}={value!r}" for name, value in trace.tb_frame.f_locals.items()]
        trace = trace.tb_next
    return " ".join(shown)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_connection_that_is_wrong_is_named_without_its_secret_even_in_tracebacks(
    monkeypatch: pytest.MonkeyPatch, wrong: str, is_async: bool
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", wrong)
    with pytest.raises(CdfConnectionError, match=r"Airflow connection 'cdf_default' cannot") as caught:
        ask(CdfHook(), is_async)
    assert isinstance(caught.value, AirflowFailException)
    assert "Nothing was sent to CDF" in str(caught.value)
    assert SECRET not in everything_of(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("wrong", WRONG_EXTRA.values(), ids=WRONG_EXTRA.keys())
def test_an_extra_that_is_wrong_is_named_without_its_secret_where_airflow_hands_it_over(
    monkeypatch: pytest.MonkeyPatch, wrong: str, is_async: bool
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", wrong)
    is_handed_over = not (3, 0) <= AIRFLOW_VERSION < (3, 2)
    expected = CdfConnectionError if is_handed_over else CdfConnectionUnreadError
    with pytest.raises(expected, match=r"connection 'cdf_default'( cannot|\.)") as caught:
        ask(CdfHook(), is_async)
    assert "Nothing was sent to CDF" in str(caught.value)
    assert SECRET not in everything_of(caught.value)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("text", NOT_PARSED.values(), ids=NOT_PARSED.keys())
def test_what_airflow_cannot_parse_is_none_that_was_read(
    monkeypatch: pytest.MonkeyPatch, text: str, is_async: bool
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", text)
    with pytest.raises(CdfConnectionUnreadError, match=r"connection 'cdf_default'( could|\.)") as caught:
        ask(CdfHook(), is_async)
    assert not isinstance(caught.value, AirflowFailException)
    assert "Nothing was sent to CDF" in str(caught.value)
    assert SECRET not in everything_of(caught.value)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_airflow_that_cannot_be_asked_just_now_is_no_wrong_connection(
    monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise AirflowException("The API server\nis down.")

    async def afail(*_: Any, **__: Any) -> Any:
        fail()

    monkeypatch.setattr(CdfHook, "get_connection", fail)
    monkeypatch.setattr(lookup, "find", afail)
    with pytest.raises(CdfConnectionUnreadError, match="could not be read: The API server is down") as caught:
        ask(CdfHook(), is_async)
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("error", [ValueError, TypeError, AttributeError])
def test_what_cannot_be_parsed_in_a_connection_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], is_async: bool
) -> None:
    """Such as Python about a URI whose password has a slash in it."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error(f"Port could not be cast to integer value as {SECRET!r}")

    async def afail(*_: Any, **__: Any) -> Any:
        fail()

    monkeypatch.setattr(CdfHook, "get_connection", fail)
    monkeypatch.setattr(lookup, "find", afail)
    with pytest.raises(
        CdfConnectionUnreadError, match="connection 'cdf_default' could not be read"
    ) as caught:
        ask(CdfHook(), is_async)
    assert not isinstance(caught.value, AirflowFailException)
    assert error.__name__ in str(caught.value)
    assert SECRET not in everything_of(caught.value)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_ca_bundle_that_cannot_be_read_is_a_wrong_connection(
    connect: Callable[..., None], tmp_path: Path, is_async: bool
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    connect({"verify": str(tmp_path / "ca.pem")})
    with pytest.raises(CdfConnectionError, match=r"its CA bundle 'ca\.pem' cannot be read") as caught:
        ask(CdfHook(), is_async)
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.__context__ is None
