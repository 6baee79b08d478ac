"""Links to Airflow's UI, for those who read in CDF what Airflow did."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote


def run_url(ti: Any) -> str | None:
    """Return the page of a task instance's DAG run; ``None`` if Airflow does not tell its own address."""
    # A task's own log is the one address that Airflow tells, in all its versions.
    own = getattr(ti, "log_url", None)
    found = re.match(r"(https?://.+?/dags/)[^/]+/(grid|runs)", own) if isinstance(own, str) else None
    if found is None:
        return None
    below = "/grid?dag_run_id=" if found[2] == "grid" else "/runs/"  # Airflow 2, and 3
    return f"{found[1]}{_quoted(ti.dag_id)}{below}{_quoted(ti.run_id)}"


def task_url(ti: Any, task_id: str, map_index: int) -> str | None:
    """Return the page, on Airflow 3, of a task instance of the same DAG run, with its logs."""
    run = run_url(ti)
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return None if run is None else f"{run}/tasks/{_quoted(task_id)}{mapped}"


def _quoted(segment: str) -> str:
    return quote(segment, safe="")
