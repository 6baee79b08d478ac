"""What the emulated CDF remembers: plain records in memory, and the ways to find them."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Generic, TypeVar

from airflow_provider_cdf.emulator.rules.clock import Timer
from airflow_provider_cdf.emulator.rules.definitions import (
    AnyTask,
    WorkflowDefinition,
    definition_hash,
    to_json,
)

#: Within an execution: the external id of the parent task, if it is nested, and its own.
TaskKey = tuple[str | None, str]

WAITING = frozenset({"SCHEDULED", "IN_PROGRESS"})
SATISFIED = frozenset({"COMPLETED", "COMPLETED_WITH_ERRORS", "SKIPPED"})


@dataclass(slots=True)
class Workflow:
    external_id: str
    created_time: int
    last_updated_time: int
    description: str | None = None
    data_set_id: int | None = None
    data_domain_external_id: str | None = None
    max_concurrent_executions: int | None = None


@dataclass(slots=True)
class Version:
    workflow_external_id: str
    version: str
    definition: WorkflowDefinition
    created_time: int
    last_updated_time: int
    #: The definition as the API shows it; every execution of the version shares it.
    shown: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        shown = to_json(self.definition)
        self.shown = {"hash": definition_hash(shown), **shown}


@dataclass(slots=True, eq=False)
class TaskExecution:
    """One attempt at a task. A retry is another one, with an id of its own."""

    id: str
    execution: Execution
    planned: PlannedTask
    input: dict[str, Any]
    #: Of the function call, once there is one.
    call_id: int | None = None
    status: str = "SCHEDULED"
    output: dict[str, Any] = field(default_factory=dict)
    start_time: int | None = None
    end_time: int | None = None
    reason: str | None = None
    #: What is still to happen to this attempt: its start, its end, its timeout.
    timers: list[Timer] = field(default_factory=list)

    @property
    def definition(self) -> AnyTask:
        return self.planned.definition

    @property
    def external_id(self) -> str:
        return self.planned.definition.external_id


@dataclass(slots=True, eq=False)
class PlannedTask:
    """A task that belongs to an execution, started or not."""

    definition: AnyTask
    parent: str | None
    #: How many attempts it may have; a retry of the whole execution grants one more to one that used them up.
    max_attempts: float
    #: What a subworkflow task refers to, as it was when the execution started; None if there was none.
    subworkflow: WorkflowDefinition | None = None
    attempts: list[TaskExecution] = field(default_factory=list)
    children: list[PlannedTask] = field(default_factory=list)

    @property
    def key(self) -> TaskKey:
        return (self.parent, self.definition.external_id)

    @property
    def current(self) -> TaskExecution | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def satisfied(self) -> bool:
        """Whether the tasks that depend on this one may start: a parent's do when its children have ended."""
        current = self.current
        if current is None or current.status not in SATISFIED:
            return False
        return all(child.satisfied for child in self.children)


@dataclass(slots=True, eq=False)
class Execution:
    id: str
    engine_execution_id: str
    version: Version
    input: dict[str, Any]
    metadata: dict[str, str]
    created_time: int
    #: Its place among all executions, which is the order of their createdTime.
    sequence: int
    status: str = "RUNNING"
    #: RUNNING, but waiting for others to end: the API has no status of its own for that.
    queued: bool = False
    start_time: int | None = None
    end_time: int | None = None
    reason: str | None = None
    #: Until when, in the clients' time, lists and reads by id leave it out: a fault that tests may ask for.
    unlisted_until: int = 0
    unknown_until: int = 0
    #: Its tasks: those of the definition in their order, then the nested ones.
    plan: dict[TaskKey, PlannedTask] = field(default_factory=dict)
    timeout: Timer | None = None

    @property
    def workflow_external_id(self) -> str:
        return self.version.workflow_external_id

    def tasks(self) -> Iterator[TaskExecution]:
        """All attempts at all tasks, in the order in which the API lists them."""
        return itertools.chain.from_iterable(planned.attempts for planned in self.plan.values())


@dataclass(slots=True, eq=False)
class Trigger:
    external_id: str
    rule: dict[str, Any]
    workflow_external_id: str
    workflow_version: str
    input: dict[str, Any] | None
    metadata: dict[str, str] | None
    created_time: int
    last_updated_time: int
    is_paused: bool = False
    #: When it fires next, if it has a schedule.
    timer: Timer | None = None
    #: Its runs with their numbers, the newest first.
    history: deque[tuple[int, dict[str, Any]]] = field(default_factory=lambda: deque(maxlen=1000))


_K = TypeVar("_K")
_V = TypeVar("_V")


class Table(Generic[_K, _V]):
    """Records by key, in the order in which they were created, with a number that serves as cursor."""

    def __init__(self) -> None:
        self._records: dict[_K, tuple[int, _V]] = {}
        self._numbers = itertools.count(1)

    def get(self, key: _K) -> _V | None:
        entry = self._records.get(key)
        return entry[1] if entry else None

    def put(self, key: _K, record: _V) -> None:
        """Add a record, or replace the one with that key, which keeps its place."""
        entry = self._records.get(key)
        self._records[key] = (entry[0] if entry else next(self._numbers), record)

    def remove(self, key: _K) -> None:
        self._records.pop(key, None)

    def numbered(self) -> Iterator[tuple[int, _V]]:
        return iter(self._records.values())

    def __iter__(self) -> Iterator[_V]:
        return (record for _, record in self._records.values())


class Store:
    """Everything the engine knows, found by what requests ask for."""

    def __init__(self) -> None:
        self.workflows: Table[str, Workflow] = Table()
        self.versions: Table[tuple[str, str], Version] = Table()
        self.triggers: dict[str, Trigger] = {}
        self.executions: dict[str, Execution] = {}
        #: All executions, and those of each workflow, in the order of sequence number and createdTime.
        self.ordered: list[Execution] = []
        self.by_workflow: dict[str, list[Execution]] = {}
        self.tasks: dict[str, TaskExecution] = {}
        #: The executions whose status is RUNNING, queued ones too.
        self.running: dict[str, Execution] = {}
        #: By workflow external id: how many executions have started and not ended, and which wait their turn.
        self.started: Counter[str] = Counter()
        self.queued: dict[str, deque[Execution]] = {}
        #: Ended executions, the one that ended first in front.
        self.ended: dict[str, Execution] = {}
        self._sequence = itertools.count(1)

    def next_sequence(self) -> int:
        return next(self._sequence)

    def add_execution(self, execution: Execution) -> None:
        self.executions[execution.id] = execution
        self.ordered.append(execution)
        self.by_workflow.setdefault(execution.workflow_external_id, []).append(execution)

    def forget(self, execution: Execution) -> None:
        """Remove an ended execution and its tasks."""
        del self.executions[execution.id]
        for ordered in (self.ordered, self.by_workflow[execution.workflow_external_id]):
            del ordered[bisect_left(ordered, execution.sequence, key=attrgetter("sequence"))]
        if not self.by_workflow[execution.workflow_external_id]:
            del self.by_workflow[execution.workflow_external_id]
        self.ended.pop(execution.id, None)
        for task in execution.tasks():
            self.tasks.pop(task.id, None)
