"""``cdf-demo``: the emulator, a real Airflow and the example DAG, from nothing, in one command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.client import CdfClient
    from airflow_provider_cdf.cdf.models import TaskExecution, WorkflowExecutionDetails
    from airflow_provider_cdf.demo.local_airflow import LocalAirflow
    from airflow_provider_cdf.demo.screen import Screen
    from airflow_provider_cdf.emulator import CdfEmulator

DAG_ID = "cdf_roundtrip"
WORKFLOW = "pump_health"
#: What the emulated functions answer. The vibration is the value whose journey the demo shows.
FUNCTIONS: dict[str, Any] = {
    "read_sensors": {"vibration": 7.2, "temperature": 61.5},
    "publish_score": {"published": True},
    "read_levels": {"T-1": 3.1, "T-2": 8.4},
    "balance_tanks": {"move": {"from": "T-2", "to": "T-1", "m": 2.65}},
    "list_pumps": {
        "tasks": [
            {
                "externalId": f"inspect_{pump}",
                "type": "function",
                "parameters": {
                    "function": {
                        "externalId": "ask_airflow",
                        "data": {"pump": pump, "vibration": vibration},
                    },
                    "isAsyncComplete": True,
                },
                "retries": 0,
                "timeout": 3600,
            }
            for pump, vibration in (("P-101", 7.2), ("P-102", 1.4), ("P-103", 3.9))
        ]
    },
}
#: Seconds that an emulated function takes: long enough for Airflow to defer, as it would with a real one.
FUNCTION_SECONDS = 5.0
#: Seconds that Airflow may take to start: a distributed one has ten processes.
START_TIMEOUT = 180.0
#: A watcher begins when its DAG's file is parsed again after the DAG was switched on.
WATCHERS_BEGIN_SOON = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5"}
#: Seconds that the DAG run may take.
RUN_TIMEOUT = 120.0


class DemoError(RuntimeError):
    """The demo did not do what it should; the message is for people."""


@dataclass(frozen=True)
class RoundTrip:
    """
    What the demo has seen with its own eyes, in CDF.

    :param received: what the task after Airflow's got as its input.
    """

    execution: WorkflowExecutionDetails
    measured: float
    reported: float
    received: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    options = _parser().parse_args(arguments)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _leave)
    try:
        from airflow_provider_cdf.demo.airflow_api import LocalAirflowError
        from airflow_provider_cdf.demo.local_airflow import Distributed, LocalAirflow
        from airflow_provider_cdf.demo.screen import Screen
        from airflow_provider_cdf.emulator import CdfEmulator  # noqa: F401 - is it there?
    except ImportError as error:
        print(  # noqa: T201 - a program's output
            f"cdf-demo needs the extra 'emulator' ({error}). In a checkout: pip install '.[emulator]'",
            file=sys.stderr,
        )
        return 2

    if int(version("apache-airflow").split(".")[0]) < 3:
        print("cdf-demo starts Airflow 3; this environment has an older one.", file=sys.stderr)  # noqa: T201
        return 2
    screen = Screen()
    try:
        shape = Distributed() if options.distributed else None
        with ExitStack() as stack:
            screen.step("Starting the CDF emulator")
            cdf = stack.enter_context(emulator(port=options.emulator_port))
            screen.step(f"The emulator is CDF now: {cdf.url}. Starting Airflow")
            airflow = stack.enter_context(
                LocalAirflow(
                    examples_folder(),
                    shape=shape,
                    port=options.airflow_port,
                    env={"AIRFLOW_CONN_CDF_DEFAULT": cdf.airflow_connection_uri()}
                    | (WATCHERS_BEGIN_SOON if options.inbox else {}),
                )
            )
            airflow.wait_until_healthy(START_TIMEOUT)
            if options.inbox:
                from airflow_provider_cdf.demo.inbox import taken_up

                screen.step(f"Airflow is healthy: {airflow.url}. CDF starts the workflow {WORKFLOW}")
                screen.summary(taken_up(cdf, airflow, screen))
            else:
                screen.step(f"Airflow is healthy: {airflow.url}. Running the DAG {DAG_ID}")
                screen.summary(round_trip(cdf, airflow, screen))
            if options.keep:
                screen.step(
                    f"Still running, until Ctrl-C: Airflow at {airflow.url}, the emulator at {cdf.url}. "
                    f"To use it from another Airflow:\n"
                    f"export AIRFLOW_CONN_CDF_DEFAULT='{cdf.airflow_connection_uri()}'"
                )
                while True:
                    airflow.check()
                    time.sleep(1)
    except KeyboardInterrupt:
        screen.step("Stopped; nothing is left running.")
        return 130
    except (DemoError, LocalAirflowError, OSError) as error:
        screen.failure(error)
        return 1
    return 0


def emulator(port: int = 0) -> CdfEmulator:
    """Return a CDF that has the examples' workflows and functions."""
    from airflow_provider_cdf.emulator import CdfEmulator, Pace

    return CdfEmulator(
        workflows=[examples_folder() / "workflows"],
        functions=FUNCTIONS,
        pace=Pace(function=FUNCTION_SECONDS),
        port=port,
    )


