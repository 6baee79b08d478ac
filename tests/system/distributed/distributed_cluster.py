"""An Airflow with Celery, Redis and Postgres: two schedulers, triggerers and workers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import write_dags
from clusters import IMPATIENT, Cluster

from airflow_provider_cdf.demo import emulator
from airflow_provider_cdf.demo.local_airflow import Distributed, LocalAirflow, LocalAirflowError

#: Seconds in which a distributed Airflow starts, however busy the machine is.
START = 240

#: As in the tests of the small shape; but Airflow starts tasks twice where tasks queue for longer than its
#: timeout (apache/airflow#65248), and two workers of four slots let them.
PATIENT = {name: value for name, value in IMPATIENT.items() if "QUEUED_TIMEOUT" not in name}


def start_cluster(
    folder: Path, settings: dict[str, str] | None = None, *, slots: int = 4
) -> Iterator[Cluster]:
    """
    Start a cluster that has its connection in Airflow's database, and its XComs in files.

    :param folder: for DAGs and XComs, see :func:`xcoms_of`.
    :param settings: environment variables beyond those of all tests.
    :param slots: tasks that each worker runs at a time.
    """
    try:
        shape = Distributed(slots=slots)
    except LocalAirflowError as error:
        pytest.skip(str(error))
    dags = folder / "dags"
    dags.mkdir()
    write_dags(dags)
    for tests in (Path(__file__).parents[1] / "dags", Path(__file__).parent / "dags"):
        for file in tests.glob("*.py"):
            shutil.copy(file, dags)
    env = {
        **PATIENT,
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
        "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "64",
        "AIRFLOW__CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"file://{xcoms_of(dags)}",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
        **(settings or {}),
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


def xcoms_of(dags: Path) -> Path:
    """Where a cluster with these DAGs keeps its XComs."""
    return dags.parent / "xcoms"
