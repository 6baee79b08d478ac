"""200 mapped runs on two workers of four slots."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable

import psutil
import pytest
from chaos import patiently
from clusters import Cluster

from airflow_provider_cdf.demo.processes import marked

pytestmark = pytest.mark.long

#: Seconds that only a run that stands still exceeds.
PATIENCE = 7200
TITLE = "distributed: 200 mapped runs with deferral, 2 workers of 4 slots"


def test_200_mapped_runs_end_well_with_one_execution_each(
    cluster: Cluster, record_property: Callable[[str, object], None]
) -> None:
    airflow, began, peak = cluster.airflow, time.monotonic(), 0.0
    run_id = airflow.trigger_dag("full_house")
    while patiently(lambda: airflow.dag_run_state("full_house", run_id)) not in ("success", "failed"):
        assert time.monotonic() - began < PATIENCE
        peak = max(peak, sum(map(memory, marked(airflow.mark))) / 1e9)
        time.sleep(5)
    minutes = (time.monotonic() - began) / 60
    with cluster.cdf.turn() as engine:
        mine = [
            execution
            for execution in engine.store.executions.values()
            if execution.metadata.get("airflow_run_id") == run_id
        ]
    per_site = Counter(execution.input["site"] for execution in mine)
    load = os.getloadavg()[2]
    line = f"{minutes:.1f} minutes, at most {peak:.1f} GB, {len(mine)} executions; load {load:.0f}"
    print(line)
    record_property("summary", (TITLE, line))
    assert airflow.dag_run_state("full_house", run_id) == "success"
    assert len(per_site) == 200
    assert set(per_site.values()) == {1}
    assert {str(execution.status) for execution in mine} == {"COMPLETED"}


def memory(process: psutil.Process) -> int:
    """Bytes of a process, its part of what it shares with others."""
    with contextlib.suppress(psutil.Error):  # it may just have ended
        return int(process.memory_full_info().pss)
    return 0
