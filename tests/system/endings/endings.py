"""The ways to end a DAG that docs/patterns.md teaches, each with whatever may happen to its work."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain, task

from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowCancelOperator, CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor

WAYS = ("report", "report_teardown", "cancel_teardown", "both")
#: What befalls a DAG run; what people do, the test does.
EVENTS = (
    "success",
    "failure",
    "fail_fast",
    "branched",
    "short_circuited",
    "marked_running",
    "marked_retry",
    "marked_queued",
    "marked_early",
    "cleared",
    "timed_out",
    "timed_out_with_callback",
    "run_skipped",
    "run_refused",
)
HOLDING = ("marked_running", "cleared", "timed_out", "timed_out_with_callback")
#: Long enough for the work to begin on a busy machine; else the test starts another DAG run.
DAGRUN_TIMEOUT = timedelta(seconds=60)


def cancel_in_cdf(context: Any) -> None:
    """Do what docs/patterns.md has for a DAG with a dagrun_timeout."""
    execution_id = context["ti"].xcom_pull(task_ids="run")
    if execution_id:
        CdfHook().cancel_execution(execution_id, "The DAG run has failed.")


def judge(event: str) -> Any:
    """Make the task that does the work; it holds on until its DAG run's file is there."""

    @task(
        task_id="judge",
        retries=1 if event == "marked_retry" else 0,
        retry_delay=timedelta(hours=1),
        pool="closed" if event == "marked_queued" else "default_pool",
    )
    def judge(task_input: Any, **context: Any) -> dict[str, float]:
        if event in ("failure", "fail_fast", "marked_retry"):
            raise RuntimeError("the historian is down")
        held = Path(context["dag_run"].conf["let_go"])
        while event in HOLDING and not held.exists():
            time.sleep(0.2)
        return {"risk": 0.1}

    return judge


def end(way: str, event: str) -> None:
    run = CdfWorkflowRunOperator(
        task_id="run",
        workflow_external_id="pump_health",
        version="99" if event == "run_refused" else "1",
        input={"pump": event},
        wait_for_completion=False,
    )
    of_score = {"execution_id": run.output, "task_external_id": "score"}
    waits = CdfTaskSensor(task_id="waits", deferrable=True, poke_interval=1, **of_score)
    judged = judge(event)(waits.output["input"])
    report = CdfTaskUpdateOperator(task_id="report", output=judged, **of_score)
    ended = CdfWorkflowSensor(task_id="ended", execution_id=run.output, deferrable=True, poke_interval=1)

    if event == "branched":

        @task.branch
        def is_worth_it() -> str:
            return "nothing_to_do"

        waits >> is_worth_it() >> [judged, EmptyOperator(task_id="nothing_to_do")]
    if event == "short_circuited":

        @task.short_circuit
        def is_worth_it() -> bool:
            return False

        waits >> is_worth_it() >> judged
    if event == "run_skipped":

        @task.branch
        def is_it_time() -> str:
            return "not_yet"

        is_it_time() >> [run, EmptyOperator(task_id="not_yet")]

    if way == "report":
        report >> ended
        return
    steps: list[Any] = [report]
    if way in ("cancel_teardown", "both"):
        stop = CdfWorkflowCancelOperator(
            task_id="stop", execution_id=run.output["execution_id"], unless_succeeded=True
        )
        steps.append(stop)
    chain(*steps, ended)
    # Whatever comes right behind a setup has to be a teardown, or to want all_success.
    setups = None if way == "cancel_teardown" else run
    for step in steps if way != "cancel_teardown" else [stop]:
        step.as_teardown(setups=setups)
    ended.as_teardown(setups=setups, on_failure_fail_dagrun=True)


for way in WAYS:
    for event in EVENTS:
        with DAG(
            f"{way}__{event}",
            schedule=None,
            fail_fast=event == "fail_fast",
            dagrun_timeout=DAGRUN_TIMEOUT if event.startswith("timed_out") else None,
            on_failure_callback=cancel_in_cdf if event == "timed_out_with_callback" else None,
        ):
            end(way, event)
