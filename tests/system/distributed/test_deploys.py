"""Deploys, and what a broker or a machine does to components, while runs wait."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

import psutil
import pytest
from clusters import Cluster
from distributed_cluster import START, start_cluster
from runs import Run

pytestmark = pytest.mark.long

#: Seconds for what takes some ten of them on a machine that does nothing else. Longer than a task may be
#: queued (600): what a Celery worker takes up while its result backend is away, it may never begin.
PATIENCE = 1200


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # Ten tasks that poll hold ten slots, and the deferred ones need some to begin and to end.
    # Airflow's own patience with heartbeats, because its api-server is restarted, too. On a busy machine
    # those of a triggerer that is well come late by ten seconds, and its triggers move by themselves.
    patient = {
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "30",
    }
    yield from start_cluster(tmp_path_factory.mktemp("deploys"), patient, slots=8)


def worker_of(run: Run) -> str:
    """The name of the worker that runs a task."""
    task, _ = run.processes()
    pids = {process.pid: name for name, process in run.cluster.airflow.processes.items()}
    return next(pids[parent.pid] for parent in task.parents() if parent.pid in pids)


def tree(cluster: Cluster, name: str) -> list[psutil.Process]:
    main = psutil.Process(cluster.airflow.processes[name].pid)
    return [main, *main.children(recursive=True)]


def terminate_all(cluster: Cluster, name: str) -> None:
    """Send SIGTERM to all processes of a component, as systemd does."""
    for process in tree(cluster, name):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()


@contextlib.contextmanager
def restarted(cluster: Cluster, name: str) -> Iterator[None]:
    """Something that ends a component; then wait until the next one has taken its place."""
    before = cluster.airflow.processes[name]
    yield
    wait_until(lambda: cluster.airflow.processes[name] is not before)
    cluster.airflow.wait_until_healthy(START)


def wait_until(happened: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def ends_well(run: Run) -> None:
    run.finish_in_cdf()
    assert run.cluster.airflow.wait_for_dag_run(run.dag_id, run.id, timeout=PATIENCE) == "success"
    assert run.statuses() == ["COMPLETED"]


def test_a_warm_shutdown_of_a_worker_lets_the_task_finish(cluster: Cluster) -> None:
    run = Run(cluster, "poking")
    run.wait_for_log("CDF has started workflow")
    name = worker_of(run)
    worker = cluster.airflow.processes[name]
    with restarted(cluster, name):
        # To the main process alone, as `airflow celery stop` does.
        worker.signal(signal.SIGTERM, tree=False)
        wait_until(lambda: worker.has_said("Warm shutdown"))
        ends_well(run)
    assert run.task()["try_number"] == 1


def test_sigterm_to_all_processes_of_a_worker_leaves_the_execution_to_the_next_try(cluster: Cluster) -> None:
    run = Run(cluster, "poking")
    run.wait_for_log("CDF has started workflow")
    name = worker_of(run)
    with restarted(cluster, name):
        terminate_all(cluster, name)
    run.wait_until(lambda: run.task()["try_number"] == 2 and run.task()["state"] == "running", PATIENCE)
    ends_well(run)


@contextlib.contextmanager
def many(cluster: Cluster, deferred: int, poking: int) -> Iterator[list[Run]]:
    """Runs that wait while something happens; then all end well, with one execution each."""
    runs = [Run(cluster, "deferred", "many") for _ in range(deferred)]
    runs += [Run(cluster, "poking", "many") for _ in range(poking)]
    for run in runs:
        run.wait_until(lambda run=run: run.statuses() == ["RUNNING"], PATIENCE)
    for run in runs[:deferred]:
        run.wait_until(lambda run=run: has_begun(run), PATIENCE)
    yield runs
    lost = [run for run in runs if run.statuses() != ["RUNNING"]]
    assert not lost, "\n".join(
        f"{run.statuses()}\n{run.log(try_number)}" for run in lost for try_number in (1, 2)
    )
    for run in runs:
        run.finish_in_cdf()
    for run in runs:
        assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id, timeout=PATIENCE) == "success"
        assert run.statuses() == ["COMPLETED"]
        assert cancellations(run) == 0


def cancellations(run: Run) -> int:
    """How often CDF was asked to cancel an execution of a run."""
    return sum(run.cluster.cdf.journal.count("POST", f"*/{one.id}/cancel") for one in run.executions())


def test_a_rolling_restart_of_everything_under_waiting_runs(cluster: Cluster) -> None:
    with many(cluster, deferred=20, poking=10):
        for name in cluster.airflow.shape.components:
            with restarted(cluster, name):
                terminate_all(cluster, name)


def test_a_restart_of_the_broker_and_of_the_database_loses_nothing(cluster: Cluster) -> None:
    with many(cluster, deferred=5, poking=2):
        for name in ("redis", "postgres"):
            with restarted(cluster, name):
                cluster.airflow.kill(name)


def triggerer_of(run: Run) -> str | None:
    task = run.task()
    return run.cluster.airflow.component_of(task) if task["state"] == "deferred" else None


def wait_for_triggerer_of(run: Run) -> str:
    run.wait_for_log(" starting", seconds=PATIENCE)
    name = triggerer_of(run)
    assert name
    return name


def has_begun(run: Run, since: str = "") -> bool:
    """Whether a triggerer has begun to run the trigger, which is a while after it was given it."""
    return is_said(run.log().splitlines(), " starting", since)


def is_told(run: Run, since: str) -> bool:
    """Whether a triggerer was told that the task is killed, and found that it is not."""
    airflow = run.cluster.airflow
    # Airflow may have forgotten meanwhile whose log is whose: then it is in that of the triggerer.
    logs = [run.log(), *(log.read_text() for log in airflow.home.glob("triggerer-*.log"))]
    which = f"[execution {run.executions()[0].id}]"
    lines = [line for log in logs for line in log.splitlines() if which in line]
    return is_said(lines, "only the trigger moves", since)


def is_said(lines: Iterable[str], words: str, since: str) -> bool:
    # Not how often: a triggerer that gets a trigger again writes over what it has logged of it before.
    return any(words in line and line[: len(since)] >= since for line in lines)


def now() -> str:
    """The time, as the lines of logs begin."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"


