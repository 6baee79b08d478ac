"""Tasks that run the workflow pump_health and wait for it, which takes until somebody reports."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_cdf.operators import notes
from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor

RETRY_DELAY = timedelta(seconds=1)
#: A DAG run may choose another one.
CONNECTION = "{{ dag_run.conf.get('connection', 'cdf_default') }}"


class WaitsAtTheDoor(CdfWorkflowRunOperator):
    """Its first try stops just before it notes that it starts an execution, until there is a file."""

    def execute(self, context: Any) -> Any:
        if context["ti"].try_number == 1:
            write_note = notes.write_note

            def at_the_door(*arguments: Any) -> None:
                self.log.info("At the door.")
                while not Path(context["dag_run"].conf["door"]).exists():
                    time.sleep(0.1)
                write_note(*arguments)

            notes.write_note = at_the_door
        return super().execute(context)


# Airflow 3.3 now and then fails a task that it resumes soon after its deferral: hence the retries.
for name, deferrable, retries in (("deferred", True, 3), ("poking", False, 1), ("without_retry", False, 0)):
    with DAG(f"waits_{name}", schedule=None):
        CdfWorkflowRunOperator(
            task_id="run",
            workflow_external_id="pump_health",
            version="1",
            input={"pump": "P-101"},
            poll_interval=1,
            deferrable=deferrable,
            retries=retries,
            retry_delay=RETRY_DELAY,
            cdf_conn_id=CONNECTION,
        )

for name, waits in (("at_the_door", True), ("at_the_door_to_start", False)):
    with DAG(f"waits_{name}", schedule=None):
        WaitsAtTheDoor(
            task_id="run",
            workflow_external_id="pump_health",
            version="1",
            input={"pump": "P-101"},
            wait_for_completion=waits,
            poll_interval=1,
            retries=1,
            retry_delay=RETRY_DELAY,
        )

for name, deferrable in (("mapped", False), ("mapped_deferred", True)):
    with DAG(f"waits_{name}", schedule=None):
        CdfWorkflowRunOperator.partial(
            task_id="run",
            workflow_external_id="pump_health",
            version="1",
            poll_interval=1,
            deferrable=deferrable,
            retries=0,
        ).expand(input=[{"pump": "P-101"}, {"pump": "P-102"}])

with DAG("waits_to_report", schedule=None):
    run = CdfWorkflowRunOperator(
        task_id="run",
        workflow_external_id="pump_health",
        version="1",
        input={"pump": "P-101"},
        wait_for_completion=False,
    )
    score_waits = CdfTaskSensor(
        task_id="score_waits", execution_id=run.output, task_external_id="score", poke_interval=1
    )
    report = CdfTaskUpdateOperator(
        task_id="report",
        execution_id=run.output,
        task_external_id="score",
        output={"risk": 0.1},
        retries=0,
    )

    @task.sensor(poke_interval=0.5)
    def let_go(dag_run: Any = None) -> bool:
        """Wait for a file, if the DAG run names one: what is behind reads an XCom of what may run again."""
        return "let_go" not in dag_run.conf or Path(dag_run.conf["let_go"]).exists()

    run >> let_go() >> score_waits >> report

with DAG("waits_for_nobody", schedule=None):
    run = CdfWorkflowRunOperator(
        task_id="run",
        workflow_external_id="pump_health",
        version="1",
        input={"pump": "P-101"},
        wait_for_completion=False,
    )

    @task
    def goes_on(**context: Any) -> None:
        """Let the DAG run go on until there is a file."""
        while not Path(context["dag_run"].conf["door"]).exists():
            time.sleep(0.1)

    run >> goes_on()
