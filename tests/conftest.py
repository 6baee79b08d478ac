"""Airflow for the tests: a home of its own, chosen before anything imports Airflow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

#: Test files that take minutes, in the order in which they are begun.
MINUTES = (
    "test_exactly_once.py",
    "test_local_airflow.py",
    "test_two_at_once.py",
    "test_how_a_dag_ends.py",
    "test_demo_command.py",
    "test_chaos.py",
)
HOME = Path(tempfile.mkdtemp(prefix="cdf-tests-"))

for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[name]
os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    # Airflow reads this once, and dag.test() finds a DAG only there.
    "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parents[1] / "example_dags"),
    # Airflow's own log lines about each state change would bury the test's.
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
}


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """
    Three processes for folders; for single files and tests none, as they take seconds to start.

    Three also for two cores, because tests of a real Airflow mostly wait for it.
    """
    return 3 if all(Path(argument).is_dir() for argument in config.args) else 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: MINUTES.index(item.path.name) if item.path.name in MINUTES else len(MINUTES))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """
    Print what tests have found out, at the end of the run.

    A test adds a line with ``record_property("summary", (title, line))``, or a cell of a table with
    ``record_property("cell", (title, row, column, text))``. Reports hold these, and so they also come from
    the processes of pytest-xdist.
    """
    lines: dict[str, list[str]] = {}
    tables: dict[str, dict[str, dict[str, set[str]]]] = {}
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, ())]
    for report in sorted(reports, key=lambda report: report.start):
        for name, value in report.user_properties:
            if name == "summary":
                title, line = value
                lines.setdefault(title, []).append(line)
            elif name == "cell":
                title, row, column, text = value
                tables.setdefault(title, {}).setdefault(row, {}).setdefault(column, set()).add(text)
    for title, table in tables.items():
        lines.setdefault(title, []).extend(aligned(table))
    for title, texts in lines.items():
        terminalreporter.section(title)
        for text in texts:
            terminalreporter.write_line(text)


def aligned(table: dict[str, dict[str, set[str]]]) -> list[str]:
    """Lay out the texts of a table by row and column; different ones of the same cell side by side."""
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    cells = [["", *columns]]
    cells += [
        [name, *(" / ".join(sorted(row.get(column, "-"))) for column in columns)]
        for name, row in table.items()
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """A migrated Airflow database, for tests that run whole DAGs in this process."""
    # In a process of its own, because the migration leaves logging and the ORM in another state.
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        check=True,
        capture_output=True,
        env=dict(os.environ),
    )
