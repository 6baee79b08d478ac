"""
What a DAG file pays for importing this package, and what it pays for other providers.

Every parse of a DAG file pays it. Each import is timed in processes of its own, in turn, so that a machine
that gets slower half-way makes no difference; the figures are medians.

    python tests/benchmarks/import_cost.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

BASE = "from airflow.sdk import DAG, BaseOperator"
#: All that a DAG file may name.
OURS = """
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator, CdfWorkflowCancelOperator
from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor
from airflow_provider_cdf.triggers.task import CdfTaskTrigger
from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger
from airflow_provider_cdf.hooks.cdf import CdfHook
"""
CANDIDATES = {
    "operators, sensors, triggers and hook of this package": OURS,
    "airflow.triggers.base, which every trigger needs": "import airflow.triggers.base",
    "dbt-cloud: operator, sensor, hook": """
import airflow.providers.dbt.cloud.operators.dbt, airflow.providers.dbt.cloud.sensors.dbt
import airflow.providers.dbt.cloud.hooks.dbt""",
    "databricks: operator, sensor, hook": """
import airflow.providers.databricks.operators.databricks, airflow.providers.databricks.hooks.databricks
import airflow.providers.databricks.sensors.databricks""",
    "airbyte: operator, sensor, hook": """
import airflow.providers.airbyte.operators.airbyte, airflow.providers.airbyte.sensors.airbyte
import airflow.providers.airbyte.hooks.airbyte""",
    "fivetran-async: operator, sensor": """
import fivetran_provider_async.operators, fivetran_provider_async.sensors""",
    "cognite-sdk, which an own operator would use": "import cognite.client",
}
ROUNDS = 11
#: Milliseconds that the package may cost over the base.
LIMIT = 10.0


def cost(statements: str) -> float | None:
    """Milliseconds that some imports take in a new process that has imported the base; None if they fail."""
    program = (
        f"{BASE}\nimport time\nbegan = time.perf_counter()\n{statements}\nprint(time.perf_counter() - began)"
    )
    # Airflow's processes have byte code, too; the first run of each, which is not counted, writes it.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    return float(result.stdout.splitlines()[-1]) * 1000 if result.returncode == 0 else None


def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Median cost in milliseconds, by candidate that is installed."""
    times: dict[str, list[float]] = {
        name: [] for name, statements in CANDIDATES.items() if cost(statements) is not None
    }
    for _ in range(rounds):
        for name, of in times.items():
            taken = cost(CANDIDATES[name])
            if taken is not None:
                of.append(taken)
    return {name: statistics.median(of) for name, of in times.items()}


def text(rounds: int = ROUNDS) -> Iterator[str]:
    medians = measure(rounds)
    ours = next(iter(medians.values()))
    yield f"imports, milliseconds over `{BASE}`"
    for name, median in medians.items():
        yield f"  {name:<58}{median / ours:>7.1f} x{median:>9.1f} ms"
    if ours > LIMIT:
        yield f"  misses its goal of {LIMIT:g} ms"


if __name__ == "__main__":
    print("\n".join(text()))
