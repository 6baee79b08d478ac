"""The cluster that ``cdf-demo`` makes: the emulator and a real Airflow with the example DAGs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from clusters import IMPATIENT, Cluster

from airflow_provider_cdf.demo import emulator, examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflow


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    dags = tmp_path_factory.mktemp("dags")
    for folder in (examples_folder(), Path(__file__).parent / "dags"):
        for file in folder.glob("*.py"):
            shutil.copy(file, dags)
    with emulator() as cdf:
        uri = cdf.airflow_connection_uri()
        wrong = {
            "CDF_DEFAULT": uri,
            "CDF_WRONG_SECRET": uri.replace(quote(cdf.client_secret, safe=""), "not-the-secret"),
            "CDF_UNKNOWN_PROJECT": uri.replace(f"project={cdf.project}", "project=unheard-of"),
            # Port 9 is never listened on: the token endpoint works, CDF itself does not.
            "CDF_UNREACHABLE_HOST": uri.replace(
                quote(cdf.url, safe=""), quote("http://127.0.0.1:9", safe=""), 1
            ),
            "CDF_INCOMPLETE": "cdf://some-client@westeurope-1",
        }
        env = {f"AIRFLOW_CONN_{name}": value for name, value in wrong.items()}
        with LocalAirflow(dags, env=env | IMPATIENT) as airflow:
            airflow.wait_until_healthy()
            yield Cluster(cdf, airflow)
