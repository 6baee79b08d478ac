"""How each way to end a DAG ends, whatever befalls it: the tables of docs/patterns.md, on a real Airflow."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_cdf.demo import FUNCTIONS, examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflow, LocalAirflowError
from airflow_provider_cdf.emulator import CdfEmulator

pytestmark = pytest.mark.slow

DAGS = Path(__file__).parent / "endings"
PATTERNS = Path(__file__).parents[2] / "docs" / "patterns.md"
#: Seconds for all DAG runs of a test, on a machine that does other work beside.
PATIENCE = 900
#: DAG runs that begin together. Of many more, Airflow's API on SQLite answers none for a minute now and then,
#: which fails their tasks.
AT_ONCE = 5
TITLE = "How a DAG ends: DAG run / CDF's task / execution"
#: By the first words of a row of the tables.
EVENTS = {
    "the work succeeds": "success",
    "the work fails": "failure",
    "the work fails, in a `fail_fast` DAG": "fail_fast",
    "a branch skips the work": "branched",
    "a short circuit skips the work": "short_circuited",
    "the DAG run is marked failed while the work runs": "marked_running",
    "… while it waits for its retry": "marked_retry",
    "… while it waits for a slot": "marked_queued",
    "… before CDF's task waits for it": "marked_early",
    "the DAG run is cleared while the work runs": "cleared",
    "`dagrun_timeout` is over while the work runs": "timed_out",
    "… with the callback below": "timed_out_with_callback",
    "the run is skipped": "run_skipped",
    "the run is refused": "run_refused",
}
#: What befalls the way that is recommended in every full run; the rest takes minutes.
FEW = ("success", "failure", "short_circuited", "marked_running", "marked_early", "cleared", "run_refused")


def documented() -> dict[tuple[str, str], list[str]]:
    """Return the cells of the tables by way and event; what is one or the other as both."""
    cells = {}
    for section in re.split(r"^## ", PATTERNS.read_text(), flags=re.MULTILINE):
        way = re.search(r"example_dags/(\w+)\.py", section)
        for row in re.findall(r"^\| (.+) \|$", section, re.MULTILINE):
            name, *cell = (one.strip() for one in row.split("|"))
            if name in EVENTS and way is not None:
                states, *statuses = (one.replace("`", "") for one in cell)
                cells[WAYS[way[1]], EVENTS[name]] = [
                    " / ".join([state, *statuses]) for state in states.split(" or ")
                ]
    return cells


#: The example DAG that shows a way.
WAYS = {
    "cdf_roundtrip": "report",
    "cdf_report_teardown": "report_teardown",
    "cdf_cancel_teardown": "cancel_teardown",
    "cdf_report_and_cancel": "both",
}


class World:
    """
    Airflow and CDF, and what was last seen of all DAG runs: one look for all, because the machine is busy.

    :param folder: where the file appears on which the work of a DAG run goes on.
    """

    def __init__(self, airflow: LocalAirflow, cdf: CdfEmulator, folder: Path) -> None:
        self.airflow, self.cdf, self.folder = airflow, cdf, folder
        self.runs: dict[tuple[str, str], str] = {}
        self.tasks: dict[tuple[str, str], dict[str, str]] = {}

    def look(self) -> None:
        """See where everything is."""
        self.airflow.check()
        runs, tasks = self.patiently(
            lambda: (
                list(self.airflow._pages("/dags/~/dagRuns", "dag_runs")),
                list(self.airflow._pages("/dags/~/dagRuns/~/taskInstances", "task_instances")),
            )
        )
        self.runs = {(run["dag_id"], run["dag_run_id"]): run["state"] for run in runs}
        self.tasks = {}
        for one in tasks:
            states = self.tasks.setdefault((one["dag_id"], one["dag_run_id"]), {})
            states[one["task_id"]] = str(one["state"])

    def patiently(self, call: Callable[[], Any]) -> Any:
        """Ask Airflow again where it had no time: SQLite takes one writer at a time."""
        for _ in range(30):
            try:
                return call()
            except LocalAirflowError as error:
                self.airflow.check()
                if "Database error" not in str(error) and "timed out" not in str(error):
                    raise
                time.sleep(1)
        raise AssertionError("Airflow had no time for half a minute and more")


class Cell:
    """A DAG run that goes one way, and what befalls it."""

    def __init__(self, world: World, way: str, event: str) -> None:
        self.world, self.airflow, self.cdf = world, world.airflow, world.cdf
        self.way, self.event, self.dag_id = way, event, f"{way}__{event}"
        self.let_go = world.folder / self.dag_id
        self.has_happened = not event.startswith(("timed_out", "cleared", "marked"))
        self.run_id = self.trigger()

    def trigger(self) -> str:
        conf = {"let_go": str(self.let_go)}
        run_id = self.world.patiently(lambda: self.airflow.trigger_dag(self.dag_id, conf=conf, timeout=300))
        return str(run_id)

    @property
    def path(self) -> str:
        return f"/dags/{self.dag_id}/dagRuns/{quote(self.run_id, safe='')}"

    @property
    def state(self) -> str:
        return self.world.runs.get((self.dag_id, self.run_id), "not seen")

    @property
    def states(self) -> dict[str, str]:
        return self.world.tasks.get((self.dag_id, self.run_id), {})

    def go_on(self) -> bool:
        """Do what is to befall the DAG run, once its work is where it should be; return if that is done."""
        if self.has_happened:
            return True
        judge = self.states.get("judge")
        if self.event.startswith("timed_out"):
            if judge == "running":
                self.has_happened = True
            elif self.state == "failed":
                self.run_id = self.trigger()  # too slow: it was over before the work began
            return self.has_happened
        if self.event == "marked_early":
            if self.states.get("waits") not in ("running", "deferred"):
                return False
        elif judge != {"marked_retry": "up_for_retry", "marked_queued": "scheduled"}.get(
            self.event, "running"
        ):
            return False
        if self.event == "cleared":
            clear = {"dry_run": False, "only_failed": False}
            self.world.patiently(lambda: self.airflow.api("POST", f"{self.path}/clear", json=clear))
            self.let_go.touch()
        else:
            self.world.patiently(lambda: self.airflow.api("PATCH", self.path, json={"state": "failed"}))
        self.has_happened = True
        return False  # what has become of it is to be seen first

    def has_reported(self) -> bool:
        """Whether there is nothing that CDF must wait for with its own next step."""
        if self.event != "marked_early":
            return True
        before_the_end = [self.states[task_id] for task_id in ("report", "stop") if task_id in self.states]
        ended = all(state in ("success", "failed", "skipped") for state in before_the_end)
        return self.has_happened and bool(before_the_end) and ended

    def has_ended(self) -> bool:
        # A DAG run that is marked failed has that state at once, and its teardowns run then.
        active = {"running", "queued", "scheduled", "deferred", "restarting"}
        return self.state in ("success", "failed") and not active.intersection(self.states.values())

    def goes_on_for_long(self) -> bool:
        """Whether what is left of the DAG run waits for CDF's task to time out, as is documented."""
        expected = documented().get((self.way, self.event), [""])
        return expected[0].startswith("running") and self.has_reported()

    def scores(self) -> list[list[Any]]:
        """Return the attempts at CDF's task in each execution of the DAG run."""
        with self.cdf.turn() as engine:
            return [
                [task for task in one.tasks() if task.external_id == "score"]
                for one in engine.store.executions.values()
                if one.metadata.get("airflow_run_id") == self.run_id
                and one.metadata.get("airflow_dag_id") == self.dag_id
            ]

    def outcome(self) -> str:
        """Return state of the DAG run, status of CDF's task and of the execution; of several, one by one."""
        with self.cdf.turn() as engine:
            statuses = [
                str(one.status)
                for one in engine.store.executions.values()
                if (one.metadata.get("airflow_dag_id"), one.metadata.get("airflow_run_id"))
                == (self.dag_id, self.run_id)
            ]
        tasks = [str(attempts[-1].status) if attempts else "-" for attempts in self.scores()]
        return f"{self.state} / {', then '.join(tasks) or '-'} / {', then '.join(statuses) or '-'}"

    def __str__(self) -> str:
        return f"{self.dag_id}: {self.outcome()} {self.states}"


