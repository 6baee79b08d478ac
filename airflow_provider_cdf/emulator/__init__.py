"""
CDF's workflow API on this machine, for development and tests. It is no CDF.

Needs the extra ``emulator``, most of which Airflow 3 brings along.

- ``rules/``: what workflows do. It knows no HTTP.
- ``api/``: CDF's HTTP API on top of them.
- ``control/``: what tests do to the emulator from outside: faults, the journal, the clock.
- ``page/``: the page that shows executions.

The rest is the entrance: the server, the program, the pytest fixture, and ``toolkit/``, which reads files.
"""

from __future__ import annotations

import importlib
import shlex
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_cdf.emulator.functions import Webhook
    from airflow_provider_cdf.emulator.rules.clock import ManualClock, RunningClock
    from airflow_provider_cdf.emulator.rules.functions import Reply
    from airflow_provider_cdf.emulator.rules.pace import Pace
    from airflow_provider_cdf.emulator.server import CdfEmulator

__all__ = ["CdfEmulator", "ManualClock", "Pace", "Reply", "RunningClock", "Webhook"]

_HOMES = {
    "CdfEmulator": "server",
    "ManualClock": "rules.clock",
    "Pace": "rules.pace",
    "Reply": "rules.functions",
    "RunningClock": "rules.clock",
    "Webhook": "functions",
}


def __getattr__(name: str) -> Any:
    # FastAPI and uvicorn are loaded when the emulator is used, not when a module of it is looked at.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__name__):
            raise
        raise ImportError(_what_is_missing(error)) from error


def _what_is_missing(error: ModuleNotFoundError) -> str:
    needed = [
        requirement.partition(";")[0].strip()
        for requirement in metadata.requires("airflow-provider-cdf") or []
        if "extra" in requirement.partition(";")[2] and "emulator" in requirement.partition(";")[2]
    ]
    return (
        f"The CDF emulator needs '{error.name}', which is not installed. It belongs to the extra 'emulator'."
        f" Install it with:\n\n    pip install {' '.join(map(shlex.quote, needed))}\n"
    )
