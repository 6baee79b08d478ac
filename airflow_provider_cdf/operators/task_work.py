"""The operator that does the work of a CDF task with a Python function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    conf,
)

from airflow_provider_cdf.arguments import flag, seconds
from airflow_provider_cdf.cdf.errors import CdfError, CdfInputError
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.fields import TextFields, as_text
from airflow_provider_cdf.hooks.using import UsesHook
from airflow_provider_cdf.operators.address import ADDRESS, refuse_mistakes, target_of, which
from airflow_provider_cdf.operators.callbacks import partial_with_callback, report_failure, with_callback
from airflow_provider_cdf.operators.mapped import with_checks
from airflow_provider_cdf.places import names_place
from airflow_provider_cdf.stack import without_stack
from airflow_provider_cdf.triggers.polling import POLL_INTERVAL
from airflow_provider_cdf.versions import HAS_COROUTINE_TASKS, HAS_TASK_API

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.standard.operators.python import PythonOperator

    from airflow_provider_cdf.operators.reporting import Target
    from airflow_provider_cdf.operators.task_kill import LastReport
    from airflow_provider_cdf.operators.task_wait import TaskWait
else:
    from airflow.providers.common.compat.standard.operators import PythonOperator

#: The parameter by which a function receives the CDF task.
PARAMETER = "cdf_task"
#: What an operator ends with that wants to go on otherwise, by name: not each Airflow has each of them.
_REQUESTS = frozenset(
    {
        "AirflowRescheduleException",
        "DagRunTriggerException",
        "DownstreamTasksSkipped",
        "TaskAwaitingInput",
        "TaskDeferred",
    }
)


class CdfTaskOperator(TextFields, UsesHook, PythonOperator):
    """
    Wait for a CDF task, do its work with a Python function, and report how that went.

    What the function returns is the task's output: a dict as it is, any other JSON value as
    ``{"return_value": ...}``. It is this task's XCom, too, as the JSON that CDF got.

    An exception leaves the CDF task waiting while Airflow has tries left. After the last one, or at once for
    AirflowFailException, CDF is told FAILED_WITH_TERMINAL_ERROR with ``{"airflow": {...}}``: the error, and
    links into Airflow. AirflowSkipException is reported as COMPLETED with ``{"airflow": {"skipped": true}}``.
    When a person marks the running task failed, or successful, CDF is told that; a clear, or the end of the
    worker, leaves the CDF task waiting for the next try. A result that CDF does not take (no JSON, over
    100 000 bytes, a key ``airflow``) is a failure, at once.

    CDF may end its task while the function runs: the execution is cancelled, or the task's timeout is over.
    Then this task fails, with CDF's reason. A long-running function may ask ``cdf_task.is_waiting()`` to stop
    early.

    It waits as long as the CDF task may still begin: CDF ends an execution after 24 hours. Airflow's
    ``[sensors] default_timeout`` does not count. ``execution_timeout`` bounds the wait from the start of the
    try, deferred or not; once the function runs, Airflow counts it anew where the task was deferred.

    :param python_callable: the function. A parameter ``cdf_task`` receives a
        :class:`~airflow_provider_cdf.operators.cdf_task.CdfTask`; ``op_args``, ``op_kwargs`` and the context
        are as with PythonOperator. It cannot defer. A coroutine function needs Airflow 3.2.
    :param execution_id: UUID of the execution. (templated)
    :param task_external_id: external id of the task, of which the current attempt is taken. (templated)
    :param parent_task_external_id: the dynamic task or subworkflow whose child is meant, where several tasks
        share the external id. (templated)
    :param cdf_task_id: UUID of an attempt that waits already, instead of ``task_external_id``. Without the
        ``execution_id``, neither its input nor its state can be read. (templated)
    :param failure_status: what a failure is reported as: FAILED_WITH_TERMINAL_ERROR, or FAILED, after which
        CDF starts the task again as often as its ``retries`` say.
    :param poll_interval: seconds between looks while it waits, and between those of ``is_waiting()``.
    :param deferrable: wait in the triggerer instead of in a worker slot.
    :param cdf_conn_id: id of the Airflow connection. (templated)
    :raises ValueError: if it names no CDF task or two, an id that the DAG file gives is no UUID, or it has
        another ``failure_status``.
    """

    template_fields: Sequence[str] = (*ADDRESS, *PythonOperator.template_fields)
    text_fields: Sequence[str] = ADDRESS
    mistake = ""  # one in the address is refused when it is made

    @names_place
    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        execution_id: str | None = None,
        task_external_id: str | None = None,
        parent_task_external_id: str | None = None,
        cdf_task_id: str | None = None,
        failure_status: str = "FAILED_WITH_TERMINAL_ERROR",
        poll_interval: float | timedelta = POLL_INTERVAL,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        cdf_conn_id: str = "cdf_default",
        **kwargs: Any,
    ) -> None:
        address = {
            "execution_id": execution_id,
            "task_external_id": task_external_id,
            "parent_task_external_id": parent_task_external_id,
            "cdf_task_id": cdf_task_id,
        }
        refuse_mistakes(address, operator=self)
        if inspect.iscoroutinefunction(python_callable) and not HAS_COROUTINE_TASKS:
            raise ValueError("A coroutine function needs Airflow 3.2 or later: make it a plain function.")
        super().__init__(python_callable=python_callable, **kwargs)
        # Only now does it hold the user's, which may come from default_args.
        self.on_failure_callback = with_callback(self.on_failure_callback, report_failure)
        self.execution_id = as_text(execution_id)
        self.task_external_id = as_text(task_external_id)
        self.parent_task_external_id = as_text(parent_task_external_id)
        self.cdf_task_id = as_text(cdf_task_id)
        self.failure_status = _failure_status(failure_status)
        self.poll_interval = seconds(poll_interval, "poll_interval")
        self.deferrable = flag(deferrable, "deferrable")
        self.cdf_conn_id = cdf_conn_id
        self.has_reported = False
        #: The task instance whose function runs.
        self._at_work: Any = None
        self._killed = False
        self._last_report: LastReport | None = None

    @classmethod
    @names_place
    def partial(cls, **kwargs: Any) -> Any:
        """Prepare a mapped task, with the failure callback that each of its instances has."""
        refuse_mistakes(kwargs, is_whole=False)
        return partial_with_callback(with_checks(super().partial(**kwargs), refuse_mistakes), report_failure)

    @property
    def target(self) -> Target:
        """The CDF task that this works on."""
        return target_of(self)

    def execute(self, context: Context) -> Any:
        """Wait for the CDF task, here or deferred, and do its work."""
        wait = self._wait()
        if wait is not None:
            without_stack(wait.begin)(context)
        return self._work(context, wait)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral, and do the work."""
        wait = self._wait()
        if wait is not None:  # otherwise, nothing has deferred
            without_stack(wait.resume)(next_method, next_kwargs, context)
        return self._work(context, wait)

    def on_kill(self) -> None:
        """Tell CDF what a person has made of the task. Airflow runs this inside the interrupted function."""
        self._killed = True
        if self._at_work is None or not self.hook.is_connected:
            return  # there is nothing to report on, or Airflow is just being asked for the connection
        if self._last_report is None:
            from airflow_provider_cdf.operators.task_kill import LastReport

            self._last_report = LastReport(self.hook, self._at_work, self.target, self.failure_status)
        self._last_report.wait()

    def _wait(self) -> TaskWait | None:
        """Return what waits for the task; ``None`` if CDF cannot be asked for its state."""
        from airflow_provider_cdf.cdf.checks import is_missing
        from airflow_provider_cdf.operators.task_wait import TaskWait

        if self.task_external_id is None and is_missing(self.execution_id):
            return None
        return TaskWait(
            task_id=self.task_id,
            target=self.target,
            hook=self.hook,
            poke_interval=self.poll_interval,
            deferrable=self.deferrable,
            execution_timeout=self.execution_timeout,
            cdf_conn_id=self.cdf_conn_id,
        )

    def _work(self, context: Context, wait: TaskWait | None) -> Any:
        """Call the function, and report."""
        from airflow_provider_cdf.operators.cdf_task import OWN_KEYS, CdfTask, own_keys, result_of
        from airflow_provider_cdf.operators.reporting import with_note

        if wait is not None and wait.completed is not None:
            self.has_reported = True
            self.log.info("An earlier try has done and reported this. [task %s]", wait.completed.id)
            return result_of(wait.completed)
        self._stop_if_killed()
        ti = context["ti"]
        _ = self.hook.client  # now, because on_kill must not ask Airflow for the connection
        given = CdfTask(self.hook, self.target, wait.attempt if wait else None, self.poll_interval)
        self.op_kwargs = {**self.op_kwargs, PARAMETER: given}
        self._at_work = ti
        try:
            result = self._call(context)
        except AirflowSkipException:
            self._at_work = None
            self._stop_if_killed()
            self._report(ti, "COMPLETED", with_note(None, ti, skipped=True))
            raise
        except BaseException as error:
            self._at_work = None
            self._failed(ti, error)
            raise
        self._at_work = None
        self._stop_if_killed()
        try:
            value, output = as_output(result)
        except CdfInputError as error:
            raise AirflowFailException(told(error.problem, self._failed(ti, error))) from None
        if self.multiple_outputs and self.do_xcom_push and not isinstance(value, dict | None):
            # Airflow's own check comes behind the report, which would say that all is well.
            wrong = _no_outputs(value)
            self._failed(ti, wrong)
            raise wrong
        keys = own_keys(value)
        self._report(ti, "COMPLETED", with_note(output, ti, **{OWN_KEYS: keys}) if keys else output)
        return value

    def _call(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except BaseException as error:
            if (name := type(error).__name__) not in _REQUESTS:
                raise
        raise AirflowFailException(
            f"The function did not finish: it raised {name}, with which an operator asks Airflow to go on in "
            "another way. In the middle of a function, it cannot. Make that operator a task of its own."
        )

    def _failed(self, ti: Any, error: BaseException) -> str:
        """Report a failure unless another try follows; say in a sentence what CDF was told, if anything."""
        from airflow_provider_cdf.operators.identity import is_last_try
        from airflow_provider_cdf.operators.reporting import failure

        if self._killed:
            return ""  # by a person, or with the worker: on_kill has seen to it
        is_final = isinstance(error, AirflowFailException | AirflowSensorTimeout)
        if not is_final and not is_last_try(ti.try_number, ti.max_tries):
            self.log.warning("CDF's task goes on waiting, for the next try. %s", which(self))
            return ""
        try:
            self._report(ti, self.failure_status, failure(ti, [], error))
        except CdfError as unreported:
            # The failure itself is what Airflow is to show. Its callback tries once more.
            self.log.warning("%s", told("The failure could not be reported to CDF.", unreported))
            return ""
        return f"CDF's task was set to {self.failure_status}. {which(self)}"

    @without_stack
    def _report(self, ti: Any, status: str, output: Any) -> None:
        from airflow_provider_cdf.operators.reporting import report

        report(self.hook, ti, self.target, status, output, mark=True)
        self.has_reported = True

    def _stop_if_killed(self) -> None:
        if self._killed:
            raise CdfError("The task was told to stop, so its result was not reported to CDF.")


def as_output(result: Any) -> tuple[Any, dict[str, Any]]:
    """
    Return what a function has returned as JSON, and the output that CDF gets.

    :raises CdfInputError: if CDF does not take it.
    """
    from pydantic import BaseModel

    from airflow_provider_cdf.cdf.values import json_object
    from airflow_provider_cdf.operators.cdf_task import RETURN_VALUE
    from airflow_provider_cdf.operators.reporting import checked_output

    try:
        value = json_object({RETURN_VALUE: result}, "output")[RETURN_VALUE]
    except CdfInputError:
        # An object is the output itself, and what is wrong with it stands there.
        if isinstance(result, Mapping | BaseModel) or (is_dataclass(result) and not isinstance(result, type)):
            json_object(result, "output")
        raise
    return value, checked_output(value if isinstance(value, dict) else {RETURN_VALUE: value})


def _no_outputs(value: Any) -> Exception:
    """Return the error that Airflow fails a task with whose XCom it cannot take apart."""
    kind = TypeError if HAS_TASK_API else AirflowException
    return kind(f"Returned output was type {type(value)} expected dictionary for multiple_outputs")


def _failure_status(status: str) -> str:
    from airflow_provider_cdf.cdf.checks import check_reportable

    try:
        checked = check_reportable(status)
    except CdfInputError as error:
        raise ValueError(error.problem) from None
    if checked == "COMPLETED":
        raise ValueError("failure_status must be FAILED or FAILED_WITH_TERMINAL_ERROR, not COMPLETED.")
    return str(checked)
