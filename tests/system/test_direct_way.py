"""The direct way: the CDF function of docs/patterns.md calls the API of a real Airflow, with a real login."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from clusters import IMPATIENT, Cluster

from airflow_provider_cdf.demo import FUNCTIONS, examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflow
from airflow_provider_cdf.emulator import CdfEmulator, Pace
from airflow_provider_cdf.emulator.rules.definitions import WorkflowDefinition

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "patterns.md"
DAG_ID = "cdf_called"
PASSWORDS = {"admin": "of-the-test", "cdf": "of-the-function"}


class Guarded(LocalAirflow):
    """An Airflow that lets in only those who log in."""

    def wait_until_healthy(self, timeout: float = 180) -> None:
        deadline = time.monotonic() + timeout
        login = {"username": "admin", "password": PASSWORDS["admin"]}
        while "Authorization" not in self._http.headers:
            try:
                token = self._http.post("/auth/token", json=login).raise_for_status().json()["access_token"]
                self._http.headers["Authorization"] = f"Bearer {token}"
            except httpx.HTTPError:
                self.check()
                assert time.monotonic() < deadline
                time.sleep(0.3)
        super().wait_until_healthy(timeout)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    dags = tmp_path_factory.mktemp("dags")
    shutil.copy(examples_folder() / f"{DAG_ID}.py", dags)
    passwords = dags / "passwords.json"
    passwords.write_text(json.dumps(PASSWORDS))
    with CdfEmulator(
        workflows=[examples_folder() / "workflows"], functions=FUNCTIONS, pace=Pace(retry_delay=1)
    ) as cdf:
        env = {
            **IMPATIENT,
            "AIRFLOW_CONN_CDF_DEFAULT": cdf.airflow_connection_uri(),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            # The role USER may start DAG runs, and sees no connections.
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,cdf:user",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        }
        with Guarded(dags, env=env) as airflow:
            airflow.wait_until_healthy()
            airflow._wait(lambda: airflow._is_parsed(DAG_ID), 120, lambda: f"{DAG_ID} was not parsed")
            airflow.api("PATCH", f"/dags/{DAG_ID}", json={"is_paused": False})
            yield Cluster(cdf, airflow)


class Function:
    """The CDF function ``ask_airflow``, as the document has it."""

    def __init__(self, cluster: Cluster, **given: Any) -> None:
        (code,) = (
            one
            for one in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
            if "def handle" in one
        )
        self.names: dict[str, Any] = {}
        exec(compile(code, "the handler of patterns.md", "exec"), self.names)
        # An Airflow that starts again takes seconds, on a busy machine a minute.
        self.names["PAUSES"] = given.pop("pauses", (1, 2, 4, 8, 15, 30, 60))
        self.secrets = {
            "airflow-url": cluster.airflow.url,
            "airflow-user": "cdf",
            "airflow-pass": PASSWORDS["cdf"],
            **given,
        }
        self.calls: list[dict[str, Any]] = []
        cluster.cdf.set_function("ask_airflow", self)

    def __call__(self, data: dict[str, Any]) -> Any:
        self.calls.append(data)
        return self.names["handle"](data=data, secrets=self.secrets)


class Started:
    """An execution that CDF has started itself."""

    def __init__(self, cluster: Cluster, workflow: str = "pump_health") -> None:
        self.cluster = cluster
        with cluster.cdf.turn() as engine:
            self.id = engine.run(workflow, "1", input={"pump": "P-101"}).id

    def execution(self) -> Any:
        with self.cluster.cdf.turn() as engine:
            return engine.store.executions[self.id]

    def scores(self) -> list[Any]:
        return [task for task in self.execution().tasks() if task.external_id == "score"]

    def runs(self) -> list[dict[str, Any]]:
        ids = {f"cdf__{score.id}" for score in self.scores()}
        found = self.cluster.airflow._pages(f"/dags/{DAG_ID}/dagRuns", "dag_runs")
        return [run for run in found if run["dag_run_id"] in ids]

    def wait_for(self, status: str, seconds: float = 240) -> None:
        self.wait_until(lambda: self.execution().status == status, seconds)

    def wait_until(self, happened: Callable[[], Any], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            tasks = [(task.external_id, str(task.status)) for task in self.execution().tasks()]
            assert time.monotonic() < deadline, tasks
            time.sleep(0.3)


def test_a_function_starts_a_dag_run_which_reports(cluster: Cluster) -> None:
    function = Function(cluster)
    started = Started(cluster)
    started.wait_for("COMPLETED")

    (run,), (score,), (data,) = started.runs(), started.scores(), function.calls
    assert run["dag_run_id"] == f"cdf__{score.id}"
    assert run["conf"] == data == {"pump": "P-101", "vibration": 7.2, "cogniteOrchestrationTaskId": score.id}
    assert run["triggering_user_name"] == "cdf"
    assert score.output["risk"] == 0.72
    (publish,) = [task for task in started.execution().tasks() if task.external_id == "publish"]
    assert publish.input["function"]["data"]["risk"] == 0.72


def test_a_call_that_is_repeated_starts_nothing_twice(cluster: Cluster) -> None:
    function = Function(cluster)
    started = Started(cluster)
    started.wait_for("COMPLETED")

    again = function(function.calls[0])
    assert again == {"dag_run_id": f"cdf__{started.scores()[0].id}"}
    assert len(started.runs()) == 1


def test_a_request_whose_answer_is_lost_starts_one_run(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = Function(cluster)
    post, lost = function.names["post"], []

    def loses_the_first(url: str, path: str, *arguments: Any) -> Any:
        answer = post(url, path, *arguments)
        if path.endswith("/dagRuns") and not lost:
            lost.append(answer)
            raise ConnectionResetError("on the way back")
        return answer

    function.names["post"] = loses_the_first
    started = Started(cluster)
    started.wait_for("COMPLETED")
    assert [status for status, _ in lost] == [200]
    assert len(started.runs()) == 1


def test_an_airflow_that_is_down_for_a_moment_is_asked_again(cluster: Cluster) -> None:
    function = Function(cluster)
    cluster.airflow.kill("api-server")
    started = Started(cluster)
    try:
        started.wait_until(lambda: function.calls)
        time.sleep(3)  # the function has been refused at least once, and pauses
        assert [str(score.status) for score in started.scores()] == ["IN_PROGRESS"]
    finally:
        cluster.airflow.start("api-server")
    started.wait_for("COMPLETED")
    assert (len(function.calls), len(started.runs())) == (1, 1)


def test_cdf_calls_the_function_again_where_airflow_stays_down(cluster: Cluster) -> None:
    task = {
        "externalId": "score",
        "type": "function",
        "parameters": {
            "function": {"externalId": "ask_airflow", "data": {"vibration": 3.9}},
            "isAsyncComplete": True,
        },
        "retries": 1,
    }
    with cluster.cdf.turn() as engine:
        engine.catalog.upsert_version(
            "calls_again", "1", WorkflowDefinition.model_validate({"tasks": [task]})
        )
    function = Function(cluster, pauses=())
    up = function.secrets["airflow-url"]
    function.secrets["airflow-url"] = "http://127.0.0.1:9"
    started = Started(cluster, "calls_again")
    started.wait_until(lambda: [str(score.status) for score in started.scores()][:1] == ["FAILED"])
    function.secrets["airflow-url"] = up
    started.wait_for("COMPLETED")

    first, second = started.scores()
    assert "ConnectionRefusedError" in first.reason
    assert [run["dag_run_id"] for run in started.runs()] == [f"cdf__{second.id}"]
    assert second.output["risk"] == 0.39


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"airflow-pass": "not-the-password"}, "401 is the answer to /auth/token"),
        ({"airflow-url": "http://127.0.0.1:9"}, "ConnectionRefusedError"),
        ({"DAG_ID": "unheard_of"}, "404 is the answer to /api/v2/dags/unheard_of/dagRuns"),
    ],
    ids=["wrong password", "down", "unknown DAG"],
)
def test_what_cannot_be_started_fails_the_execution_and_says_why(
    cluster: Cluster, wrong: dict[str, str], says: str
) -> None:
    dag_id = wrong.pop("DAG_ID", DAG_ID)
    function = Function(cluster, pauses=(0.1,), **wrong)
    function.names["DAG_ID"] = dag_id
    started = Started(cluster)
    started.wait_for("FAILED")

    (score,) = started.scores()
    assert score.status == "FAILED"
    assert f"Airflow has not started {dag_id}: " in score.reason
    assert says in score.reason
    assert function.secrets["airflow-pass"] not in score.reason
    assert started.runs() == []
