"""
The benchmarks in small, as assertions: counts, and ratios that a busy machine does not change much.

The goals themselves, and how far each is met, are in docs/performance.md.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import one_call
from canned_cdf import Cdf, execution_id
from import_cost import OURS as OUR_IMPORTS
from triggerer import NOTHING, Case, Result, measure

from airflow_provider_cdf.cdf import reading
from airflow_provider_cdf.cdf.models import WorkflowExecutionDetails

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def costs() -> dict[str, Result]:
    """What 200 triggers cost, by who waits."""
    cases = {
        NOTHING: Case(NOTHING, 200),
        "workflow": Case("workflow", 200),
        "task": Case("task", 200, executions=5),
        "httpx": Case("httpx", 200),
    }
    for case in cases.values():
        case.interval, case.intervals, case.windows = 2.0, 3, 1
    return {name: measure(case)[0][0] for name, case in cases.items()}


def test_waiting_costs_a_request_for_each_interval_and_not_for_each_trigger(costs: dict[str, Result]) -> None:
    assert 0 < costs["workflow"].requests_per_interval <= 1.5
    assert 0 < costs["task"].requests_per_interval <= 5 * 1.5
    assert costs["httpx"].requests_per_interval > 10


def test_waiting_costs_little_cpu_and_memory_beside_a_poll_for_each_trigger(costs: dict[str, Result]) -> None:
    # Beyond what the looking, and Airflow itself, need for each.
    ours, theirs = (costs[who].cpu_percent - costs[NOTHING].cpu_percent for who in ("workflow", "httpx"))
    assert ours < theirs / 2
    assert costs["workflow"].each - costs[NOTHING].each < 20
    assert costs["task"].each - costs[NOTHING].each < 20


@pytest.mark.parametrize("kind", ["numbers", "objects"])
def test_a_poll_of_a_large_execution_makes_little_of_it(kind: str) -> None:
    content = Cdf(1, tasks=50, output=100_000, kind=kind)._details(execution_id(0))
    poll = min(_cpu(lambda: reading.ExecutionPolls().read(content)) for _ in range(5))
    models = min(_cpu(lambda: WorkflowExecutionDetails.model_validate_json(content)) for _ in range(5))
    assert poll < models * 0.6


@pytest.mark.parametrize("name", ["get_execution, 3 tasks", "get_execution, 200 tasks", "update_task"])
def test_one_call_costs_little_more_than_bare_httpx_and_less_than_the_sdk(name: str) -> None:
    result = one_call.measure(name, rounds=5, calls=5, clock=time.process_time)
    assert result.over_httpx < 2
    assert result.over_sdk < 1


def test_a_dag_file_does_not_load_what_talks_to_cdf() -> None:
    program = f"import sys{OUR_IMPORTS}print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    loaded = set(result.stdout.splitlines()[-1].split())
    heavy = {"models", "calls", "client", "conversations", "auth", "retry", "reading", "network"}
    assert not loaded & {f"airflow_provider_cdf.cdf.{name}" for name in heavy}


def _cpu(call: object) -> float:
    began = time.process_time()
    call()  # type: ignore[operator]
    return time.process_time() - began
