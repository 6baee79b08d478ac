"""Operator that reports the end of a CDF task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, TriggerRule

from airflow_provider_cdf.cdf.errors import CdfApiError, CdfError, CdfNothingToReportToError
from airflow_provider_cdf.operators.callbacks import operator_of, partial_with_callback, with_callback

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from airflow_provider_cdf.cdf.models import TaskExecution
    from airflow_provider_cdf.hooks.cdf import CdfHook

#: States of upstream tasks that count as work done.
_GOOD_STATES = frozenset({"success", "skipped"})
#: Key below ``airflow`` in an output by which an Airflow task recognizes what it has reported itself.
REPORTED_BY = "reported_by"
#: How many failed tasks a report names: the instances of a mapped task may be thousands.
MAX_NAMED = 20


class CdfTaskUpdateOperator(BaseOperator):
    """
    Report the end of an asynchronous CDF task, and return the id of the attempt that was reported on.

    The task is found by ``execution_id`` and ``task_external_id``, which hold for whichever attempt CDF is
    at, or addressed by ``cdf_task_id``, which goes stale when CDF retries the task.

    Without a ``status`` the report follows from the work before it, and the operator runs however that
    ended: COMPLETED with ``output`` if all direct upstream tasks succeeded or were skipped, otherwise
    FAILED_WITH_TERMINAL_ERROR with ``{"airflow": {...}}`` naming the failed ones, after which this task
    fails too, so that the DAG run is red. CDF does not retry that, as Airflow has done its own retries.

    :param status: COMPLETED, FAILED (CDF retries the task as its definition says) or
        FAILED_WITH_TERMINAL_ERROR, in any case; ``None`` derives it and makes ``trigger_rule`` ``all_done``.
        (templated)
    :param output: JSON object of at most 100 000 bytes, merged into the task's output at the top level, so
        that later CDF tasks read it as ``${task.output.key}``. (templated)
    :param execution_id: UUID of the execution. (templated)
    :param task_external_id: external id of the task. (templated)
    :param cdf_task_id: UUID of the attempt, instead of ``task_external_id``; with an ``execution_id`` an
        unclear answer can be cleared up. (templated)
    :param cdf_conn_id: id of the Airflow connection. (templated)
    """

    template_fields: Sequence[str] = (
        "status",
        "task_output",
        "execution_id",
        "task_external_id",
        "cdf_task_id",
        "cdf_conn_id",
    )

    def __init__(
        self,
        *,
        status: str | None = None,
        output: Mapping[str, Any] | None = None,
        execution_id: str | None = None,
        task_external_id: str | None = None,
        cdf_task_id: str | None = None,
        cdf_conn_id: str = "cdf_default",
        task_output: Mapping[str, Any] | None = None,  # what partial() makes of output
        **kwargs: Any,
    ) -> None:
        if (task_external_id is None) == (cdf_task_id is None):
            raise ValueError("Give either task_external_id (with execution_id) or cdf_task_id.")
        if task_external_id is not None and execution_id is None:
            raise ValueError("task_external_id needs the execution_id that the task belongs to.")
        if status is None:
            kwargs["trigger_rule"] = _rule_without_status(kwargs)
        super().__init__(**kwargs)
        # Only now does it hold the user's, which may come from default_args.
        self.on_failure_callback = with_callback(self.on_failure_callback, report_failure)
        self.status = status
        # Not `self.output`: that is what Airflow calls an operator's own XCom.
        self.task_output = output if task_output is None else task_output
        #: Why there is nothing to report but a failure, although all tasks before have succeeded.
        self._no_output: Exception | None = None
        self.has_reported = False
        self.execution_id = execution_id
        self.task_external_id = task_external_id
        self.cdf_task_id = cdf_task_id
        self.cdf_conn_id = cdf_conn_id

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """
        Prepare a mapped task; its trigger rule too follows from having no ``status``.

        So a ``status`` cannot be expanded over: without one here, Airflow refuses it there.
        """
        if kwargs.setdefault("status", None) is None:
            kwargs["trigger_rule"] = _rule_without_status(kwargs)
        if "output" in kwargs:
            # Airflow looks for what a mapped task depends on under the names of template fields only.
            kwargs["task_output"] = kwargs.pop("output")
        return partial_with_callback(super().partial(**kwargs), report_failure)

    @cached_property
    def hook(self) -> CdfHook:
        """The hook of this operator's connection."""
        from airflow_provider_cdf.hooks.cdf import CdfHook

        return CdfHook(self.cdf_conn_id)

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render. An output that cannot be, as where a failed task left no XCom, is reported as a failure."""
        try:
            return super().render_template(content, *args, **kwargs)
        except Exception as error:
            if self.status is not None or content is not self.task_output:
                raise
            self._no_output = error
            return None

    def execute(self, context: Context) -> str:
        """Find the task, report, and fail if what was reported is a failure of this DAG run."""
        from airflow_provider_cdf.cdf.calls import check_output, check_reportable

        failed: dict[str, str] = {}
        status, output = self.status, self.task_output
        if status is None:
            failed = self._failed_upstream(context)
            if not failed:
                failed = self._unusable_output(context)
            status = "FAILED_WITH_TERMINAL_ERROR" if failed else "COMPLETED"
            if failed:
                output = {"airflow": _describe(failed, context)}
        status = check_reportable(status)
        if output is not None:
            check_output(output, f"output for CDF task {self.task_external_id or self.cdf_task_id}")

        task_id = self.report(context["ti"], status, output, failed)
        if failed:
            raise AirflowFailException(
                f"Reported {status} to CDF task {self.task_external_id or task_id}, because of "
                f"{_in_words(failed)}. This Airflow task fails too, to mark the DAG run as failed."
            )
        return task_id

    def report(
        self,
        ti: RuntimeTaskInstanceProtocol,
        status: str,
        output: Mapping[str, Any] | None,
        failed: Mapping[str, str] | None = None,
    ) -> str:
        """
        Set the CDF task to a status, unless that has been done already, and return the id of the attempt.

        :param ti: who reports; what an earlier try of it has reported is not reported again.
        :param failed: the Airflow tasks that the report is because of, for messages.
        :raises CdfNothingToReportToError: if no task waits for the report.
        """
        from airflow_provider_cdf.cdf.calls import is_missing
        from airflow_provider_cdf.operators.identity import run_key

        failed = failed or {}
        if self.task_external_id is None:
            if is_missing(self.cdf_task_id):
                raise CdfNothingToReportToError(
                    f"Nothing to report {status} to: there is no cdf_task_id; the task that should have "
                    f"provided it left no value.{_because(failed)} Nothing was changed in CDF."
                )
            task_id = str(self.cdf_task_id)
        else:
            task, is_done = self._task_to_report_to(run_key(ti), status, failed)
            if is_done:
                self.log.info("Task %r (%s) is already %s.", task.external_id, task.id, task.status)
                self.has_reported = True
                return task.id
            task_id = task.id
        if status == "FAILED":
            # CDF follows this attempt with another one, which a retry of this task must not mistake for it.
            output = {**(output or {}), "airflow": {**_ours(output), REPORTED_BY: run_key(ti)}}
        try:
            updated = self.hook.update_task(
                task_id,
                status,
                output,
                execution_id=None if is_missing(self.execution_id) else self.execution_id,
            )
        except CdfApiError as error:
            if not error.is_about_the_id:
                raise
            raise CdfNothingToReportToError(
                f"Nothing to report {status} to.{_because(failed)} {error}"
            ) from None
        self.has_reported = True
        self.log.info("Set task %r (%s) to %s.", updated.external_id, updated.id, updated.status)
        return updated.id

    def _task_to_report_to(
        self, reporter: str, status: str, failed: Mapping[str, str]
    ) -> tuple[TaskExecution, bool]:
        """
        Return the attempt that waits for this report, or has already had it, and whether it has.

        :raises CdfNothingToReportToError: if there is none.
        """
        from airflow_provider_cdf.cdf.calls import is_missing
        from airflow_provider_cdf.waiting import current_attempt

        because = f"{_because(failed)} Nothing was changed in CDF."
        if is_missing(self.execution_id):
            raise CdfNothingToReportToError(
                f"Nothing to report {status} to: there is no execution id, so the CDF workflow of task "
                f"{self.task_external_id!r} was never started.{because}"
            )
        try:
            execution = self.hook.get_execution(str(self.execution_id))
        except CdfError as error:
            if not (isinstance(error, CdfApiError) and error.is_about_the_id):
                raise error.adding("Nothing was reported, and the CDF task is as it was.") from None
            raise CdfNothingToReportToError(
                f"Nothing to report {status} to: CDF knows no execution {self.execution_id} "
                f"(HTTP {error.code}): {error.cdf_message.rstrip('.')}.{because}"
            ) from None
        for attempt in execution.executed_tasks:
            if (
                attempt.external_id == self.task_external_id
                and attempt.has_ended
                and _ours(attempt.output).get(REPORTED_BY) == reporter
            ):
                return attempt, True
        task = current_attempt(execution, str(self.task_external_id))
        if task is not None and task.status == status:
            return task, True
        if task is None:
            state = "has not started"
        elif task.status.may_be_retried and not execution.has_ended:
            # No failure for good: a retry of this Airflow task may find CDF's next attempt.
            raise CdfError(
                f"Could not report {status}: the last attempt at task {self.task_external_id!r} of execution "
                f"{execution.id} has ended {task.status}, CDF has not started another one, and the workflow "
                f"is {execution.status}.{because}"
            )
        elif task.has_ended:
            reason = f" ({task.reason_for_incompletion})" if task.reason_for_incompletion else ""
            state = f"has already ended {task.status}{reason}"
        elif execution.has_ended:
            state = f"was left {task.status}"
        else:
            return task, False
        raise CdfNothingToReportToError(
            f"Nothing to report {status} to: task {self.task_external_id!r} of execution {execution.id} "
            f"{state}, and the workflow is {execution.status}.{because}"
        )

    def _unusable_output(self, context: Context) -> dict[str, str]:
        from airflow_provider_cdf.cdf.calls import check_output

        problem = self._no_output
        if problem is None and self.task_output is not None:
            try:
                check_output(self.task_output, "output")
            except CdfError as error:
                problem = error
        if problem is None:
            return {}
        reason = str(problem).removesuffix(" Nothing was sent to CDF.")
        return {context["ti"].task_id: f"has no usable output: {reason}"[:500]}

    def _failed_upstream(self, context: Context) -> dict[str, str]:
        """Return the state of each direct upstream task that did not end well, by task id."""
        from airflow_provider_cdf.operators.upstream import upstream_states

        return {
            task_id: state or "no state"
            for task_id, state in upstream_states(self, context["ti"]).items()
            if state not in _GOOD_STATES
        }


def _rule_without_status(arguments: Mapping[str, Any]) -> Any:
    rule = arguments.get("trigger_rule", TriggerRule.ALL_DONE)
    if rule != TriggerRule.ALL_DONE:
        raise ValueError(
            "status=None reports failures too and needs trigger_rule='all_done': under another rule, "
            "CDF would be left waiting."
        )
    return rule


def report_failure(context: Context) -> None:
    """
    Tell CDF that nobody will report any more, so that its task does not wait until it times out.

    Airflow calls this for every final failure of an update operator, also where no code of the operator ran:
    its process was killed on the last try, or its templates could not be rendered.
    """
    ti = context["ti"]
    reason = {"dag_id": ti.dag_id, "run_id": ti.run_id, "failed_tasks": {ti.task_id: "failed"}}
    operator = operator_of(context, "execution_id", "task_external_id", "cdf_task_id", "cdf_conn_id")
    if operator.has_reported:
        return  # and the task that waits now may be CDF's next attempt
    try:
        operator.report(ti, "FAILED_WITH_TERMINAL_ERROR", {"airflow": {**reason, "failed_task_count": 1}})
    except CdfNothingToReportToError as error:
        operator.log.info("%s", error)  # it has been reported, or CDF has ended the task itself
    except CdfError as error:
        operator.log.warning("The CDF task may still wait for a report: %s", error)


def _ours(output: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what this package has put into an output."""
    ours = (output or {}).get("airflow")
    return dict(ours) if isinstance(ours, Mapping) else {}


def _describe(failed: Mapping[str, str], context: Context) -> dict[str, Any]:
    ti = context["ti"]
    named = dict(sorted(failed.items())[:MAX_NAMED])
    return {"dag_id": ti.dag_id, "run_id": ti.run_id, "failed_tasks": named, "failed_task_count": len(failed)}


def _in_words(failed: Mapping[str, str]) -> str:
    named = [f"Airflow task {task_id!r} ({state})" for task_id, state in sorted(failed.items())[:MAX_NAMED]]
    return ", ".join(named) + (f" and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else "")


def _because(failed: Mapping[str, str]) -> str:
    return f" Failed before: {_in_words(failed)}." if failed else ""
