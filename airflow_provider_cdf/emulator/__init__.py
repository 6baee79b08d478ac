"""
CDF's workflow API on this machine, for development and tests. It is no CDF.

Needs the extra ``emulator``: ``pip install "airflow-provider-cdf[emulator]"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_cdf.emulator.server import CdfEmulator

__all__ = ["CdfEmulator"]


def __getattr__(name: str) -> Any:
    # FastAPI and uvicorn are loaded when the emulator is used, not when a module of it is looked at.
    if name == "CdfEmulator":
        from airflow_provider_cdf.emulator.server import CdfEmulator

        return CdfEmulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