#: Until then, CDF's task does not begin to wait in the DAG runs that are marked failed before.
cdf_goes_on = threading.Event()


def read_sensors(data: dict[str, Any]) -> Any:
    if data["pump"] == "marked_early":
        cdf_goes_on.wait(PATIENCE)
    return FUNCTIONS["read_sensors"]


@pytest.fixture(scope="module")
def cdf() -> Iterator[CdfEmulator]:
    functions = {**FUNCTIONS, "read_sensors": read_sensors}
    with CdfEmulator(workflows=[examples_folder() / "workflows"], functions=functions) as emulator:
        try:
            yield emulator
        finally:
            cdf_goes_on.set()


@pytest.fixture(scope="module")
def airflow(cdf: CdfEmulator) -> Iterator[LocalAirflow]:
    env = {
        "AIRFLOW_CONN_CDF_DEFAULT": cdf.airflow_connection_uri(),
        # Works that go on until they are let go of take a slot each.
        "AIRFLOW__CORE__PARALLELISM": "16",
    }
    with LocalAirflow(DAGS, env=env) as airflow:
        airflow.wait_until_healthy(180)
        # Work in this pool waits for a slot for ever.
        airflow.api("POST", "/pools", json={"name": "closed", "slots": 0})
        yield airflow


def wait_until(world: World, left: Callable[[], list[Any]], seconds: float) -> None:
    """Look until nothing is left of what is to be waited for."""
    deadline = time.monotonic() + seconds
    world.look()
    while what := left():
        assert time.monotonic() < deadline, "\n".join(map(str, what))
        time.sleep(1)
        world.look()


