"""
The rules of Data workflows: which task starts when, and what follows from the way it ends.

The engine knows no HTTP and no threads. Whoever drives it calls :meth:`Engine.advance` when time has passed,
makes the calls in :attr:`Engine.calls`, and lets one thread in at a time. Where Cognite's documentation
leaves a rule open, Conductor's decides, which is the engine behind Data workflows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any
from uuid import UUID, uuid4

from airflow_provider_cdf.emulator.catalog import Catalog
from airflow_provider_cdf.emulator.clock import Clock, Timer, Timers
from airflow_provider_cdf.emulator.definitions import AnyTask, FunctionTask
from airflow_provider_cdf.emulator.errors import InvalidRequestError, NotFoundError
from airflow_provider_cdf.emulator.functions import FunctionCall, Functions
from airflow_provider_cdf.emulator.references import resolve
from airflow_provider_cdf.emulator.sessions import Sessions
from airflow_provider_cdf.emulator.store import (
    WAITING,
    Execution,
    PlannedTask,
    Store,
    TaskExecution,
    Version,
)
from airflow_provider_cdf.emulator.work import Work

#: Statuses of an attempt that a retry of the whole execution runs again.
_RETRIED = frozenset({"CANCELED", "FAILED", "FAILED_WITH_TERMINAL_ERROR", "TIMED_OUT"})
_MAX_TASKS_PER_EXECUTION = 200
_EXECUTION_TIMEOUT_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take in the emulated CDF, in seconds of workflow time."""

    #: From SCHEDULED to IN_PROGRESS.
    pickup: float = 0.05
    function: float = 0.2
    #: Long enough to cancel an execution right after its start.
    cdf: float = 0.5
    transformation: float = 0.5
    simulation: float = 0.5
    #: Before the nth retry of a task it waits n times as long; the real one is said to wait n times 20 s.
    retry_delay: float = 1.0


