"""
Many deferred tasks on a real Airflow: what they cost CDF, counted by the emulator, while things befall them.

    pytest tests/system/test_streams.py               # a dozen of them
    pytest tests/system/test_streams.py -m long -s    # 200, with 1 200 executions in CDF; fifteen minutes
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from clusters import IMPATIENT, Cluster

from airflow_provider_cdf.demo import examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflow
from airflow_provider_cdf.emulator import CdfEmulator

pytestmark = pytest.mark.slow

DAG_ID = "waits_in_streams"
LIST, LOOK = "*/executions/list", "*/executions/*"


@dataclass(frozen=True)
class Size:
    waiting: int
    briefly: int
    #: Of others that run in CDF, so that the list has two pages.
    others: int
    hidden: int
    interval: float
    #: Seconds that those which time out wait, and that the stuck one does not read.
    timeout: float
    stuck_for: float
    #: Seconds that anything of it may take.
    patience: float


SMALL = Size(waiting=8, briefly=1, others=0, hidden=1, interval=2.0, timeout=30, stuck_for=20, patience=600)
LARGE = Size(
    waiting=200, briefly=10, others=1000, hidden=10, interval=5.0, timeout=120, stuck_for=60, patience=3600
)


@pytest.fixture(
    params=[pytest.param(SMALL, id="small"), pytest.param(LARGE, id="large", marks=pytest.mark.long)]
)
def size(request: pytest.FixtureRequest) -> Size:
    assert isinstance(request.param, Size)
    return request.param


@pytest.fixture
def cluster(tmp_path: Path, size: Size) -> Iterator[Cluster]:
    dags = tmp_path / "dags"
    shutil.copytree(Path(__file__).parent / "streams", dags)
    with CdfEmulator(workflows=[examples_folder() / "workflows"], max_concurrent_executions=10_000) as cdf:
        env = {
            **IMPATIENT,
            # So many tasks queue for longer, and would be set back (apache/airflow#65248).
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "1800",
            "AIRFLOW_CONN_CDF_DEFAULT": cdf.airflow_connection_uri(),
            "PYTHONPATH": str(dags),
            "STREAMS_INTERVAL": str(size.interval),
            "STREAMS_TIMEOUT": str(size.timeout),
            "STREAMS_STUCK_FOR": str(size.stuck_for),
            "AIRFLOW__TRIGGERER__SHARED_STREAM_SUBSCRIBER_QUEUE_SIZE": "4",
        }
        with LocalAirflow(dags, env=env) as airflow:
            airflow.wait_until_healthy()
            yield Cluster(cdf, airflow)


@dataclass
class Scene:
    """The executions in CDF, and the DAG run whose tasks wait for them."""

    cluster: Cluster
    size: Size
    waiting: list[str] = field(default_factory=list)
    briefly: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.waiting = self._start(self.size.waiting)
        self.briefly = self._start(self.size.briefly)
        self.stuck = self._start(1)
        found = self.cluster.cdf.engine.executions
        self.cluster.cdf.engine.executions = lambda **filters: (  # type: ignore[method-assign]
            one for one in found(**filters) if one[1].id not in self.hidden
        )
        conf = {"wait": self.waiting, "wait_briefly": self.briefly, "wait_stuck": self.stuck}
        self.run_id = self.cluster.airflow.trigger_dag(DAG_ID, conf=conf)

    def _start(self, number: int) -> list[str]:
        with self.cluster.cdf.turn() as engine:
            return [str(engine.run("pump_health", "1", input={"pump": "P-101"}).id) for _ in range(number)]

    def states(self, task_id: str = "wait") -> dict[int, str]:
        tasks = self.cluster.airflow.task_instances(DAG_ID, self.run_id)
        return {one["map_index"]: one["state"] for one in tasks if one["task_id"] == task_id}

    def log(self, task_id: str, map_index: int) -> str:
        tries = {
            one["map_index"]: one["try_number"]
            for one in self.cluster.airflow.task_instances(DAG_ID, self.run_id)
            if one["task_id"] == task_id
        }
        return self.cluster.airflow.task_log(
            DAG_ID, self.run_id, task_id, tries[map_index], map_index=map_index
        )

    def until(self, condition: Callable[[], bool], what: str) -> None:
        began = time.monotonic()
        while not condition():
            self.cluster.airflow.check()
            if time.monotonic() > began + self.size.patience:
                raise AssertionError(f"not within {self.size.patience} s: {what}; {self.states()}")
            time.sleep(0.5)
        print(f"{what}: after {time.monotonic() - began:.0f} s", flush=True)

    def all_wait(self) -> bool:
        """Whether all are deferred, or have ended as they should."""
        states = self.states()
        return len(states) == len(self.waiting) and all(
            state == "deferred" for index, state in states.items() if index not in (0, 1)
        )

    def cost(self, intervals: int = 4) -> tuple[float, float]:
        """Lists, and looks at executions, for each interval that passes now."""
        before = self._requests()
        began = time.monotonic()
        time.sleep(self.size.interval * intervals)
        took = (time.monotonic() - began) / self.size.interval
        return tuple((now - then) / took for now, then in zip(self._requests(), before, strict=True))  # type: ignore

    def _requests(self) -> tuple[int, int]:
        journal = self.cluster.cdf.journal
        return journal.count("POST", LIST), journal.count("GET", LOOK)

    def finish(self, execution_ids: list[str]) -> None:
        with self.cluster.cdf.turn() as engine:
            for one in execution_ids:
                (score,) = [task for task in engine.execution(one).tasks() if task.external_id == "score"]
                engine.update_task(score.id, "COMPLETED", {"risk": 0.1})

    def mark_failed(self, map_index: int) -> None:
        path = f"/dags/{DAG_ID}/dagRuns/{self.run_id}/taskInstances/wait/{map_index}"
        self.cluster.airflow.api("PATCH", path, json={"new_state": "failed"})

    def clear(self, map_index: int) -> None:
        body = {
            "dry_run": False,
            "dag_run_id": self.run_id,
            "task_ids": [["wait", map_index]],
            "only_failed": False,
        }
        self.cluster.airflow.api("POST", f"/dags/{DAG_ID}/clearTaskInstances", json=body)


def test_deferred_tasks_cost_one_list_for_each_interval_whatever_befalls_them(
    cluster: Cluster, size: Size
) -> None:
    scene = Scene(cluster, size)
    scene.until(scene.all_wait, "all are deferred")
    scene.until(lambda: scene.cost(1)[0] > 0.5, "the triggerer polls")
    # A poll that falls on the edge of the time that is looked at counts with it.
    edge = 1.3

    # Those that time out, and the one that is stuck, go on in workers meanwhile.
    scene.until(lambda: set(scene.states("wait_briefly").values()) == {"failed"}, "some have timed out")
    stuck = "wait_stuck"
    scene.until(lambda: "The trigger has broken" in scene.log(stuck, 0), "the stuck one is resumed")
    scene.finish(scene.stuck)
    scene.until(lambda: scene.states(stuck) == {0: "success"}, "the stuck one ends well")

    lists, looks = scene.cost()
    assert lists <= edge
    assert looks == 0

    scene.mark_failed(0)
    scene.clear(1)
    lists, _ = scene.cost()
    assert lists <= edge
    scene.until(lambda: scene.states()[1] == "deferred", "the cleared one is deferred again")
    assert scene.states()[0] == "failed"

    cluster.airflow.kill("triggerer")
    cluster.airflow.start("triggerer")
    scene.until(lambda: scene.cost(1)[0] > 0.5, "another triggerer polls")
    lists, looks = scene.cost()
    assert lists <= edge
    assert looks == 0
    assert scene.all_wait()

    if size.others:
        scene._start(size.others)
        scene.until(lambda: scene.cost(2)[0] > 1.4, "the list has two pages")
        lists, looks = scene.cost()
        assert lists <= 2 * edge
        assert looks == 0

    scene.hidden = set(scene.waiting[-size.hidden :])
    time.sleep(2 * size.interval)
    lists, looks = scene.cost()
    pages = 2 if size.others else 1
    assert lists <= pages * edge
    assert 0 < looks <= size.hidden * edge
    assert scene.all_wait()

    scene.finish(scene.waiting[1:])
    scene.until(
        lambda: {state for index, state in scene.states().items() if index} == {"success"}, "all end well"
    )
