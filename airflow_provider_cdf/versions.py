"""Which Airflow this is, for what differs between its versions."""

from __future__ import annotations

from airflow import __version__
from packaging.version import Version

#: Major and minor, such as ``(3, 3)``.
AIRFLOW_VERSION = Version(__version__).release[:2]
