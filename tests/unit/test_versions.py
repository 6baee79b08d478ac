"""What the package believes of each Airflow is so in the one that runs the tests."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import Connection
from airflow.triggers.base import BaseTrigger

from airflow_provider_cdf import versions

PACKAGE = Path(versions.__file__).parent


def test_triggers_hear_of_a_kill() -> None:
    assert hasattr(BaseTrigger, "on_kill") == versions.HAS_ON_KILL


def test_tasks_ask_airflow_or_the_database() -> None:
    if not versions.HAS_TASK_API:
        from airflow.sensors.base import _orig_start_date

        assert callable(_orig_start_date)
        with pytest.raises(ImportError):
            import_module("airflow.sdk")
        return
    task_runner = import_module("airflow.sdk.execution_time.task_runner")
    for name in ("get_task_states", "get_first_reschedule_date"):
        assert hasattr(task_runner.RuntimeTaskInstance, name)


def test_callbacks_of_a_dag_ask_where_they_are_answered() -> None:
    # Others may answer, too; but no release that does not may be asked.
    if versions.HAS_TASK_API and versions.HAS_STATES_IN_CALLBACKS:
        assert hasattr(import_module("airflow.dag_processing.processor"), "GetTaskStates")


def test_secrets_are_masked_where_it_says() -> None:
    assert callable(import_module(versions.MASKING).mask_secret)


def test_connections_are_read_on_event_loops_where_that_masks_without_blocking() -> None:
    assert hasattr(Connection, "aextra_dejson") == versions.HAS_ASYNC_CONNECTIONS


def test_nothing_else_asks_which_airflow_this_is() -> None:
    asking = re.compile(r"\bAIRFLOW_V(ERSION\b|_\d)|from airflow import __version__|airflow\.__version__")
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "versions.py"]
    assert len(files) > 50
    assert [str(path) for path in files if asking.search(path.read_text())] == []


DOCUMENT = Path(__file__).parents[2] / "docs" / "versions.md"
#: From which column of its table on something is there, by how its line begins.
IN_THE_TABLE = {
    "A task that is **deferred** and marked": (3, 3),
    "A first try asks CDF for nothing": (3, 3),
    "`render_template_as_native_obj`": (3, 2),
    "`cdf-demo`": (3, 0),
}


def test_the_table_says_the_same() -> None:
    lines = DOCUMENT.read_text().splitlines()
    (header,) = [line for line in lines if line.startswith("| what | 2.11 |")]
    columns = [tuple(map(int, cell.strip().split("."))) for cell in header.split("|")[2:-1]]
    for begins, since in IN_THE_TABLE.items():
        (line,) = [line for line in lines if line.startswith(f"| {begins}")]
        answers = [cell.strip().startswith("yes") for cell in line.split("|")[2:-1]]
        assert answers == [column >= since for column in columns], line