def play(world: World, way: str, events: Iterable[str]) -> list[Cell]:
    """Let much befall a way to end a DAG, and return the DAG runs as they have ended."""
    # Those that wait for the longest first.
    events = sorted(events, key=lambda event: not event.startswith("timed_out"))
    few = [events[begin : begin + AT_ONCE] for begin in range(0, len(events), AT_ONCE)]
    return [cell for some in few for cell in play_at_once(world, way, some)]


def play_at_once(world: World, way: str, events: Iterable[str]) -> list[Cell]:
    cdf_goes_on.clear()
    cells = [Cell(world, way, event) for event in events]

    def going_on() -> list[Cell]:
        if all(cell.has_reported() for cell in cells):
            cdf_goes_on.set()
        return [
            cell for cell in cells if not cell.go_on() or not (cell.has_ended() or cell.goes_on_for_long())
        ]

    wait_until(world, going_on, PATIENCE)
    return cells


def check(world: World, cells: list[Cell], record_property: Callable[[str, object], None]) -> None:
    expected = documented()

    def wrong() -> list[str]:
        return [
            f"{cell}, but documented is {expected.get((cell.way, cell.event))}"
            for cell in cells
            if cell.outcome() not in expected.get((cell.way, cell.event), [])
        ]

    try:
        # What CDF does by itself, after a report, takes its time.
        wait_until(world, wrong, 180)
    finally:
        for cell in cells:
            record_property("cell", (TITLE, cell.event, cell.way, cell.outcome()))
    # And nothing changes any more.
    time.sleep(5)
    world.look()
    assert not wrong()
    # Whatever happens, CDF is told that the work is done only where it is.
    for cell in cells:
        if "COMPLETED /" in cell.outcome():
            assert cell.states["judge"] == "success", cell


@pytest.mark.parametrize(
    ("way", "events"),
    [
        pytest.param("both", FEW, id="both, in short"),
        *(pytest.param(way, list(EVENTS.values()), id=way, marks=pytest.mark.long) for way in WAYS.values()),
    ],
)
def test_a_way_to_end_a_dag_ends_as_documented(
    airflow: LocalAirflow,
    cdf: CdfEmulator,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    way: str,
    events: Iterable[str],
) -> None:
    world = World(airflow, cdf, tmp_path)
    check(world, play(world, way, events), record_property)
