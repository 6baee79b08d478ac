"""What a task does while it is IN_PROGRESS, for each type of task."""

from __future__ import annotations

import copy
import itertools
import json
from collections import deque
from typing import Any, Protocol

from airflow_provider_cdf.emulator.rules.clock import Timeline
from airflow_provider_cdf.emulator.rules.definitions import (
    AnyTask,
    CdfTask,
    DynamicTask,
    FunctionTask,
    SimulationTask,
    SubworkflowTask,
    TransformationTask,
    UnknownTask,
    to_json,
)
from airflow_provider_cdf.emulator.rules.errors import InvalidRequestError
from airflow_provider_cdf.emulator.rules.fields import MAX_JSON_BYTES
from airflow_provider_cdf.emulator.rules.functions import FunctionCall, Functions, Reply, to_text
from airflow_provider_cdf.emulator.rules.graphs import check_not_nested, parse_dynamic_tasks
from airflow_provider_cdf.emulator.rules.pace import Pace
from airflow_provider_cdf.emulator.rules.references import Lookup, resolve
from airflow_provider_cdf.emulator.rules.store import TaskExecution


class Attempts(Protocol):
    """What work needs to do with attempts at tasks; the lifecycle does it."""

    def end_attempt(self, task: TaskExecution, status: str, reason: str | None = None) -> None: ...

    def spawn(self, task: TaskExecution, definitions: list[AnyTask]) -> None: ...


