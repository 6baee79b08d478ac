"""
The rules of Data workflows: which task starts when, and what follows from the way it ends.

Where Cognite's documentation leaves a rule open, Conductor's decides, which is the engine behind Data
workflows.
"""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from typing import Any
from uuid import uuid4

from airflow_provider_cdf.emulator.rules.catalog import Catalog
from airflow_provider_cdf.emulator.rules.clock import Timeline
from airflow_provider_cdf.emulator.rules.definitions import AnyTask
from airflow_provider_cdf.emulator.rules.functions import FunctionCall, Functions
from airflow_provider_cdf.emulator.rules.pace import Pace
from airflow_provider_cdf.emulator.rules.store import WAITING, Execution, PlannedTask, Store, TaskExecution
from airflow_provider_cdf.emulator.rules.work import Work

#: Statuses of an attempt that a retry of the whole execution runs again.
RETRIED = frozenset({"CANCELED", "FAILED", "FAILED_WITH_TERMINAL_ERROR", "TIMED_OUT"})
_MAX_TASKS_PER_EXECUTION = 200
_EXECUTION_TIMEOUT_SECONDS = 24 * 3600


class Lifecycle:
    """
    Takes executions and their tasks from one status to the next.

    :param store: where they are kept
    :param timeline: the time that they live in
    :param catalog: the versions that subworkflows refer to
    :param functions: what functions do
    :param cdf_requests: what cdf tasks get as answer
    :param pace: how long things take
    :param max_concurrent_executions: of the project; more than that queue
    :param retain: how many ended executions to remember; None for all of them
    """

    def __init__(
        self,
        store: Store,
        timeline: Timeline,
        catalog: Catalog,
        functions: Functions,
        cdf_requests: Functions,
        pace: Pace,
        max_concurrent_executions: int,
        retain: int | None,
    ) -> None:
        self.store = store
        self.timeline = timeline
        self.catalog = catalog
        self.pace = pace
        #: Calls of Python handlers that the driver has to make.
        self.calls: deque[FunctionCall] = deque()
        self.work = Work(self, timeline, pace, functions, cdf_requests, self.calls)
        self._max_concurrent_executions = max_concurrent_executions
        self._retain = retain
        self._starting = False

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
            self.decide(execution)
        elif self._may_retry(task, status, skip):
            again = self.new_attempt(execution, planned)
            delay = self.pace.retry_delay * (len(planned.attempts) - 1)
            again.timers.append(self.timeline.after(self.pace.pickup + delay, lambda: self._start(again)))
        elif skip:
            task.status = "COMPLETED_WITH_ERRORS"
            self.decide(execution)
        else:
            failed = f"Task {task.id} ('{task.external_id}') failed with status: {status}"
            self.end(execution, "FAILED", f"{failed} and reason: '{reason}'" if reason else failed)

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
            child = PlannedTask(definition, task.external_id, max_attempts=definition.retries + 1)
            execution.plan[child.key] = child
            planned.children.append(child)
        self.end_attempt(task, "COMPLETED")

    def plan(self, execution: Execution) -> None:
        """Give a new execution the tasks that its version has now."""
        for definition in execution.version.definition.tasks:
            planned = PlannedTask(definition, None, max_attempts=definition.retries + 1)
            planned.subworkflow = self.catalog.subworkflow_of(definition)
            execution.plan[planned.key] = planned

    def queue(self, execution: Execution) -> None:
        """Start an execution, or start it again, as soon as there is room for it."""
        execution.queued = True
        self.store.running[execution.id] = execution
        self.store.queued.setdefault(execution.workflow_external_id, deque()).append(execution)
        self.start_queued()

    def start_queued(self) -> None:
        """Start executions that wait for others of their workflow, or of the project, to end."""
        if self._starting:  # an execution without tasks ends while it is being started
            return
        self._starting = True
        try:
            while (execution := self._next_in_line()) is not None:
                execution.queued = False
                self.store.started[execution.workflow_external_id] += 1
                self._begin(execution)
        finally:
            self._starting = False

    def _next_in_line(self) -> Execution | None:
        store = self.store
        if store.started.total() >= self._max_concurrent_executions:
            return None
        heads = [queue[0] for external_id, queue in store.queued.items() if self._has_room(external_id)]
        if not heads:
            return None
        first = min(heads, key=attrgetter("sequence"))  # of whatever workflow: none waits for ever
        queue = store.queued[first.workflow_external_id]
        queue.popleft()
        if not queue:
            del store.queued[first.workflow_external_id]
        return first

    def _has_room(self, workflow_external_id: str) -> bool:
        workflow = self.store.workflows.get(workflow_external_id)
        limit = workflow.max_concurrent_executions if workflow else None
        return limit is None or self.store.started[workflow_external_id] < limit

    def _begin(self, execution: Execution) -> None:
        if execution.start_time is None:
            execution.start_time = self.timeline.now()
        execution.timeout = self.timeline.after(
            _EXECUTION_TIMEOUT_SECONDS,
            lambda: self.end(execution, "TIMED_OUT", "The execution took longer than 24 hours"),
        )
        for planned in list(execution.plan.values()):
            if planned.current is not None and planned.current.status in RETRIED:
                self._schedule(execution, planned)
        self.decide(execution)

    def decide(self, execution: Execution) -> None:
        """Schedule every task whose dependencies have ended well; end the execution if all tasks have."""
        if execution.status != "RUNNING":
            return
        for planned in list(execution.plan.values()):
            if planned.current is None and self._dependencies_satisfied(execution, planned):
                self._schedule(execution, planned)
        if all(planned.satisfied for planned in execution.plan.values()):
            self.end(execution, "COMPLETED")

    @staticmethod
    def _dependencies_satisfied(execution: Execution, planned: PlannedTask) -> bool:
        return all(
            execution.plan[(planned.parent, dependency)].satisfied
            for dependency in planned.definition.dependencies
        )

    def _schedule(self, execution: Execution, planned: PlannedTask) -> None:
        task = self.new_attempt(execution, planned)
        task.timers.append(self.timeline.after(self.pace.pickup, lambda: self._start(task)))

    def new_attempt(self, execution: Execution, planned: PlannedTask) -> TaskExecution:
        """An attempt at a task, SCHEDULED, with a new id and with its references resolved as of now."""
        task = TaskExecution(
            id=str(uuid4()),
            execution=execution,
            planned=planned,
            input=self.work.input(
                planned.definition, lambda task, part: self._look_up(execution, planned, task, part)
            ),
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
        task.status, task.start_time = "IN_PROGRESS", self.timeline.now()
        seconds = task.definition.timeout
        task.timers = [
            self.timeline.after(
                seconds, lambda: self.end_attempt(task, "TIMED_OUT", f"The task took longer than {seconds} s")
            )
        ]
        self.work.start(task)

    def _close(self, task: TaskExecution, status: str, reason: str | None) -> None:
        task.status, task.end_time, task.reason = status, self.timeline.now(), reason
        for timer in task.timers:
            timer.cancel()
        task.timers = []

    def end(self, execution: Execution, status: str, reason: str | None = None) -> None:
        """End an execution: nothing of it may go on."""
        for task in execution.tasks():
            if task.status in WAITING:
                self._close(task, "CANCELED", f"The execution ended with status {status}")
        execution.status, execution.end_time, execution.reason = status, self.timeline.now(), reason
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
        self.start_queued()
