"""
The engine: what can be done with workflows, their executions and their tasks.

It knows no HTTP and no threads. What drives it calls :meth:`Engine.advance` when time has passed, makes
the calls in :attr:`Engine.calls`, and lets one thread in at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from operator import attrgetter
from typing import Any
from uuid import UUID, uuid4

from airflow_provider_cdf.emulator.rules.catalog import Catalog
from airflow_provider_cdf.emulator.rules.clock import Clock, Timeline
from airflow_provider_cdf.emulator.rules.definitions import FunctionTask
from airflow_provider_cdf.emulator.rules.errors import InvalidRequestError, NotFoundError
from airflow_provider_cdf.emulator.rules.functions import Functions
from airflow_provider_cdf.emulator.rules.lifecycle import RETRIED, Lifecycle
from airflow_provider_cdf.emulator.rules.pace import Pace
from airflow_provider_cdf.emulator.rules.sessions import Sessions
from airflow_provider_cdf.emulator.rules.store import WAITING, Execution, Store, TaskExecution
from airflow_provider_cdf.emulator.rules.triggers import Triggers


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
        self.timeline = Timeline(clock)
        self.catalog = Catalog(self.store, self.timeline.now)
        self.sessions = Sessions(clock.client_now)
        self.functions = functions or Functions()
        self._lifecycle = Lifecycle(
            self.store,
            self.timeline,
            self.catalog,
            self.functions,
            cdf_requests or Functions(),
            pace or Pace(),
            max_concurrent_executions,
            retain,
        )
        #: Calls of Python handlers that the driver has to make.
        self.calls = self._lifecycle.calls

        self._client_now = clock.client_now
        #: Faults that tests asked for, each for the next execution or the next cancel.
        self._hide: deque[tuple[float, bool]] = deque()
        self._cancel_delays: deque[float] = deque()
        self.triggers = Triggers(self.store, self.timeline, self.run)

    def advance(self) -> None:
        """Let everything happen that was to happen by now."""
        self.timeline.advance()
        self._lifecycle.start_queued()  # a workflow's limit may have been raised

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
            created_time=self.timeline.now(),
            sequence=self.store.next_sequence(),
        )
        if self._hide:
            seconds, by_id_too = self._hide.popleft()
            execution.unlisted_until = self._client_now() + round(seconds * 1000)
            execution.unknown_until = execution.unlisted_until if by_id_too else 0
        self._lifecycle.plan(execution)
        self.store.add_execution(execution)
        self._lifecycle.queue(execution)
        return execution

    def execution(self, execution_id: str) -> Execution:
        execution = self.store.executions.get(_check_uuid(execution_id, "executionId"))
        if execution is None:
            raise NotFoundError(f"Workflow execution with id {execution_id} was not found.")
        return execution

    def visible_execution(self, execution_id: str) -> Execution:
        """An execution as a read by id finds it: not yet, if that was asked for."""
        execution = self.execution(execution_id)
        if execution.unknown_until > self._client_now():
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
        wanted = set(workflows)
        client_now = self._client_now()
        for execution in self._candidates({name for name, _ in wanted}, statuses, created_time_start or 0):
            if statuses and execution.status not in statuses:
                continue
            name, version = execution.workflow_external_id, execution.version.version
            if wanted and (name, None) not in wanted and (name, version) not in wanted:
                continue
            if execution.unlisted_until > client_now:
                continue
            created = execution.created_time
            if created_time_end is not None and created > created_time_end:
                continue
            yield execution.sequence, execution

    def _candidates(
        self, workflows: Collection[str], statuses: Collection[str], created_time_start: int
    ) -> Iterable[Execution]:
        """The executions among which those that are wanted are to be found, with as few others as is easy."""
        ordered: list[Execution]
        if set(statuses) == {"RUNNING"}:
            ordered = sorted(self.store.running.values(), key=attrgetter("sequence"))
        elif len(workflows) == 1:
            ordered = self.store.by_workflow.get(next(iter(workflows)), [])
        else:
            ordered = self.store.ordered
        start = bisect_left(ordered, created_time_start, key=attrgetter("created_time"))
        return islice(ordered, start, None)

    def hide_new_executions(self, seconds: float, times: int = 1, *, by_id_too: bool = False) -> None:
        """
        Let lists leave the next executions out for a while, as if they were behind.

        :param seconds: for how long, in the clients' time
        :param times: how many executions
        :param by_id_too: whether a read by id does not find them either
        """
        self._hide.extend([(seconds, by_id_too)] * times)

    def delay_cancels(self, seconds: float, times: int = 1) -> None:
        """
        Let the next cancels take effect later: they are answered with the execution as it is, RUNNING.

        :param seconds: how much later, in workflow time
        :param times: how many cancels of running executions
        """
        self._cancel_delays.extend([seconds] * times)

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
        if self._cancel_delays:
            self.timeline.after(self._cancel_delays.popleft(), lambda: self._terminate(execution, reason))
        else:
            self._terminate(execution, reason)
        return execution

    def _terminate(self, execution: Execution, reason: str) -> None:
        if execution.status == "RUNNING":  # it may have ended while its cancel was delayed
            self._lifecycle.end(execution, "TERMINATED", reason)

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
            if planned.current is not None and planned.current.status in RETRIED:
                planned.max_attempts = max(planned.max_attempts, len(planned.attempts) + 1)
        self._lifecycle.queue(execution)
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
        self._lifecycle.end_attempt(task, status, reason)
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
        task = self._lifecycle.new_attempt(execution, planned)
        task.status, task.end_time = "SKIPPED", self.timeline.now()
        self._lifecycle.decide(execution)
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
            self._lifecycle.work.function_returned(task, response, error)


def _check_uuid(value: str, name: str) -> str:
    """CDF refuses an id that is no UUID with 400, not 404."""
    try:
        return str(UUID(value)) if len(value) == 36 else _refuse_uuid(value, name)
    except ValueError:
        return _refuse_uuid(value, name)


def _refuse_uuid(value: str, name: str) -> str:
    raise InvalidRequestError(f"{name}: '{value}' is not a valid UUID.")