class Work:
    """
    Starts the work of a task and says how it ended.

    :param attempts: ends attempts at tasks, and adds tasks
    :param timeline: the time that work takes
    :param pace: how much of it
    :param functions: what functions do
    :param cdf_requests: what cdf tasks get as answer
    :param calls: where calls of handlers are put, for the driver to make them
    """

    def __init__(
        self,
        attempts: Attempts,
        timeline: Timeline,
        pace: Pace,
        functions: Functions,
        cdf_requests: Functions,
        calls: deque[FunctionCall],
    ) -> None:
        self._attempts = attempts
        self._timeline = timeline
        self._pace = pace
        self._functions = functions
        self._cdf_requests = cdf_requests
        self._calls = calls
        self._ids = itertools.count(1_000_001)
        #: Transformation external id -> when its job ends, and the job's id.
        self._transformation_jobs: dict[str, tuple[int, int]] = {}

    @staticmethod
    def input(definition: AnyTask, lookup: Lookup) -> dict[str, Any]:
        """
        The parameters of a task as its ``input`` shows them.

        :param definition: of the task
        :param lookup: finds what its references refer to
        """
        shown: dict[str, Any] = to_json(definition)["parameters"]
        if isinstance(definition, SubworkflowTask):
            return shown  # the tasks in it resolve their own references, when they start
        if isinstance(definition, FunctionTask):
            shown["isAsyncComplete"] = bool(definition.parameters.is_async_complete)
            shown["function"].setdefault("data", {})
        return dict(resolve(shown, lookup))

    def start(self, task: TaskExecution) -> None:
        """
        Start the work of a task that has just become IN_PROGRESS.

        :param task: the attempt
        """
        match task.definition:
            case FunctionTask():
                self._start_function(task)
            case TransformationTask():
                self._start_transformation(task)
            case CdfTask():
                self._start_cdf(task)
            case DynamicTask():
                self._spawn(task)
            case SubworkflowTask():
                self._spawn(task)
            case SimulationTask():
                run_id, log_id = next(self._ids), next(self._ids)
                message = "Simulated by the emulator: no simulator was run"
                self._complete_after(
                    task,
                    self._pace.simulation,
                    {"runId": run_id, "logId": log_id, "statusMessage": message},
                )
            case UnknownTask():
                self._complete_after(task, self._pace.unknown, {})

    def _complete_after(self, task: TaskExecution, seconds: float, output: dict[str, Any]) -> None:
        def complete() -> None:
            task.output = output
            self._attempts.end_attempt(task, "COMPLETED")

        task.timers.append(self._timeline.after(seconds, complete))

    def _fail_after(
        self,
        task: TaskExecution,
        seconds: float,
        status: str,
        reason: str,
        output: dict[str, Any] | None = None,
    ) -> None:
        def fail() -> None:
            task.output = output or {}
            self._attempts.end_attempt(task, status, reason)

        task.timers.append(self._timeline.after(seconds, fail))

    def _start_function(self, task: TaskExecution) -> None:
        function = task.input["function"]
        external_id, data = function["externalId"], function["data"]
        if not isinstance(external_id, str) or not isinstance(data, dict | None):
            problem = (
                "externalId is not a string" if not isinstance(external_id, str) else "data is not an object"
            )
            self._attempts.end_attempt(
                task, "FAILED", f"The function's {problem} once its references are resolved"
            )
            return
        task.call_id = next(self._ids)
        behaviour = self._functions.get(external_id)
        if isinstance(behaviour, Reply):
            seconds = self._pace.function if behaviour.seconds is None else behaviour.seconds
            task.timers.append(
                self._timeline.after(
                    seconds, lambda: self.function_returned(task, behaviour.response, behaviour.error)
                )
            )
            return
        self._calls.append(
            FunctionCall(
                task_id=task.id,
                call_id=task.call_id,
                function_id=Functions.id_of(external_id),
                function_external_id=external_id,
                handler=behaviour,
                data={**(data or {}), "cogniteOrchestrationTaskId": task.id},
            )
        )

    def function_returned(self, task: TaskExecution, response: Any, error: str | None) -> None:
        """
        Go on after a function call has ended.

        :param task: the attempt, still IN_PROGRESS
        :param response: what the function returned
        :param error: why it failed, if it did
        """
        function_id = Functions.id_of(task.input["function"]["externalId"])
        task.output = {"callId": task.call_id, "functionId": function_id, **task.output}
        try:
            if error is None:
                task.output["response"] = _through_json(response)
        except ValueError as refused:
            error = f"its response {refused}"
        if error is not None:
            self._attempts.end_attempt(task, "FAILED", f"The function call failed: {error}")
            return
        if not task.input["isAsyncComplete"]:
            self._attempts.end_attempt(task, "COMPLETED")

    def _start_transformation(self, task: TaskExecution) -> None:
        transformation = task.input["transformation"]
        external_id = transformation["externalId"]
        now, seconds = self._timeline.now(), self._pace.transformation
        busy_until, job_id = self._transformation_jobs.get(str(external_id), (0, 0))
        policy = transformation.get("concurrencyPolicy", "fail")
        if busy_until > now:
            wait = (busy_until - now) / 1000
            if policy == "fail":
                reason = f"Transformation '{external_id}' is already running (job {job_id})"
                self._attempts.end_attempt(task, "FAILED", reason)
                return
            if policy == "waitForCurrent":
                self._complete_after(task, wait, {"jobId": job_id})
                return
            seconds += wait
        job_id = next(self._ids)
        # The job goes on when the task is cancelled, as CDF leaves external work alone.
        self._transformation_jobs[str(external_id)] = (now + round(seconds * 1000), job_id)
        self._complete_after(task, seconds, {"jobId": job_id})

    def _start_cdf(self, task: TaskExecution) -> None:
        request = task.input["cdfRequest"]
        # Lists of resources are what workflows ask for most, and here they are empty.
        answer = self._cdf_requests.get(
            f"{request['method']} {request['resourcePath']}", Reply({"items": []})
        )
        if not isinstance(answer, Reply):
            answer = Reply(
                error="The emulator answers cdf tasks with a Reply or a JSON value, not a callable"
            )
        seconds = self._pace.cdf if answer.seconds is None else answer.seconds
        patience = request.get("requestTimeoutInMillis")
        limit = (patience if isinstance(patience, int | float) else 10_000) / 1000
        if seconds > limit:
            self._fail_after(task, limit, "TIMED_OUT", f"No answer within {limit} s")
        elif answer.error is not None:
            body = {"error": {"code": 500, "message": answer.error}}
            output = {"response": body, "statusCode": 500}
            self._fail_after(task, seconds, "FAILED", f"The request got status 500: {answer.error}", output)
        else:
            self._complete_after(
                task, seconds, {"response": copy.deepcopy(answer.response), "statusCode": 200}
            )

    def _spawn(self, task: TaskExecution) -> None:
        try:
            if isinstance(task.definition, DynamicTask):
                tasks = parse_dynamic_tasks(task.input["dynamic"]["tasks"], task.external_id)
                self._check_unique(task, tasks)
                task.output = {"dynamicTasks": [to_json(child) for child in tasks]}
            else:
                tasks = self._subworkflow(task)
        except InvalidRequestError as error:
            self._attempts.end_attempt(task, "FAILED", error.message)
            return
        self._attempts.spawn(task, tasks)

    @staticmethod
    def _subworkflow(task: TaskExecution) -> list[AnyTask]:
        definition = task.planned.subworkflow
        if definition is None:
            raise InvalidRequestError("What it refers to did not exist when the execution started")
        # It may have been changed since the version that refers to it was accepted.
        check_not_nested(definition.tasks, f"subworkflow task '{task.external_id}'")
        return definition.tasks

    @staticmethod
    def _check_unique(task: TaskExecution, tasks: list[AnyTask]) -> None:
        # Tasks refer to a dynamic task's children by external id alone.
        taken = {key[1] for key in task.execution.plan}
        for child in tasks:
            if child.external_id in taken:
                raise InvalidRequestError(
                    f"dynamic.tasks of '{task.external_id}': the execution already has a task"
                    f" '{child.external_id}'"
                )


def _through_json(response: Any) -> Any:
    """
    What comes out at the other end of a wire: a copy, whatever the function still does with its own.

    :raises ValueError: saying what is wrong with the response
    """
    text = to_text(response)
    size = len(text.encode())
    if size > MAX_JSON_BYTES:
        raise ValueError(f"is {size} bytes; the limit is {MAX_JSON_BYTES}")
    return json.loads(text)
