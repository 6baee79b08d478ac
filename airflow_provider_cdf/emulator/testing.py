"""
A pytest fixture for tests of DAGs that use this provider.

In a test module or in ``conftest.py``::

    from airflow_provider_cdf.emulator.testing import cdf_emulator  # noqa: F401
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_cdf.emulator import CdfEmulator


@pytest.fixture
def cdf_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[CdfEmulator]:
    """A CDF emulator, empty at first, that the connection ``cdf_default`` leads to."""
    with CdfEmulator() as emulator:
        monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", emulator.airflow_connection_uri())
        yield emulator
