"""Links to Airflow's UI, for those who read in CDF what Airflow did."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote


def run_url(ti: Any) -> str | None:
    """Return the page of a task instance's DAG run; ``None`` if Airflow does not tell its own address."""
    if (found := _page(ti)) is None:
        return None
    below = "/grid?dag_run_id=" if _is_grid(found) else "/runs/"
    return f"{found[1]}{_quoted(ti.dag_id)}{below}{_quoted(ti.run_id)}"


def task_url(ti: Any, task_id: str, map_index: int) -> str | None:
    """Return the page of a task instance of the same DAG run, with its logs."""
    found, run = _page(ti), run_url(ti)
    if found is None or run is None:
        return None
    if not _is_grid(found):
        mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
        return f"{run}/tasks/{_quoted(task_id)}{mapped}"
    mapped = f"&map_index={map_index}" if map_index >= 0 else ""
    # Without the date, which is the same for all tasks of a run, the grid shows the latest runs only.
    date = re.search(r"&base_date=[^&#]+", found.string)
    return f"{run}&task_id={_quoted(task_id)}{mapped}{date[0] if date else ''}&tab=logs"


def _page(ti: Any) -> re.Match[str] | None:
    # A task's own log is the one address that Airflow tells, in all its versions.
    own = getattr(ti, "log_url", None)
    return re.match(r"(https?://.+?/dags/)[^/]+/(grid|runs)", own) if isinstance(own, str) else None


def _is_grid(page: re.Match[str]) -> bool:
    """Whether a page is one of Airflow 2, where one page shows all, and its query says what."""
    return page[2] == "grid"


def _quoted(segment: str) -> str:
    return quote(segment, safe="")