class Engine:
    """
    :param clock: what time it is
    :param functions: what functions do
    :param cdf_requests: what cdf tasks get as answer, by ``"GET /timeseries"``
    :param pace: how long things take
    :param max_concurrent_executions: of the project; more than that queue
    :param retain: how many ended executions to remember; None for all of them
    """

    def __init__(
        self,
        clock: Clock,
        functions: Functions | None = None,
        cdf_requests: Functions | None = None,
        *,
        pace: Pace | None = None,
        max_concurrent_executions: int = 200,
        retain: int | None = None,
    ) -> None:
        self.store = Store()
        self.catalog = Catalog(self.store, self.now)
        self.sessions = Sessions(clock.client_now)
        self.functions = functions or Functions()
        #: Calls of Python handlers that whoever drives the engine has to make.
        self.calls: deque[FunctionCall] = deque()
        self.pace = pace or Pace()
        self._clock = clock
        self._now = clock.now()
        self._timers = Timers()
        self._max_concurrent_executions = max_concurrent_executions
        self._retain = retain
        self._starting = False
        self._work = Work(self, cdf_requests or Functions())

    # Time

    def now(self) -> int:
        """The time of what is happening now: while time is caught up with, that of the event."""
        return self._now

    def advance(self) -> None:
        """Let everything happen that was to happen by now, in order and each at its own time."""
        now = self._clock.now()
        while (timer := self._timers.pop_due(now)) is not None:
            self._now = max(self._now, timer.due)
            if timer.action is not None:
                timer.action()
        self._now = max(self._now, now)

    def next_due(self) -> int | None:
        """When something will happen next; None if nothing will."""
        return self._timers.next_due()

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """
        Have something happen later.

        :param seconds: of workflow time
        :param action: what is to happen
        """
        return self._timers.set(self._now + round(seconds * 1000), action)

    # Executions, as the API sees them

    def run(
        self,
        workflow_external_id: str,
        version: str,
        *,
        nonce: str | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name
        metadata: Mapping[str, str] | None = None,
    ) -> Execution:
        """
        Start an execution. It keeps the definition that the version has now.

        :param workflow_external_id: of the workflow
        :param version: of the workflow
        :param nonce: of the session to run with, which is used up; None for the engine's own starts
        :param input: what ``${workflow.input}`` refers to; gains the key ``version``
        :param metadata: kept with the execution
        """
        record = self.catalog.version(workflow_external_id, version)
        if nonce is not None:
            self.sessions.use(nonce)
        execution = Execution(
            id=str(uuid4()),
            engine_execution_id=str(uuid4()),
            version=record,
            input={**(input or {}), "version": version},
            metadata=dict(metadata or {}),
            created_time=self._now,
            sequence=self.store.next_sequence(),
        )
        self._plan(execution, record)
        self.store.add_execution(execution)
        self._queue(execution)
        return execution

    def execution(self, execution_id: str) -> Execution:
        execution = self.store.executions.get(_check_uuid(execution_id, "executionId"))
        if execution is None:
            raise NotFoundError(f"Workflow execution with id {execution_id} was not found.")
        return execution

    def executions(
        self,
        *,
        workflows: Collection[tuple[str, str | None]] = (),
        created_time_start: int | None = None,
        created_time_end: int | None = None,
        statuses: Collection[str] = (),
    ) -> Iterator[tuple[int, Execution]]:
        """
        Executions with their sequence numbers, in the order of their createdTime.

        :param workflows: only of these, each an external id and a version or None; empty for all
        :param created_time_start: only those created at this time or later
        :param created_time_end: only those created at this time or earlier
        :param statuses: only those in one of these; empty for all
        """
        candidates: Iterable[Execution] = self.store.executions.values()
        if set(statuses) == {"RUNNING"}:
            candidates = sorted(self.store.running.values(), key=attrgetter("sequence"))
        wanted = set(workflows)
        for execution in candidates:
            version = execution.version
            key = version.workflow_external_id
            if wanted and (key, None) not in wanted and (key, version.version) not in wanted:
                continue
            if statuses and execution.status not in statuses:
                continue
            created = execution.created_time
            if created_time_start is not None and created < created_time_start:
                continue
            if created_time_end is not None and created > created_time_end:
                continue
            yield execution.sequence, execution

    def cancel(self, execution_id: str, reason: str = "cancelled") -> Execution:
        """
        End an execution as TERMINATED. One that is TERMINATED already stays as it is.

        :param execution_id: of the execution
        :param reason: becomes its reasonForIncompletion
        """
        execution = self.execution(execution_id)
        if execution.status == "TERMINATED":
            return execution
        if execution.status != "RUNNING":
            raise InvalidRequestError(
                f"Workflow execution with id {execution_id} cannot be cancelled: it is {execution.status}."
            )
        self._end(execution, "TERMINATED", reason)
        return execution

    def retry(self, execution_id: str, *, nonce: str | None = None) -> Execution:
        """
        Run an execution that ended badly again, but of its tasks only those that failed.

        :param execution_id: of the execution
        :param nonce: of the session to run with, which is used up
        """
        execution = self.execution(execution_id)
        if execution.status in ("RUNNING", "COMPLETED"):
            raise InvalidRequestError(
                f"Workflow execution with id {execution_id} cannot be retried: it is {execution.status}."
            )
        if nonce is not None:
            self.sessions.use(nonce)
        self.store.ended.pop(execution.id, None)
        execution.status = "RUNNING"
        execution.end_time = execution.reason = None
        for planned in execution.plan.values():
            if planned.current is not None and planned.current.status in _RETRIED:
                planned.max_attempts = max(planned.max_attempts, len(planned.attempts) + 1)
        self._queue(execution)
        return execution

    def update_task(
        self, task_id: str, status: str, output: Mapping[str, Any] | None = None
    ) -> TaskExecution:
        """
        Report the end of an async function task, whether its function has returned yet or not.

        :param task_id: of one attempt at the task
        :param status: COMPLETED, FAILED or FAILED_WITH_TERMINAL_ERROR
        :param output: merged into the task's output, key by key at the top level
        """
        task = self.task(task_id)
        if task.status not in WAITING:
            raise InvalidRequestError(
                f"Task with id {task_id} is already in a terminal state ({task.status})."
            )
        if not (isinstance(task.definition, FunctionTask) and task.definition.parameters.is_async_complete):
            raise InvalidRequestError(
                f"Task with id {task_id} ('{task.external_id}') cannot be updated:"
                " it is not a function task with isAsyncComplete."
            )
        task.output = {**task.output, **(output or {})}
        reason = None if status == "COMPLETED" else f"Task was updated to {status} through the API"
        self.end_attempt(task, status, reason)
        return task

    def task(self, task_id: str) -> TaskExecution:
        task = self.store.tasks.get(_check_uuid(task_id, "taskId"))
        if task is None:
            raise NotFoundError(f"Task with id {task_id} was not found.")
        return task

    def skip_task(self, execution_id: str, task_external_id: str) -> TaskExecution:
        """
        Mark a task that has not started as SKIPPED, and go on after it.

        CDF's API has no such call, but clients may meet the status: Conductor lets its operators do this.

        :param execution_id: of the execution
        :param task_external_id: of a task that has not started
        """
        execution = self.execution(execution_id)
        planned = next((p for key, p in execution.plan.items() if key[1] == task_external_id), None)
        if planned is None:
            raise NotFoundError(f"Execution {execution_id} has no task '{task_external_id}'.")
        if execution.status != "RUNNING" or planned.current is not None:
            raise InvalidRequestError(
                f"Task '{task_external_id}' of execution {execution_id} cannot be skipped: it has started,"
                " or its execution has ended."
            )
        task = self._new_attempt(execution, planned)
        task.status, task.end_time = "SKIPPED", self._now
        self._decide(execution)
        return task

    def function_returned(self, task_id: str, response: Any = None, error: str | None = None) -> None:
        """
        Tell the engine how a call from :attr:`calls` went. A task that has ended meanwhile ignores it.

        :param task_id: of the call
        :param response: what the function returned
        :param error: why it failed, if it did
        """
        task = self.store.tasks.get(task_id)
        if task is not None and task.status == "IN_PROGRESS":
            self._work.function_returned(task, response, error)

    # What follows from the way an attempt ends

    def end_attempt(self, task: TaskExecution, status: str, reason: str | None = None) -> None:
        """
        End an attempt at a task, and do what the task's onFailure and retries ask for.

        :param task: an attempt that waits
        :param status: COMPLETED, FAILED, FAILED_WITH_TERMINAL_ERROR or TIMED_OUT
        :param reason: why it did not complete
        """
        self._close(task, status, reason)
        execution, planned = task.execution, task.planned
        skip = task.definition.on_failure == "skipTask"
        if status == "COMPLETED":
            self._decide(execution)
        elif self._may_retry(task, status, skip):
            again = self._new_attempt(execution, planned)
            delay = self.pace.retry_delay * (len(planned.attempts) - 1)
            again.timers.append(self.after(self.pace.pickup + delay, lambda: self._start(again)))
        elif skip:
            task.status = "COMPLETED_WITH_ERRORS"
            self._decide(execution)
        else:
            failed = f"Task {task.id} ('{task.external_id}') failed with status: {status}"
            self._end(execution, "FAILED", f"{failed} and reason: '{reason}'" if reason else failed)

    @staticmethod
    def _may_retry(task: TaskExecution, status: str, skip: bool) -> bool:
        if len(task.planned.attempts) >= task.planned.max_attempts:
            return False
        return status == "FAILED" or (status == "TIMED_OUT" and skip)

    def spawn(self, task: TaskExecution, definitions: list[AnyTask]) -> None:
        """
        Add the tasks of a dynamic task or subworkflow to its execution, and end it as COMPLETED.

        Those that depend on it wait for the new tasks, as a recorded execution shows.

        :param task: the attempt that runs
        :param definitions: the new tasks
        """
        execution, planned = task.execution, task.planned
        total = len(execution.plan) + len(definitions)
        if total > _MAX_TASKS_PER_EXECUTION:
            reason = f"The execution would have {total} tasks; the limit is {_MAX_TASKS_PER_EXECUTION}"
            self.end_attempt(task, "FAILED", reason)
            return
        for definition in definitions:
            child = PlannedTask(
                definition, task.external_id, len(execution.plan), max_attempts=definition.retries + 1
            )
            execution.plan[child.key] = child
            planned.children.append(child)
        self.end_attempt(task, "COMPLETED")

    def _plan(self, execution: Execution, version: Version) -> None:
        for position, definition in enumerate(version.definition.tasks):
            planned = PlannedTask(definition, None, position, max_attempts=definition.retries + 1)
            execution.plan[planned.key] = planned

    def _queue(self, execution: Execution) -> None:
        execution.queued = True
        self.store.running[execution.id] = execution
        self.store.queued.setdefault(execution.workflow_external_id, deque()).append(execution)
        self._start_queued()

    def _start_queued(self) -> None:
        """Start executions that wait for others of their workflow, or of the project, to end."""
        if self._starting:  # an execution without tasks ends while it is being started
            return
        self._starting = True
        while (execution := self._next_in_line()) is not None:
            execution.queued = False
            self.store.started[execution.workflow_external_id] += 1
            self._begin(execution)
        self._starting = False

    def _next_in_line(self) -> Execution | None:
        store = self.store
        if store.started.total() >= self._max_concurrent_executions:
            return None
        for external_id, queue in store.queued.items():
            workflow = store.workflows.get(external_id)
            limit = workflow.max_concurrent_executions if workflow else None
            if limit is None or store.started[external_id] < limit:
                execution = queue.popleft()
                if not queue:
                    del store.queued[external_id]
                return execution
        return None

    def _begin(self, execution: Execution) -> None:
        if execution.start_time is None:
            execution.start_time = self._now
        execution.timeout = self.after(
            _EXECUTION_TIMEOUT_MS / 1000,
            lambda: self._end(execution, "TIMED_OUT", "The execution took longer than 24 hours"),
        )
        for planned in list(execution.plan.values()):
            if planned.current is not None and planned.current.status in _RETRIED:
                self._schedule(execution, planned)
        self._decide(execution)

    def _decide(self, execution: Execution) -> None:
        """Schedule every task whose dependencies have ended well; end the execution if all tasks have."""
        if execution.status != "RUNNING":
            return
        for planned in list(execution.plan.values()):
            if planned.current is None and self._dependencies_satisfied(execution, planned):
                self._schedule(execution, planned)
        if all(planned.satisfied for planned in execution.plan.values()):
            self._end(execution, "COMPLETED")

    @staticmethod
    def _dependencies_satisfied(execution: Execution, planned: PlannedTask) -> bool:
        return all(
            execution.plan[(planned.parent, dependency)].satisfied
            for dependency in planned.definition.dependencies
        )

    def _schedule(self, execution: Execution, planned: PlannedTask) -> None:
        task = self._new_attempt(execution, planned)
        task.timers.append(self.after(self.pace.pickup, lambda: self._start(task)))

    def _new_attempt(self, execution: Execution, planned: PlannedTask) -> TaskExecution:
        parameters = self._work.parameters(planned.definition)
        task = TaskExecution(
            id=str(uuid4()),
            execution=execution,
            planned=planned,
            attempt=len(planned.attempts) + 1,
            input=resolve(parameters, lambda task, part: self._look_up(execution, planned, task, part)),
        )
        planned.attempts.append(task)
        self.store.tasks[task.id] = task
        return task

    @staticmethod
    def _look_up(execution: Execution, planned: PlannedTask, external_id: str, part: str) -> Any:
        if external_id == "workflow":
            return execution.input if part == "input" else None
        plan = execution.plan
        # Siblings first, then the tasks of the definition, then those nested anywhere else.
        found = plan.get((planned.parent, external_id)) or plan.get((None, external_id))
        if found is None:
            found = next((other for key, other in plan.items() if key[1] == external_id), None)
        if found is None or found.current is None:
            return None
        return found.current.output if part == "output" else found.current.input

    def _start(self, task: TaskExecution) -> None:
        task.status, task.start_time = "IN_PROGRESS", self._now
        seconds = task.definition.timeout
        task.timers = [
            self.after(
                seconds, lambda: self.end_attempt(task, "TIMED_OUT", f"The task took longer than {seconds} s")
            )
        ]
        self._work.start(task)

    def _close(self, task: TaskExecution, status: str, reason: str | None) -> None:
        task.status, task.end_time, task.reason = status, self._now, reason
        for timer in task.timers:
            timer.cancel()
        task.timers = []

    def _end(self, execution: Execution, status: str, reason: str | None = None) -> None:
        """End an execution: nothing of it may go on."""
        for task in execution.tasks():
            if task.status in WAITING:
                self._close(task, "CANCELED", f"The execution ended with status {status}")
        execution.status, execution.end_time, execution.reason = status, self._now, reason
        if execution.timeout is not None:
            execution.timeout.cancel()
        store = self.store
        store.running.pop(execution.id, None)
        store.ended[execution.id] = execution
        if execution.queued:
            queue = store.queued[execution.workflow_external_id]
            queue.remove(execution)
            if not queue:
                del store.queued[execution.workflow_external_id]
            execution.queued = False
        else:
            store.started[execution.workflow_external_id] -= 1
        if self._retain is not None:
            while len(store.ended) > self._retain:
                store.forget(next(iter(store.ended.values())))
        self._start_queued()


def _check_uuid(value: str, name: str) -> str:
    """CDF refuses an id that is no UUID with 400, not 404."""
    try:
        return str(UUID(value)) if len(value) == 36 else _refuse_uuid(value, name)
    except ValueError:
        return _refuse_uuid(value, name)


def _refuse_uuid(value: str, name: str) -> str:
    raise InvalidRequestError(f"{name}: '{value}' is not a valid UUID.")