@contextlib.contextmanager
def frozen(cluster: Cluster, name: str, runs: Sequence[Run]) -> Iterator[None]:
    """
    A triggerer stands still for longer than its health threshold, so that its triggers move to the other.

    Afterwards it is told that it has lost them, or ends.
    """
    triggerer = cluster.airflow.processes[name]
    processes = tree(cluster, name)
    before = now()
    moving = [run for run in runs if triggerer_of(run) == name]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # a child may just have ended
            process.suspend()
    try:
        wait_until(lambda: not any(triggerer_of(run) == name for run in moving))
        wait_until(lambda: all(has_begun(run, before) for run in moving))
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
    wait_until(
        lambda: (
            cluster.airflow.processes[name] is not triggerer
            # Before it stood still, it may just have lost one by itself.
            or all(is_told(run, before) for run in moving)
        )
    )
    cluster.airflow.wait_until_healthy(START)


def test_triggers_that_move_while_their_tasks_are_deferred(cluster: Cluster) -> None:
    with many(cluster, deferred=10, poking=0) as runs:
        for name in ("triggerer-1", "triggerer-2"):
            with frozen(cluster, name, runs):
                pass


def test_a_trigger_that_moves_while_its_task_is_queued(cluster: Cluster) -> None:
    run = Run(cluster, "deferred")
    workers = [psutil.Process(cluster.airflow.processes[each].pid) for each in ("worker-1", "worker-2")]
    with contextlib.ExitStack() as resumed:
        with frozen(cluster, wait_for_triggerer_of(run), [run]):
            for worker in workers:
                worker.suspend()
                resumed.callback(worker.resume)
            moment = now()
            run.set_back_to_scheduled()
            run.wait_until(lambda: is_told(run, moment), PATIENCE)
        assert run.task()["state"] == "queued"
        assert run.statuses() == ["RUNNING"]
    ends_well(run)
    assert cancellations(run) == 0


def test_a_trigger_that_moves_while_its_task_is_resumed(cluster: Cluster) -> None:
    run = Run(cluster, "resumed", "many")
    with frozen(cluster, wait_for_triggerer_of(run), [run]):
        moment = now()
        run.set_back_to_scheduled()
        run.wait_for_log("resumed without word from its trigger", seconds=PATIENCE)
        run.wait_until(lambda: is_told(run, moment), PATIENCE)
    assert run.task()["state"] == "running"
    assert run.statuses() == ["RUNNING"]
    ends_well(run)
    assert cancellations(run) == 0
