"""The little time that callbacks have, and a hook that keeps to it whatever it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.client import CdfClient
from airflow_provider_cdf.cdf.errors import CdfTimeoutError
from airflow_provider_cdf.hooks.cdf import CdfHook

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.settings import Settings

#: Seconds that all callbacks of a process may take together: Airflow's DAG processor runs those of a DAG file
#: in one process, and kills it after 50 (``[dag_processor] dag_file_processor_timeout``).
ALL_CALLBACKS_WITHIN = 40.0
#: Seconds after which a process that has called back is none of these, or it would have been killed.
KILLED_WITHIN = 50.0
#: Seconds that one callback takes at most. In a task's own process, Airflow gives it and its like 20
#: (``[core] task_success_overtime``).
CALLBACK_PATIENCE = 10.0
#: Seconds for a request that is made when there is no time left; 0 is no timeout that settings can have.
LEAST_TIMEOUT = 0.001

_first_callback: float | None = None


def seconds_left(context: Context) -> float:
    """Return how many seconds a callback has left; 0 or less if those before it have used them up."""
    global _first_callback
    # Only the task's own process has the error itself; the DAG processor has a text, or none.
    if isinstance(context.get("exception"), BaseException):
        return CALLBACK_PATIENCE
    now = clock.now()
    if _first_callback is None or now >= _first_callback + KILLED_WITHIN:
        _first_callback = now
    return _first_callback + ALL_CALLBACKS_WITHIN - now


@contextmanager
def hook_within(seconds: float, cdf_conn_id: str) -> Iterator[CdfHook]:
    """
    Give a hook that is done after some seconds, whatever it is asked, and close it.

    :raises CdfTimeoutError: if there are none left.
    """
    if seconds <= 0:
        raise CdfTimeoutError(
            f"There is no time left: the callbacks before this one have taken {ALL_CALLBACKS_WITHIN:g} s."
        )
    ends = clock.now() + seconds
    hook = CdfHook(cdf_conn_id, retry_for=min(seconds, CALLBACK_PATIENCE))
    try:
        hook.client = _ClientUntil(ends, hook.read_settings())
        yield hook
    finally:
        hook.close()


class _ClientUntil(CdfClient):
    """A client that grows less patient, until at some moment it has no patience left."""

    def __init__(self, ends: float, settings: Settings) -> None:
        self._over_at = ends
        super().__init__(settings)

    @property
    def settings(self) -> Settings:
        # Whoever asks does so at the begin of a request, a repetition, or a conversation.
        left = max(self._over_at - clock.now(), 0.0)
        # One request that is not answered leaves time for others.
        timeout = min(self._settings.request_timeout, CALLBACK_PATIENCE, left)
        return replace(
            self._settings,
            retry_for=min(self._settings.retry_for, left),
            request_timeout=max(timeout, LEAST_TIMEOUT),
        )

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._settings = settings