def round_trip(cdf: CdfEmulator, airflow: LocalAirflow, screen: Screen) -> RoundTrip:
    """
    Run the example DAG and watch both sides; then ask CDF, not Airflow, what has become of it.

    :raises DemoError: unless the execution is COMPLETED and what Airflow reported has arrived.
    """
    run_id = airflow.trigger_dag(DAG_ID)
    deadline = time.monotonic() + RUN_TIMEOUT
    with client_of(cdf, airflow) as client, screen.watching():
        while (state := airflow.dag_run_state(DAG_ID, run_id)) not in ("success", "failed"):
            airflow.check()
            screen.show(_tasks(airflow, run_id), _execution_of(client, run_id, cdf.project))
            if time.monotonic() > deadline:
                raise DemoError(f"The DAG run has not ended within {RUN_TIMEOUT:.0f} s; it is {state}.")
            time.sleep(0.3)
        execution = _execution_of(client, run_id, cdf.project)
        screen.show(_tasks(airflow, run_id), execution)
    if state == "failed":
        raise DemoError(why_failed(airflow, DAG_ID, run_id))
    if execution is None:
        raise DemoError(f"Airflow says that its run {run_id} is done, but CDF has no execution of it.")
    return judge(execution, airflow.xcom(DAG_ID, run_id, "judge"))


def judge(execution: WorkflowExecutionDetails, result_of_airflow: Any) -> RoundTrip:
    """
    Say whether the value has travelled from CDF through Airflow and back.

    :param execution: as CDF has it, after the DAG run.
    :param result_of_airflow: what the DAG's own task returned.
    :raises DemoError: if not, and where it was lost.
    """
    if execution.status != "COMPLETED":
        raise DemoError(f"Execution {execution.id} is {execution.status} in CDF, not COMPLETED.")
    tasks: dict[str, TaskExecution] = {task.external_id: task for task in execution.executed_tasks}
    measured = tasks["read"].output["response"]["vibration"]
    reported = (result_of_airflow or {}).get("risk")
    received = tasks["publish"].input["function"]["data"].get("risk")
    if reported is None or received != reported:
        raise DemoError(
            f"Airflow computed the risk {reported!r}, but CDF's task 'publish' received {received!r} "
            f"(execution {execution.id})."
        )
    return RoundTrip(execution, measured, reported, received)


def examples_folder() -> Path:
    """Return the example DAGs: part of an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(
        folder for folder in (package / "example_dags", package.parent / "example_dags") if folder.is_dir()
    )


def client_of(cdf: CdfEmulator, airflow: LocalAirflow) -> CdfClient:
    """Return a client of CDF, which asks as a user would."""
    # The client's errors are Airflow's, and to import Airflow makes it a home: not the user's own.
    os.environ["AIRFLOW_HOME"] = str(airflow.home)
    from airflow_provider_cdf.cdf.client import CdfClient
    from airflow_provider_cdf.cdf.logins.clients import ClientCredentials
    from airflow_provider_cdf.cdf.settings import Settings

    credentials = ClientCredentials(cdf.token_url, cdf.client_id, cdf.client_secret)
    return CdfClient(Settings(cdf.url, cdf.project, credentials))


def _execution_of(client: CdfClient, run_id: str, project: str) -> WorkflowExecutionDetails | None:
    from airflow_provider_cdf.cdf import calls

    def page_at(cursor: str | None) -> Any:
        return calls.list_executions(project, workflow_external_id=WORKFLOW, cursor=cursor)

    for execution in client.executions(page_at):
        if execution.metadata.get("airflow_run_id") == run_id:
            return client.send(calls.get_execution(project, execution.id))
    return None


def _tasks(airflow: LocalAirflow, run_id: str) -> list[dict[str, Any]]:
    """Return the tasks of the DAG run, with the component that each is in, where there are several."""
    tasks = airflow.task_instances(DAG_ID, run_id)
    return [task | {"component": airflow.component_of(task)} for task in tasks]


def why_failed(airflow: LocalAirflow, dag_id: str, run_id: str) -> str:
    """Return the ends of the logs of the tasks that have failed."""
    lines = ["The DAG run has failed."]
    for task in airflow.task_instances(dag_id, run_id):
        if task["state"] == "failed":
            log = airflow.task_log(dag_id, run_id, task["task_id"], task["try_number"]).splitlines()
            lines.append(f"The end of the log of its task {task['task_id']}:")
            lines += [f"    {line}" for line in log[-15:]]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cdf-demo",
        description="Starts a CDF emulator and a real Airflow on this machine, and lets Airflow do one task "
        "of a CDF workflow.",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="with Celery, Redis and Postgres: two workers, two triggerers (needs the extra 'distributed')",
    )
    parser.add_argument(
        "--inbox",
        action="store_true",
        help="the other direction: CDF starts the workflow, and Airflow finds the task that waits",
    )
    parser.add_argument("--keep", action="store_true", help="leave both running afterwards, until Ctrl-C")
    parser.add_argument(
        "--airflow-port", type=int, default=0, help="port of Airflow's UI (default: a free one)"
    )
    parser.add_argument(
        "--emulator-port", type=int, default=0, help="port of the emulator (default: a free one)"
    )
    return parser


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
