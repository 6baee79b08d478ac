"""
How long things take in the emulated CDF: what ``CdfEmulator(pace=...)`` is given.

A public path, which nothing in this package imports.
"""

from __future__ import annotations

from airflow_provider_cdf.emulator.rules.pace import Pace

__all__ = ["Pace"]
