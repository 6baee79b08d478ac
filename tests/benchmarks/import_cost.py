"""
What a DAG file pays for importing this package, and what it pays for other providers.

Every parse of a DAG file pays it. Each import is timed in processes of its own, in turn, so that a machine
that gets slower half-way makes no difference; the figures are medians.

    python tests/benchmarks/import_cost.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

BASE = "from airflow.sdk import DAG, BaseOperator"
OURS = """
import airflow_provider_cdf.operators.task, airflow_provider_cdf.operators.workflow
import airflow_provider_cdf.sensors.task, airflow_provider_cdf.sensors.workflow
import airflow_provider_cdf.triggers.task, airflow_provider_cdf.triggers.workflow
"""
CANDIDATES = {
    "all operators, sensors and triggers of this package": OURS,
    "airflow.triggers.base, which every trigger needs": "import airflow.triggers.base",
    "cognite-sdk, which an own operator would use": "import cognite.client",
}
ROUNDS = 11
#: Milliseconds that the package may cost over the base.
LIMIT = 25.0


def cost(statements: str) -> float:
    """Milliseconds that some imports take in a new process that has already imported the base."""
    program = (
        f"{BASE}\nimport time\nbegan = time.perf_counter()\n{statements}\nprint(time.perf_counter() - began)"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(result.stdout.splitlines()[-1]) * 1000


def measure() -> dict[str, float]:
    """Median cost in milliseconds, by candidate."""
    times: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    for round_number in range(ROUNDS + 1):
        for name, statements in CANDIDATES.items():
            taken = cost(statements)
            if round_number:  # the first one may have compiled byte code
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    medians = measure()
    ours = next(iter(medians.values()))
    print(f"Milliseconds over `{BASE}`, median of {ROUNDS}:")
    for name, median in medians.items():
        print(f"  {median:7.1f}  ({median / ours:4.1f} x)  {name}")
    sys.exit(0 if ours <= LIMIT else f"The limit is {LIMIT} ms.")
