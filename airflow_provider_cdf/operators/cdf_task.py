"""What a function that does the work of a CDF task is given, and what it returns."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.attempts import current_attempt
from airflow_provider_cdf.cdf.errors import CdfError, CdfInputError
from airflow_provider_cdf.cdf.messages import ids, told
from airflow_provider_cdf.operators.reporting import KEY, Target

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.models import TaskExecution, WorkflowExecutionDetails
    from airflow_provider_cdf.hooks.cdf import CdfHook

log = logging.getLogger(__name__)

#: Key of an output that holds the result of a function that returned no object.
RETURN_VALUE = "return_value"
#: That, and what CDF itself puts into the output of a function task.
_OF_OTHERS = frozenset({RETURN_VALUE, "callId", "functionId", "response"})
#: Key of a report that says which of them a function has returned itself.
OWN_KEYS = "own_keys"


class CdfTask:
    """
    The CDF task whose work a function does, as its parameter ``cdf_task``.

    :param hook: of the connection.
    :param target: how the task is addressed.
    :param attempt: the attempt that waits; ``None`` if only its id is known.
    :param poll_interval: seconds for which an answer of :meth:`is_waiting` holds.
    """

    def __init__(
        self, hook: CdfHook, target: Target, attempt: TaskExecution | None, poll_interval: float
    ) -> None:
        self._hook, self._target, self._attempt = hook, target, attempt
        self._poll_interval = poll_interval
        self._asked_at = clock.now()
        self._is_waiting = True

    def __repr__(self) -> str:
        return (
            f"CdfTask(id={self.id!r}, external_id={self.external_id!r}, execution_id={self.execution_id!r})"
        )

    @property
    def id(self) -> str:
        """UUID of the attempt; a task that CDF retries has another one."""
        return str(self._target.cdf_task_id) if self._attempt is None else self._attempt.id

    @property
    def external_id(self) -> str | None:
        """External id of the task; ``None`` if only the id of its attempt is known."""
        return self._target.task_external_id if self._attempt is None else self._attempt.external_id

    @property
    def parent_task_external_id(self) -> str | None:
        """The dynamic task or subworkflow that the task is a child of; ``None`` if it is none."""
        return None if self._attempt is None else self._attempt.parent_task_external_id

    @property
    def execution_id(self) -> str | None:
        """UUID of the execution, if it is known."""
        return self._target.execution_id

    @property
    def input(self) -> Mapping[str, Any]:
        """
        The task's input as CDF has it, with its references resolved.

        :raises CdfInputError: if the execution is not known, without which CDF cannot be asked.
        """
        if self._attempt is None:
            raise self._unknown("its input")
        return self._attempt.input

    @property
    def data(self) -> Mapping[str, Any]:
        """
        What the CDF function was called with: ``function.data`` of the input.

        :raises CdfInputError: if the execution is not known.
        """
        function = self.input.get("function")
        data = function.get("data") if isinstance(function, Mapping) else None
        return data if isinstance(data, Mapping) else {}

    def is_waiting(self) -> bool:
        """
        Whether CDF still waits for a report on this task, for work that wants to stop early.

        CDF is asked at most once per ``poll_interval``; in between, and where it does not answer, the last
        answer holds. It takes the time of a request: in a coroutine, use
        ``await asyncio.to_thread(cdf_task.is_waiting)``.

        :raises CdfInputError: if the execution is not known.
        """
        if self._attempt is None:
            raise self._unknown("whether it waits")
        if clock.now() - self._asked_at >= self._poll_interval:
            try:
                execution = self._hook.get_execution(str(self.execution_id))
                attempt = attempt_at(execution, self._target)
            except CdfError as error:
                log.warning("%s", told("It is not known just now whether the CDF task still waits.", error))
            else:
                self._is_waiting = not (attempt is None or attempt.has_ended or execution.has_ended)
            self._asked_at = clock.now()
        return self._is_waiting

    def _unknown(self, what: str) -> CdfInputError:
        return CdfInputError(
            f"The execution of this CDF task is not known, so {what} is not either. CDF reads a task by its "
            f"execution only: give the operator execution_id as well. {ids(task=self.id)}"
        )


def attempt_at(execution: WorkflowExecutionDetails, target: Target) -> TaskExecution | None:
    """Return the attempt that a target means in an execution."""
    if target.task_external_id is not None:
        return current_attempt(execution, target.task_external_id, target.parent_task_external_id)
    task_id = str(target.cdf_task_id).lower()
    return next((task for task in execution.executed_tasks if task.id == task_id), None)


def own_keys(value: Any) -> list[str]:
    """
    Return those keys of what a function has returned that cannot be told from keys of others in the output.

    The report names them, so that :func:`result_of` finds the same result again.
    """
    return sorted(_OF_OTHERS & value.keys()) if isinstance(value, dict) else []


def result_of(attempt: TaskExecution) -> Any:
    """
    Return what a function had returned whose result this package has reported.

    :raises AirflowSkipException: if it had skipped.
    """
    ours = attempt.output.get(KEY, {})
    if ours.get("skipped"):
        raise AirflowSkipException(f"An earlier try has reported that it was skipped. {ids(task=attempt.id)}")
    others = _OF_OTHERS.difference(ours.get(OWN_KEYS, ()))
    if RETURN_VALUE in others and RETURN_VALUE in attempt.output:
        return attempt.output[RETURN_VALUE]
    return {key: value for key, value in attempt.output.items() if key != KEY and key not in others}
