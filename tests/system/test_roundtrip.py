"""The main job on a real Airflow, through the code of ``cdf-demo``."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest
from clusters import Cluster
from rich.console import Console

from airflow_provider_cdf import demo
from airflow_provider_cdf.demo.screen import Screen

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def run_of_mistakes(cluster: Cluster) -> str:
    """Begun before everything else, because an unreachable host is asked for a minute."""
    return cluster.airflow.trigger_dag("mistakes")


def test_roundtrip_carries_the_value_and_shows_both_sides(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", os.environ["AIRFLOW_HOME"])  # round_trip() sets it: undone afterwards
    output = io.StringIO()
    screen = Screen(Console(file=output, highlight=False, width=120))
    trip = demo.round_trip(cluster.cdf, cluster.airflow, screen)
    screen.summary(trip)

    assert (trip.measured, trip.reported, trip.received) == (7.2, 0.72, 0.72)
    assert {task.external_id: str(task.status) for task in trip.execution.executed_tasks} == {
        "read": "COMPLETED",
        "score": "COMPLETED",
        "publish": "COMPLETED",
    }
    text = output.getvalue()
    assert trip.execution.id in text
    assert "score: IN_PROGRESS" in text
    assert "report: success" in text


def test_run_and_wait_is_deferred_and_hands_over_a_tasks_output(cluster: Cluster) -> None:
    run_id = cluster.airflow.trigger_dag("cdf_run_and_wait")
    assert cluster.airflow.wait_for_dag_run("cdf_run_and_wait", run_id) == "success"
    moved = cluster.airflow.xcom("cdf_run_and_wait", run_id, "use")
    assert moved == demo.FUNCTIONS["balance_tanks"]
    assert "Pausing task as DEFERRED" in cluster.airflow.task_log("cdf_run_and_wait", run_id, "run")


AN_EXECUTION = r"\[execution 11111111-2222-4333-8444-555555555555, "
MISTAKES = {
    "wrong_secret": r"The identity provider does not accept the client\. The token endpoint at "
    r"127\.0\.0\.1:\d+/oauth2/token said \(HTTP 401\)",
    "unknown_project": r"CDF refused to create a session to run the workflow \(HTTP 40.*has no access to "
    r"project 'unheard-of'; the projects of its token are: 'emulator'\..*\[project 'unheard-of', ",
    "unreachable_host": r"Could not create a session to run the workflow: no answer from "
    r"http://127\.0\.0\.1:9 .*Nothing was sent to CDF\. \[.*workflow 'pump_health' version '1'",
    "incomplete": r"Airflow connection 'cdf_incomplete' cannot be used: .*'project'.*tenant_id.*secret",
    "unknown_workflow": r"CDF refused to run the workflow \(HTTP 404\).*There is no such workflow in this "
    r"project\. \[workflow 'pump_helth' version '1', ",
    "unknown_version": r"CDF refused to run the workflow \(HTTP 404\).*The workflow exists, but it has no "
    r"such version\. \[workflow 'pump_health' version '99', ",
    "unknown_execution_poked": rf"CDF refused to read the execution \(HTTP 404\).*{AN_EXECUTION}",
    "unknown_execution_deferred": rf"CDF refused to read the execution \(HTTP 404\).*{AN_EXECUTION}",
    "unknown_status": r"CDF has no status 'SUCCESS' here\. Did you mean COMPLETED\?.*CDF is told that "
    r"this Airflow task has failed\.",
}


def test_each_mistake_ends_its_task_with_one_clear_sentence(cluster: Cluster, run_of_mistakes: str) -> None:
    airflow = cluster.airflow
    assert airflow.wait_for_dag_run("mistakes", run_of_mistakes, timeout=600) == "failed"
    tasks = {task["task_id"]: task for task in airflow.task_instances("mistakes", run_of_mistakes)}
    assert {task_id: task["state"] for task_id, task in tasks.items()} == dict.fromkeys(MISTAKES, "failed")

    for task_id, sentence in MISTAKES.items():
        log = airflow.task_log("mistakes", run_of_mistakes, task_id)
        assert re.search(sentence, log), log
        # Airflow shows the frames of an error. Of ours there is the last one only, which raises it.
        ours = re.findall(r'"filename": "[^"]*/airflow_provider_cdf/([^"]+)"', log)
        assert set(ours) == {"stack.py"}, log
        assert "/httpx/" not in log, log
        assert '"is_cause": true' not in log, log


def test_no_secret_and_no_token_is_in_any_log(cluster: Cluster) -> None:
    logs = [path for path in cluster.airflow.home.rglob("*.log") if path.is_file()]
    assert len(logs) > 10
    text = "\n".join(path.read_text(errors="replace") for path in logs)
    assert "execution" in text
    assert cluster.cdf.client_secret not in text
    assert "not-the-secret" not in text
    assert "Bearer " not in text
    # None has expired yet, so the emulator knows them all.
    tokens = cluster.cdf.tokens._tokens
    assert tokens
    assert not [token for token in tokens if token in text]


def airflow_command(cluster: Cluster, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        env=cluster.airflow.env,
        cwd=cluster.airflow.home,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_airflow_lists_the_provider(cluster: Cluster) -> None:
    assert "airflow-provider-cdf" in airflow_command(cluster, "providers", "list")


def test_airflow_accepts_a_connection_of_type_cdf(cluster: Cluster) -> None:
    extra = '{"project": "plant", "tenant_id": "contoso.onmicrosoft.com"}'
    host = "https://westeurope-1.cognitedata.com"
    airflow_command(
        cluster,
        *("connections", "add", "cdf_added", "--conn-type", "cdf", "--conn-host", host),
        *("--conn-login", "client", "--conn-password", "secret", "--conn-extra", extra),
    )
    connection = airflow_command(cluster, "connections", "get", "cdf_added", "-o", "json")
    assert '"conn_type": "cdf"' in connection


def test_airflows_ui_offers_the_connections_fields(cluster: Cluster) -> None:
    import httpx

    forms = httpx.get(f"{cluster.airflow.url}/ui/connections/hook_meta", trust_env=False).json()
    (form,) = [form for form in forms if form["connection_type"] == "cdf"]
    assert form["hook_name"] == "Cognite Data Fusion"
    assert {"project", "tenant_id", "login_url", "scopes", "audience", "idp", "organization"} <= set(
        form["extra_fields"]
    )
