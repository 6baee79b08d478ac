"""What a thousand waits cost, and that they leave each other alone: in Airflow's own TriggerRunner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("airflow.triggers.shared_stream", reason="Airflow 3.3 brought shared streams")

from airflow.jobs.triggerer_job_runner import _USER_ACTION_CANCEL_MSG, TriggerRunner
from airflow.triggers.shared_stream import SharedStreamManager
from support import Project, function_task

from airflow_provider_cdf.cdf import auth, calls
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks import lookup, shared
from airflow_provider_cdf.triggers import streams, waits
from airflow_provider_cdf.triggers.task import CdfTaskEventTrigger, CdfTaskTrigger
from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger
from airflow_provider_cdf.waiting import Patience

LIST = "*/executions/list"
UNKNOWN = "11111111-2222-4333-8444-555555555555"


class Triggerer:
    """Airflow's TriggerRunner in this event loop, whose intervals pass when the test says so."""

    def __init__(self) -> None:
        self.runner = TriggerRunner()
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self._pausing: list[asyncio.Future[None]] = []

    # -- intervals ---------------------------------------------------------------------------------------

    async def sleep(self, seconds: float) -> None:
        """Stand in for the pause of a stream between two polls."""
        pause = asyncio.get_running_loop().create_future()
        self._pausing.append(pause)
        try:
            await pause
        finally:
            if pause in self._pausing:
                self._pausing.remove(pause)

    async def polled(self, number: int = 1) -> None:
        """Wait until so many streams, which are all there are, have polled and passed on what they saw."""
        await until(lambda: len(self._pausing) == number)
        await self.at_rest()

    async def interval(self, number: int = 1) -> None:
        """Let one interval pass for so many streams, which are all there are."""
        await self.polled(number)
        for pause in self._pausing:
            pause.set_result(None)
        self._pausing.clear()
        await self.polled(number)

    async def at_rest(self) -> None:
        """Wait until nobody reads an execution any more, and all have heard of it."""
        await until(lambda: not any(client._looks for client in shared._clients.values()))
        for _ in range(20):
            await asyncio.sleep(0)

    # -- triggers ----------------------------------------------------------------------------------------

    def start(self, *triggers: Any) -> list[int]:
        ids = []
        for trigger in triggers:
            trigger_id = len(self.tasks) + 1
            self.runner.triggers[trigger_id] = {  # type: ignore[typeddict-item]
                "name": f"trigger {trigger_id}",
                "events": 0,
                "is_watcher": False,
            }
            running = asyncio.create_task(self.runner.run_trigger(trigger_id, trigger))
            self.tasks[trigger_id] = running
            ids.append(trigger_id)
        return ids

    async def kill(self, trigger_id: int) -> None:
        """What Airflow does when a person marks or clears the task."""
        self.tasks[trigger_id].cancel(_USER_ACTION_CANCEL_MSG)
        await asyncio.wait([self.tasks[trigger_id]])

    async def fired(self, *trigger_ids: int) -> list[dict[str, Any]]:
        """Wait until these triggers have ended, and return what each has told."""
        await asyncio.wait_for(asyncio.gather(*(self.tasks[one] for one in trigger_ids)), 30)
        events = {entry.trigger_id: entry.event.payload for entry in self.runner.events}
        return [events[one] for one in trigger_ids]

    def waiting(self) -> set[int]:
        return {one for one, task in self.tasks.items() if not task.done()}

    async def stop(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


class Requests:
    """The requests since this moment."""

    def __init__(self, cdf: CdfEmulator) -> None:
        self._cdf = cdf
        self._before = [cdf.journal.count(*what) for what in self._KINDS]

    _KINDS = (("POST", LIST), ("GET", "*/executions/*"), ("POST", "/oauth2/token"))

    def _count(self, kind: int) -> int:
        return self._cdf.journal.count(*self._KINDS[kind]) - self._before[kind]

    @property
    def lists(self) -> int:
        return self._count(0)

    @property
    def looks(self) -> int:
        return self._count(1)

    @property
    def logins(self) -> int:
        return self._count(2)


@pytest.fixture
def run(cdf: CdfEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Run a test in the event loop of a triggerer whose intervals pass when the test says so."""
    monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection_uri())
    monkeypatch.setattr(auth, "_shared", {})

    def run(test: Callable[[Triggerer], Awaitable[None]]) -> None:
        async def main() -> None:
            triggerer = Triggerer()
            monkeypatch.setattr(
                streams, "asyncio", SimpleNamespace(sleep=triggerer.sleep, shield=asyncio.shield)
            )
            try:
                await asyncio.wait_for(test(triggerer), 120)
            finally:
                await triggerer.stop()
            assert shared._clients == {}
            assert triggerer.runner._shared_streams._groups == {}

        asyncio.run(main())

    yield run
    cdf.faults.clear()


@pytest.fixture
def workflow(project: Project) -> str:
    """A workflow whose task ``approve`` waits for a report."""
    return project.define(function_task("approve", waits=True))


@pytest.fixture
def executions(project: Project, workflow: str) -> list[str]:
    started = [project.run(workflow) for _ in range(4)]
    for one in started:
        project.task(one, "approve")  # waits for it
    return started


def workflow_trigger(execution_id: Any, **arguments: Any) -> CdfWorkflowTrigger:
    return CdfWorkflowTrigger(execution_id=execution_id, **arguments)


def task_trigger(execution_id: Any, **arguments: Any) -> CdfTaskTrigger:
    return CdfTaskTrigger(
        execution_id=execution_id,
        **{"task_external_id": "approve", "target_statuses": ["COMPLETED"], **arguments},
    )


def approve(cdf: CdfEmulator, execution_id: str) -> None:
    with cdf.turn() as engine:
        (task,) = engine.execution(execution_id).tasks()
        engine.update_task(task.id, "COMPLETED")


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(3000):
        if happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("It did not happen")


class TestCost:
    def test_all_who_wait_for_executions_cost_one_list_for_each_interval(
        self, cdf: CdfEmulator, executions: list[str], run: Any
    ) -> None:
        async def test(triggerer: Triggerer) -> None:
            requests = Requests(cdf)
            triggerer.start(*(workflow_trigger(one) for one in executions * 10))
            for _ in range(5):
                await triggerer.interval()
            assert (requests.lists, requests.looks, requests.logins) == (6, 0, 1)

        run(test)

    def test_all_who_wait_for_tasks_cost_one_look_for_each_execution_and_interval(
        self, cdf: CdfEmulator, executions: list[str], run: Any
    ) -> None:
        async def test(triggerer: Triggerer) -> None:
            requests = Requests(cdf)
            triggerer.start(*(task_trigger(one) for one in executions * 10))
            for _ in range(5):
                await triggerer.interval(len(executions))
            assert (requests.lists, requests.looks, requests.logins) == (0, 6 * len(executions), 1)

        run(test)

    def test_the_connection_is_read_once_for_all(
        self, executions: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = lookup.find
        reads: list[str] = []

        async def counted(hook: Any, conn_id: str) -> Any:
            reads.append(conn_id)
            return await read(hook, conn_id)

        monkeypatch.setattr(lookup, "find", counted)

        async def test(triggerer: Triggerer) -> None:
            both = [kind(one) for one in executions for kind in (workflow_trigger, task_trigger)]
            triggerer.start(*both * 5)
            await triggerer.interval(1 + len(executions))
            assert reads == ["cdf_default"]

        run(test)

    def test_more_than_a_page_of_executions_costs_one_request_for_each_page(
        self, cdf: CdfEmulator, executions: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with cdf.turn() as engine:
            number = len(list(engine.executions(statuses=["RUNNING"])))
        monkeypatch.setattr(calls, "PAGE_SIZE", number // 2 + 1)

        async def test(triggerer: Triggerer) -> None:
            requests = Requests(cdf)
            triggerer.start(*map(workflow_trigger, executions))
            await triggerer.interval()
            assert (requests.lists, requests.looks) == (4, 0)

        run(test)

    def test_different_intervals_and_connections_are_polled_apart(
        self, cdf: CdfEmulator, executions: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_CDF_OTHER", cdf.airflow_connection_uri())

        async def test(triggerer: Triggerer) -> None:
            triggerer.start(
                workflow_trigger(executions[0], poll_interval=10),
                workflow_trigger(executions[0], poll_interval=10.0),
                workflow_trigger(executions[0], poll_interval=20),
                workflow_trigger(executions[0], cdf_conn_id="cdf_other"),
            )
            await triggerer.polled(3)

        run(test)

    @pytest.mark.parametrize("kind", [workflow_trigger, task_trigger])
    def test_keys_begin_with_the_package_and_the_kind(self, kind: Any) -> None:
        package, what, *_ = kind(UNKNOWN).shared_stream_key()
        assert package == "airflow_provider_cdf"
        assert isinstance(what, str)
        assert kind(UNKNOWN).supports_triggerer_queue is True

    def test_kinds_do_not_share_a_key(self) -> None:
        assert workflow_trigger(UNKNOWN).shared_stream_key() != task_trigger(UNKNOWN).shared_stream_key()


class TestEnds:
    def test_are_noticed_by_those_whose_they_are(
        self, cdf: CdfEmulator, executions: list[str], run: Any
    ) -> None:
        async def test(triggerer: Triggerer) -> None:
            ids = triggerer.start(*map(workflow_trigger, executions))
            await triggerer.polled()
            requests = Requests(cdf)
            approve(cdf, executions[0])
            with cdf.turn() as engine:
                engine.cancel(executions[1], "no pump")
            await triggerer.interval()

            completed, cancelled = await triggerer.fired(ids[0], ids[1])
            assert completed == {"outcome": "reached", "execution_id": executions[0], "end_time": None}
            assert cancelled["outcome"] == "impossible"
            assert "no pump" in cancelled["message"]
            assert triggerer.waiting() == set(ids[2:])
            assert (requests.lists, requests.looks) == (1, 2)

        run(test)

    def test_of_one_execution_are_looked_at_once_for_all_who_wait_for_it(
        self, cdf: CdfEmulator, executions: list[str], run: Any
    ) -> None:
        async def test(triggerer: Triggerer) -> None:
            ids = triggerer.start(*(workflow_trigger(executions[0]) for _ in range(20)))
            triggerer.start(workflow_trigger(executions[1]))
            await triggerer.polled()
            requests = Requests(cdf)
            approve(cdf, executions[0])
            await triggerer.interval()
            assert {event["outcome"] for event in await triggerer.fired(*ids)} == {"reached"}
            assert requests.looks == 1

        run(test)

    @pytest.mark.parametrize("kind", [workflow_trigger, task_trigger])
    def test_are_seen_by_those_who_come_late_within_one_interval(
        self, cdf: CdfEmulator, executions: list[str], run: Any, kind: Any
    ) -> None:
        async def test(triggerer: Triggerer) -> None:
            triggerer.start(kind(executions[0]), workflow_trigger(executions[1]))
            await triggerer.polled(1 if kind is workflow_trigger else 2)
            late = triggerer.start(kind(executions[0]))
            approve(cdf, executions[0])
            for pause in triggerer._pausing:
                pause.set_result(None)
            (event,) = await triggerer.fired(*late)
            assert event["outcome"] == "reached"

        run(test)


class TestHidden:
    """Executions that run and are not in the list: of another data set, or started a moment ago."""

    @pytest.fixture
    def hidden(self, cdf: CdfEmulator, executions: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
        found = cdf.engine.executions
        monkeypatch.setattr(
            cdf.engine,
            "executions",
            lambda **filters: (one for one in found(**filters) if one[1].id not in executions[:2]),
        )
        return executions[:2]

    def test_are_waited_for_all_the_same_with_one_look_for_each_interval(
        self, cdf: CdfEmulator, executions: list[str], hidden: list[str], run: Any
    ) -> None:
        async def test(triggerer: Triggerer) -> None:
            requests = Requests(cdf)
            ids = triggerer.start(*(workflow_trigger(one) for one in executions * 3))
            for _ in range(3):
                await triggerer.interval()
            assert triggerer.waiting() == set(ids)
            assert (requests.lists, requests.looks) == (4, 4 * len(hidden))

            approve(cdf, hidden[0])
            await triggerer.interval()
            assert len(await triggerer.fired(*ids[::4])) == 3
            assert triggerer.waiting() == set(ids) - set(ids[::4])

        run(test)

    def test_are_read_a_few_at_a_time(
        self, cdf: CdfEmulator, project: Project, workflow: str, run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        several = [project.run(workflow) for _ in range(8)]
        monkeypatch.setattr(cdf.engine, "executions", lambda **filters: iter(()))
        monkeypatch.setattr(shared, "MOST_AT_ONCE", 3)
        sending: list[int] = []
        tried = shared.SharedClient._tried

        async def noted(client: Any, call: Any) -> Any:
            if client._opened is not None:
                sending.append(client._opened.sending + 1)
            return await tried(client, call)

        monkeypatch.setattr(shared.SharedClient, "_tried", noted)

        async def test(triggerer: Triggerer) -> None:
            triggerer.start(*map(workflow_trigger, several))
            await triggerer.interval()
            assert max(sending) == 3

        run(test)

    def test_one_that_is_read_slowly_holds_up_nobody_and_is_not_read_again_for_each_interval_that_passed(
        self, cdf: CdfEmulator, executions: list[str], hidden: list[str], run: Any
    ) -> None:
        async def test(triggerer: Triggerer) -> None:
            ids = triggerer.start(*map(workflow_trigger, executions))
            await triggerer.polled()
            cdf.faults.add("GET", f"*/executions/{hidden[0]}", delay=6)
            requests = Requests(cdf)
            looks_before = cdf.journal.count("GET", f"*/executions/{hidden[0]}")
            for _ in range(4):
                await until(lambda: len(triggerer._pausing) == 1)
                triggerer._pausing.pop().set_result(None)
            approve(cdf, executions[2])
            await until(lambda: len(triggerer._pausing) == 1)
            triggerer._pausing.pop().set_result(None)
            assert await triggerer.fired(ids[2])
            assert ids[0] in triggerer.waiting()
            await triggerer.polled()
            # The slow one, and one for the newest of the snapshots that have come meanwhile.
            assert cdf.journal.count("GET", f"*/executions/{hidden[0]}") - looks_before <= 1 + 1
            assert requests.lists == 5

        run(test)


class TestContradiction:
    """An execution that is RUNNING and has an end time, which the list alone does not explain."""

    def test_is_looked_at_and_waited_for_as_long_as_a_silence(
        self, cdf: CdfEmulator, executions: list[str], run: Any
    ) -> None:
        with cdf.turn() as engine:
            engine.execution(executions[0]).end_time = 1_900_000_000_000

        async def test(triggerer: Triggerer) -> None:
            patient, other, good = triggerer.start(
                workflow_trigger(executions[0]),
                workflow_trigger(executions[0], max_poll_silence=0.001),
                workflow_trigger(executions[1]),
            )
            requests = Requests(cdf)
            (event,) = await triggerer.fired(other)
            assert "CDF says that the workflow is RUNNING, and when it ended." in event["message"]
            assert event["is_permanent"] is False
            await triggerer.polled()
            assert (requests.lists, requests.looks) == (1, 1)
            assert triggerer.waiting() == {patient, good}

        run(test)


class TestMembers:
    def test_have_ends_of_their_own_which_hold_between_two_polls(
        self, executions: list[str], run: Any
    ) -> None:
        async def test(triggerer: Triggerer) -> None:
            stays, ends, *_ = triggerer.start(
                workflow_trigger(executions[0]),
                workflow_trigger(executions[0], end_time=time.time() + 0.5),
                workflow_trigger(executions[0], end_time=time.time() + 9000),
            )
            (event,) = await triggerer.fired(ends)  # though no interval passes
            assert event["outcome"] == "timeout"
            assert event["observed"] in ("RUNNING", "nothing yet")
            assert stays in triggerer.waiting()
            assert len(triggerer.waiting()) == 2

        run(test)

    def test_have_wishes_of_their_own(self, cdf: CdfEmulator, executions: list[str], run: Any) -> None:
        async def test(triggerer: Triggerer) -> None:
            done, failed, odd, other = triggerer.start(
                task_trigger(executions[0]),
                task_trigger(executions[0], target_statuses=["FAILED"]),
                task_trigger(executions[0], task_external_id="no such task"),
                task_trigger(executions[1]),
            )
            await triggerer.polled(2)
            approve(cdf, executions[0])
            for pause in triggerer._pausing:
                pause.set_result(None)
            outcomes = [event["outcome"] for event in await triggerer.fired(done, failed, odd)]
            assert outcomes == ["reached", "impossible", "impossible"]
            assert triggerer.waiting() == {other}

        run(test)

    @pytest.mark.parametrize("odd", [None, 17, "no-uuid", ["a"], {"a": 1}, ""], ids=repr)
    @pytest.mark.parametrize("kind", [workflow_trigger, task_trigger])
    def test_with_bad_arguments_end_alone(self, executions: list[str], run: Any, odd: Any, kind: Any) -> None:
        async def test(triggerer: Triggerer) -> None:
            good, *bad = triggerer.start(
                kind(executions[0]), kind(odd), kind(odd, poll_interval=[odd], end_time=[odd])
            )
            for event in await triggerer.fired(*bad):
                assert event["outcome"] == "error"
                assert event["is_permanent"] is True
            assert triggerer.waiting() == {good}

        run(test)

    @pytest.mark.parametrize("odd", [None, 17, ["a"], {"a": 1}, "no_such_connection"], ids=repr)
    def test_with_bad_connections_end_alone(self, executions: list[str], run: Any, odd: Any) -> None:
        async def test(triggerer: Triggerer) -> None:
            good, bad = triggerer.start(
                workflow_trigger(executions[0]),
                # One that Airflow does not find may be found later: its silence bounds that.
                workflow_trigger(executions[0], cdf_conn_id=odd, max_poll_silence=1e-6),
            )
            (event,) = await triggerer.fired(bad)
            assert (event["outcome"], event["is_permanent"]) == ("error", False)
            assert triggerer.waiting() == {good}

        run(test)

    def test_that_are_killed_cancel_their_execution_and_leave_the_others_alone(
        self, cdf: CdfEmulator, executions: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def is_really_killed(trigger: Any) -> bool:
            return True

        monkeypatch.setattr(CdfWorkflowTrigger, "_is_really_killed", is_really_killed)

        async def test(triggerer: Triggerer) -> None:
            ids = triggerer.start(*(workflow_trigger(one, cancel_on_kill=True) for one in executions))
            await triggerer.polled()
            requests = Requests(cdf)
            await triggerer.kill(ids[0])
            with cdf.turn() as engine:
                assert engine.execution(executions[0]).status == "TERMINATED"
            await triggerer.interval()
            assert triggerer.waiting() == set(ids[1:])
            assert requests.logins == 0  # through the client that all share
            approve(cdf, executions[1])
            await triggerer.interval()
            assert (await triggerer.fired(ids[1]))[0]["outcome"] == "reached"

        run(test)

    def test_that_do_not_read_fail_alone_after_so_many_snapshots(
        self, cdf: CdfEmulator, executions: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        see = waits.Wait._see

        async def stuck(wait: Any, snapshot: Any) -> Any:
            if wait._trigger.end_time == 1e12:
                await asyncio.sleep(3600)
            return await see(wait, snapshot)

        monkeypatch.setattr(waits.Wait, "_see", stuck)

        async def test(triggerer: Triggerer) -> None:
            triggerer.runner._shared_streams = SharedStreamManager(max_subscriber_queue=3)
            good, bad = triggerer.start(
                workflow_trigger(executions[0]), workflow_trigger(executions[0], end_time=1e12)
            )
            for _ in range(6):
                await triggerer.interval()
            assert triggerer.runner._shared_streams._groups
            (group,) = triggerer.runner._shared_streams._groups.values()
            assert group._failed_subscribers == {bad}
            assert good in triggerer.waiting()
            approve(cdf, executions[0])
            await triggerer.interval()
            assert (await triggerer.fired(good))[0]["outcome"] == "reached"

        run(test)


class TestOutages:
    def test_are_outlived_by_the_stream_and_told_to_each_member(
        self, cdf: CdfEmulator, executions: list[str], run: Any, log: pytest.LogCaptureFixture
    ) -> None:
        async def test(triggerer: Triggerer) -> None:
            ids = triggerer.start(*map(workflow_trigger, executions))
            await triggerer.polled()
            (group,) = triggerer.runner._shared_streams._groups.values()
            cdf.faults.add("POST", LIST, status=503)
            cdf.faults.add("POST", LIST, spoil="not-json")
            cdf.faults.add("POST", LIST, drop="before")
            for _ in range(4):
                await triggerer.interval()
            assert triggerer.waiting() == set(ids)
            assert list(triggerer.runner._shared_streams._groups.values()) == [group]
            begins = [line for line in log.messages if "Polling goes on, at growing intervals." in line]
            ends = [line for line in log.messages if line.startswith("CDF answers again, after 3 failed")]
            assert len(begins) == len(ends) == len(ids)

        run(test)

    def test_end_the_wait_of_those_whose_patience_is_over_and_not_of_others(
        self, cdf: CdfEmulator, executions: list[str], run: Any
    ) -> None:
        async def test(triggerer: Triggerer) -> None:
            patient, other = triggerer.start(
                workflow_trigger(executions[0]), workflow_trigger(executions[0], max_poll_silence=0.001)
            )
            await triggerer.polled()
            cdf.faults.add("POST", LIST, status=503)
            await triggerer.interval()
            (event,) = await triggerer.fired(other)
            assert event["message"].startswith("No poll has succeeded for ")
            assert event["is_permanent"] is False
            assert triggerer.waiting() == {patient}

        run(test)

    def test_are_given_up_in_time_though_cdf_wants_to_be_left_alone_for_longer(
        self, cdf: CdfEmulator, executions: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Patience, "LAST_CHANCE", 0.3)

        async def test(triggerer: Triggerer) -> None:
            patient, other = triggerer.start(
                workflow_trigger(executions[0]), workflow_trigger(executions[0], max_poll_silence=0.5)
            )
            await triggerer.polled()
            cdf.faults.add("POST", LIST, status=429, retry_after=900)
            await triggerer.interval()
            (event,) = await triggerer.fired(other)  # though no other poll comes
            assert event["message"].startswith("No poll has succeeded for ")
            assert "429" in event["message"]
            assert triggerer.waiting() == {patient}

        run(test)

    def test_refusals_end_a_wait_when_there_are_three_in_a_row(
        self, cdf: CdfEmulator, executions: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Patience, "REFUSED_FOR", 0.0)

        async def test(triggerer: Triggerer) -> None:
            ids = triggerer.start(*(workflow_trigger(one) for one in executions))
            await triggerer.polled()
            cdf.faults.add("POST", LIST, status=403, times=2)
            await triggerer.interval()
            await triggerer.interval()
            await triggerer.interval()
            assert triggerer.waiting() == set(ids)
            cdf.faults.add("POST", LIST, status=403, times=3)
            await triggerer.interval()
            await triggerer.interval()
            triggerer._pausing[0].set_result(None)
            for event in await triggerer.fired(*ids):
                assert event["outcome"] == "error"
                assert event["is_permanent"] is True

        run(test)

    def test_a_429_for_one_is_heeded_by_all(
        self, cdf: CdfEmulator, executions: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cdf.engine, "executions", lambda **filters: iter(()))
        monkeypatch.setattr(shared, "MOST_AT_ONCE", 1)
        pauses: list[float] = []

        async def test(triggerer: Triggerer) -> None:
            sleep = triggerer.sleep

            async def noted(seconds: float) -> None:
                pauses.append(seconds)
                await sleep(seconds)

            monkeypatch.setattr(streams, "asyncio", SimpleNamespace(sleep=noted, shield=asyncio.shield))
            ids = triggerer.start(*map(workflow_trigger, executions))
            await triggerer.polled()
            requests = Requests(cdf)
            cdf.faults.add("GET", "*/executions/*", status=429, retry_after=500)
            await triggerer.interval()
            assert requests.looks == 1  # the others do not ask
            await triggerer.interval()
            assert 70 < pauses[-1] <= 90
            assert triggerer.waiting() == set(ids)

        run(test)

    def test_an_error_in_this_package_is_an_outage_and_no_end(
        self, executions: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def test(triggerer: Triggerer) -> None:
            ids = triggerer.start(*map(workflow_trigger, executions))
            await triggerer.polled()
            with monkeypatch.context() as broken:
                broken.setattr(calls, "poll_executions", lambda *a, **k: {}["a bug"])
                await triggerer.interval()
            await triggerer.interval()
            assert triggerer.waiting() == set(ids)

        run(test)


class TestLogins:
    def test_after_one_that_was_refused_the_connection_is_read_again(
        self, run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = CdfEmulator()  # whose secret this test may change

        async def test(triggerer: Triggerer) -> None:
            monkeypatch.setattr(
                streams, "asyncio", SimpleNamespace(sleep=triggerer.sleep, shield=asyncio.shield)
            )
            triggers = triggerer.start(*map(workflow_trigger, ids))
            await triggerer.polled()
            own.client_secret = own.tokens._secret = "r3newed"
            own.tokens.expire_all()
            await triggerer.interval()
            assert triggerer.waiting() == set(triggers)
            monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", own.airflow_connection_uri())
            approve(own, ids[0])
            for _ in range(2):
                await triggerer.interval()
            assert (await triggerer.fired(triggers[0]))[0]["outcome"] == "reached"
            assert triggerer.waiting() == set(triggers[1:])

        with own:
            monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", own.airflow_connection_uri())
            project = Project(own)
            workflow = project.define(function_task("approve", waits=True))
            ids = [project.run(workflow) for _ in range(3)]
            run(test)


class TestStandstill:
    def test_is_noticed_of_each_execution_with_one_look_for_each_interval(
        self, cdf: CdfEmulator, executions: list[str], run: Any, log: pytest.LogCaptureFixture
    ) -> None:
        def warnings() -> list[str]:
            return [line for line in log.messages if line.startswith("CDF waits for a report on 'approve'")]

        async def test(triggerer: Triggerer) -> None:
            requests = Requests(cdf)
            triggerer.start(*(workflow_trigger(one, warn_of_standstill=True) for one in executions))
            triggerer.start(workflow_trigger(executions[0]))
            for number in range(1, 10):
                await triggerer.interval()
                assert requests.lists == number + 1
                assert requests.looks <= number + 1
            assert len(warnings()) == len(executions)
            assert all(any(one in line for line in warnings()) for one in executions)
            # Who has warned wishes nothing more.
            assert requests.looks == len(executions)

        run(test)

    def test_is_looked_for_with_the_same_look_as_a_watcher_needs(
        self, cdf: CdfEmulator, project: Project, run: Any
    ) -> None:
        later = function_task("later", waits=True, dependsOn=[{"externalId": "approve"}])
        workflow = project.define(function_task("approve", waits=True), later)
        execution_id = project.run(workflow)
        project.task(execution_id, "approve")  # waits for it

        async def test(triggerer: Triggerer) -> None:
            requests = Requests(cdf)
            # It looks at every poll, because its task has not begun.
            triggerer.start(CdfTaskEventTrigger(workflow_external_id=workflow, task_external_id="later"))
            triggerer.start(workflow_trigger(execution_id, warn_of_standstill=True))
            for number in range(1, 5):
                await triggerer.interval()
                assert (requests.lists, requests.looks) == (number + 1, number + 1)

        run(test)
