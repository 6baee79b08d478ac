"""What a DAG file loads by importing this package; tests/benchmarks/import_cost.py measures it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import airflow_provider_cdf.operators.task, airflow_provider_cdf.operators.workflow
import airflow_provider_cdf.sensors.task, airflow_provider_cdf.sensors.workflow
import airflow_provider_cdf.hooks.cdf
print(*sys.modules)
"""


def test_dag_files_do_not_pay_for_the_client() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    loaded = set(result.stdout.splitlines()[-1].split())
    assert "airflow_provider_cdf.triggers.workflow" in loaded
    client = {"models", "calls", "client", "conversations", "auth", "retry", "reading", "network"}
    assert not loaded & {f"airflow_provider_cdf.cdf.{name}" for name in client}
    # Of which CdfTaskOperator is made, and which takes longer than all of this package.
    assert "airflow.providers.standard.operators.python" not in loaded
