"""How a connection is looked up, on every version of Airflow."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException, Connection

from airflow_provider_cdf.cdf.errors import CdfConnectionUnreadError
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks import lookup
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.versions import HAS_ASYNC_CONNECTIONS

needs_async_connections = pytest.mark.skipif(
    not HAS_ASYNC_CONNECTIONS, reason="Airflow below 3.3.2 is asked in a thread only"
)
EXECUTION = "059edaa4-a17a-4102-910e-2c3591500cce"


def not_found(*_: Any, **__: Any) -> Any:
    raise AirflowNotFoundException("The conn_id `cdf_default` isn't defined")


async def anot_found(*_: Any, **__: Any) -> Any:
    not_found()


@needs_async_connections
def test_what_one_way_does_not_find_is_looked_up_the_other_way(
    cdf_default: CdfEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CdfHook, "aget_connection", anot_found)

    async def ask() -> tuple[bool, str]:
        hook = CdfHook()
        try:
            return await hook.atest_connection()
        finally:
            await hook.aclose()

    is_good, message = asyncio.run(ask())
    assert is_good, message


@needs_async_connections
def test_what_is_found_at_once_is_not_looked_up_again(
    cdf_default: CdfEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CdfHook, "get_connection", not_found)
    assert asyncio.run(lookup.find(CdfHook(), "cdf_default")).host == cdf_default.url


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_no_way_finds_may_be_found_later(is_async: bool) -> None:
    """Airflow takes a secrets backend that fails for one that has no such connection."""
    hook = CdfHook("cdf_nowhere")

    def ask() -> None:
        if is_async:
            asyncio.run(hook.aget_execution(EXECUTION))
        else:
            hook.get_execution(EXECUTION)

    with pytest.raises(
        CdfConnectionUnreadError, match=r"Airflow found no connection 'cdf_nowhere'\."
    ) as caught:
        ask()
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.__context__ is None
    assert "AIRFLOW_CONN_CDF_NOWHERE" in str(caught.value)
    assert "add one of type 'cdf'" in str(caught.value)


def test_a_lookup_that_waits_for_airflow_leaves_the_event_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    loop_goes_on = threading.Event()

    def slow(*_: Any, **__: Any) -> Connection:
        assert loop_goes_on.wait(60), "the event loop stands still"
        return Connection(conn_id="cdf_default", conn_type="cdf", host="westeurope-1")

    monkeypatch.setattr(CdfHook, "get_connection", slow)
    if HAS_ASYNC_CONNECTIONS:
        monkeypatch.setattr(CdfHook, "aget_connection", anot_found)

    async def ask() -> Connection:
        looking = asyncio.create_task(lookup.find(CdfHook(), "cdf_default"))
        await asyncio.sleep(0)
        loop_goes_on.set()
        return await looking

    assert asyncio.run(ask()).host == "westeurope-1"
