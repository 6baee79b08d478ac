"""What Airflow knows of a connection: read on every version of it, for threads and for coroutines."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from asgiref.sync import sync_to_async

from airflow_provider_cdf.cdf.errors import CdfConnectionUnreadError, CdfError
from airflow_provider_cdf.cdf.foreign import one_line
from airflow_provider_cdf.hooks.connection import label, read_connection
from airflow_provider_cdf.versions import HAS_ASYNC_CONNECTIONS, MASKING

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseHook, Connection

    from airflow_provider_cdf.cdf.settings import Settings

#: Tasks that nobody refers to may be collected before they are done.
_maskings: set[asyncio.Task[None]] = set()


def read_settings(hook: BaseHook, conn_id: str) -> Settings:
    """
    Read a connection, by the hook's own ``get_connection``.

    :raises Exception: of any kind, for :func:`error_of`.
    """
    connection = hook.get_connection(conn_id)
    return _settings(conn_id, connection, connection.extra_dejson or _extra_as_it_is(connection))


async def aread_settings(hook: BaseHook, conn_id: str) -> Settings:
    """Do what :func:`read_settings` does, for coroutines."""
    connection = await find(hook, conn_id)
    if hasattr(connection, "aextra_dejson"):
        extra = await connection.aextra_dejson()
    else:
        # In a thread, because it masks what it reads by a blocking call to Airflow.
        extra = await sync_to_async(lambda: connection.extra_dejson)()
    return _settings(conn_id, connection, extra or _extra_as_it_is(connection))


def _extra_as_it_is(connection: Connection) -> object:
    """Return an extra that Airflow made an empty one of, because it cannot parse it."""
    extra = connection.extra
    try:
        return json.loads(extra) if extra else {}
    except (TypeError, ValueError):
        return extra


async def find(hook: BaseHook, conn_id: str) -> Connection:
    """
    Look a connection up without blocking the event loop.

    :raises AirflowNotFoundException: if there is none.
    """
    if HAS_ASYNC_CONNECTIONS:
        try:
            return await hook.aget_connection(conn_id)
        except AirflowNotFoundException:
            pass  # It leaves out Airflow's database in dag.test() (seen in 3.3.2), so ask once more.
    # In a thread, and by way of asgiref: see keep_out_of_logs().
    return await sync_to_async(hook.get_connection)(conn_id)


def error_of(conn_id: str, error: Exception) -> CdfError:
    """
    Return what is told about a connection that could not be read; the frames of the error hold the secret.

    Only one that was read, and is wrong, is wrong for good.
    """
    if isinstance(error, CdfError):
        return error.bare()
    if isinstance(error, AirflowNotFoundException):
        # Airflow says so, too, while a secrets backend is down: it goes on to the next one.
        return CdfConnectionUnreadError(
            f"Airflow found no connection {conn_id!r}. It asked its secrets backends, the variable "
            f"AIRFLOW_CONN_{conn_id.upper()} and its database, and passes over a backend that is down and a "
            "text that it cannot parse. If there is none, add one of type 'cdf'. Nothing was sent to CDF."
        )
    # The words of these may quote what could not be parsed, such as a part of the password.
    is_about_the_text = isinstance(error, ValueError | TypeError | AttributeError)
    kind = type(error).__name__
    why = f"Airflow cannot parse it ({kind})" if is_about_the_text else one_line(error) or kind
    return CdfConnectionUnreadError(
        f"{label(conn_id)} could not be read: {why.rstrip('.')}. Nothing was sent to CDF."
    )


def keep_out_of_logs(secret: str) -> None:
    """Have Airflow mask a secret in logs from now on."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _mask(secret)
    else:
        # Masking waits for the supervisor's answer, which an event loop must not. By way of asgiref: called
        # from any other thread, Airflow 3.1's triggerer takes one answer for another and ends.
        masking = loop.create_task(sync_to_async(_mask)(secret))
        _maskings.add(masking)
        masking.add_done_callback(_maskings.discard)


def _mask(secret: str) -> None:
    import_module(MASKING).mask_secret(secret)


def _settings(conn_id: str, connection: Connection, extra: object) -> Settings:
    return read_connection(
        conn_id,
        host=connection.host,
        port=connection.port,
        login=connection.login,
        password=connection.password,
        extra=extra,
        on_token=keep_out_of_logs,
    )
