"""An Airflow with Celery, Redis and Postgres: two schedulers, triggerers and workers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import IMPATIENT, Cluster

from airflow_provider_cdf.demo import emulator, examples_folder
from airflow_provider_cdf.demo.local_airflow import Distributed, LocalAirflow, LocalAirflowError

#: Seconds in which a distributed Airflow starts, however busy the machine is.
START = 240

#: As in the tests of the small shape; but Airflow starts tasks twice where tasks queue for longer than its
#: timeout (apache/airflow#65248), and two workers of four slots let them.
PATIENT = {name: value for name, value in IMPATIENT.items() if "QUEUED_TIMEOUT" not in name}


def dags_with_retries(folder: Path, retries: int = 3) -> None:
    """Write the examples, with retries as a careful user would give them, and the tests' own DAGs."""
    for file in examples_folder().glob("*.py"):
        text, replaced = re.subn(
            r'"retries": \d+, "retry_delay": timedelta\(seconds=\d+\)',
            f'"retries": {retries}, "retry_delay": timedelta(seconds=1)',
            file.read_text(),
        )
        if replaced:
            (folder / file.name).write_text(text)
    for dags in (Path(__file__).parents[1] / "dags", Path(__file__).parent / "dags"):
        for file in dags.glob("*.py"):
            shutil.copy(file, folder)


def start_cluster(folder: Path, settings: dict[str, str]) -> Iterator[Cluster]:
    """Start a cluster that has its connection in Airflow's database, and its XComs in files."""
    try:
        shape = Distributed()
    except LocalAirflowError as error:
        pytest.skip(str(error))
    dags = folder / "dags"
    dags.mkdir()
    dags_with_retries(dags)
    env = {
        **PATIENT,
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
        "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "64",
        "AIRFLOW__CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"file://{folder / 'xcoms'}",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
        **settings,
    }
    with emulator() as cdf, LocalAirflow(dags, shape=shape, env=env) as airflow:
        command = ["connections", "add", "cdf_default", "--conn-uri", cdf.airflow_connection_uri()]
        subprocess.run(
            [sys.executable, "-m", "airflow", *command],
            env=airflow.env,
            cwd=airflow.home,
            check=True,
            capture_output=True,
        )
        airflow.wait_until_healthy(START)
        yield Cluster(cdf, airflow)
