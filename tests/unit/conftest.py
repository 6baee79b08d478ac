"""The emulator, as the Airflow connection ``cdf_default``, for unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import FAULT_MATRIX, FakeTaskInstance, Project

from airflow_provider_cdf.emulator import CdfEmulator


@pytest.fixture(scope="session")
def cdf() -> Iterator[CdfEmulator]:
    """An emulator for the whole session; tests define workflows of their own in it."""
    with CdfEmulator() as emulator:
        yield emulator


@pytest.fixture
def cdf_default(cdf: CdfEmulator, monkeypatch: pytest.MonkeyPatch) -> CdfEmulator:
    """The emulator as Airflow connection ``cdf_default``."""
    monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection_uri())
    return cdf


@pytest.fixture(scope="session")
def project(cdf: CdfEmulator) -> Project:
    return Project(cdf)


@pytest.fixture
def ti() -> FakeTaskInstance:
    return FakeTaskInstance()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what test_fault_matrix.py has found."""
    table = terminalreporter.config.stash.get(FAULT_MATRIX, None)
    if not table:
        return
    columns = list(dict.fromkeys(call for row in table.values() for call in row))
    lines = [["fault", "how often", *columns]]
    lines += [
        [fault, how_often, *(" / ".join(sorted(row.get(call, "-"))) for call in columns)]
        for (fault, how_often), row in table.items()
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    terminalreporter.section("fault matrix: how often the emulator did it, and how it ended")
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())
