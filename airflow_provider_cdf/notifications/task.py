"""Notifier that reports the end of a CDF task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseNotifier
from asgiref.sync import sync_to_async

from airflow_provider_cdf.cdf.errors import CdfError, CdfInputError, CdfNothingToReportToError
from airflow_provider_cdf.fields import as_text, is_literal, refuse_wrong_ids
from airflow_provider_cdf.operators.address import ADDRESS, check_address, target_of
from airflow_provider_cdf.operators.callbacks import CALLBACK_PATIENCE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class CdfTaskNotifier(BaseNotifier):
    """
    Report a status to a CDF task from a callback of a DAG or a task.

    ::

        of_score = {"execution_id": "{{ ti.xcom_pull(task_ids='run') }}", "task_external_id": "score"}
        DAG(
            ...,
            on_success_callback=CdfTaskNotifier(status="COMPLETED", **of_score),
            on_failure_callback=CdfTaskNotifier(status="FAILED_WITH_TERMINAL_ERROR", **of_score),
        )

    The least that a DAG needs to report, and with the least promise: Airflow does not repeat a callback that
    fails, gives it some seconds only, and calls none for what a person marks. The CDF task must wait by then.
    A failure is reported with ``{"airflow": {...}}``, which names the DAG run, and the error where Airflow
    tells it. A CDF task that has been reported on already is left alone.

    :param status: COMPLETED, FAILED (CDF retries the task as its definition says) or
        FAILED_WITH_TERMINAL_ERROR, in any case. (templated)
    :param output: JSON object of at most 100 000 bytes, merged into the task's output. (templated)
    :param execution_id: UUID of the execution. (templated)
    :param task_external_id: external id of the task. (templated)
    :param parent_task_external_id: the dynamic task or subworkflow whose child is meant. (templated)
    :param cdf_task_id: UUID of the attempt, instead of ``task_external_id``. (templated)
    :param cdf_conn_id: id of the Airflow connection. (templated)
    :raises ValueError: if it names no CDF task or two, an id that the DAG file gives is no UUID, or CDF has
        no such status.
    """

    template_fields: Sequence[str] = (*ADDRESS, "status", "output")

    def __init__(
        self,
        *,
        status: str,
        output: Mapping[str, Any] | None = None,
        execution_id: str | None = None,
        task_external_id: str | None = None,
        parent_task_external_id: str | None = None,
        cdf_task_id: str | None = None,
        cdf_conn_id: str = "cdf_default",
        **kwargs: Any,
    ) -> None:
        from airflow_provider_cdf.cdf.checks import check_reportable

        check_address(execution_id, task_external_id, cdf_task_id)
        refuse_wrong_ids(self, execution_id=execution_id, cdf_task_id=cdf_task_id)
        if is_literal(status):
            try:
                check_reportable(status)
            except CdfInputError as error:
                raise ValueError(error.problem) from None
        super().__init__(**kwargs)
        self.status = status
        self.output = output
        self.execution_id = execution_id
        self.task_external_id = task_external_id
        self.parent_task_external_id = parent_task_external_id
        self.cdf_task_id = cdf_task_id
        self.cdf_conn_id = cdf_conn_id

    def notify(self, context: Context) -> None:
        """
        Report.

        :raises CdfError: if it could not be reported. That there is nothing to report to is logged only.
        """
        from airflow_provider_cdf.cdf.checks import check_reportable
        from airflow_provider_cdf.hooks.cdf import CdfHook
        from airflow_provider_cdf.operators.reporting import KEY, checked_output, failure, report

        for name in ADDRESS:
            setattr(self, name, as_text(getattr(self, name)))
        status = check_reportable(self.status)
        ti = context.get("ti") or _DagRun.of(context)
        output = None if self.output is None else checked_output(self.output)
        if status != "COMPLETED":
            output = {**(output or {}), KEY: failure(ti, [], _error_in(context))[KEY]}
        hook = CdfHook(self.cdf_conn_id, retry_for=CALLBACK_PATIENCE)
        try:
            report(hook, ti, target_of(self), status, output, patience=CALLBACK_PATIENCE)
        except CdfNothingToReportToError as error:
            self.log.warning("%s", error)
        except CdfError as error:
            raise error.adding("The CDF task may still wait for a report.") from None
        finally:
            hook.close()

    async def async_notify(self, context: Context) -> None:
        """Report, from a coroutine."""
        # By way of asgiref, as everywhere in a triggerer: Airflow 3.1 mixes up answers in other threads.
        await sync_to_async(self.notify)(context)


@dataclass(frozen=True)
class _DagRun:
    """Who reports where Airflow names no task in a DAG's callback."""

    dag_id: str
    run_id: str
    task_id: str = ""
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0

    @classmethod
    def of(cls, context: Context) -> _DagRun:
        dag: Any = context.get("dag")
        run: Any = context.get("dag_run")
        return cls(
            dag_id=str(getattr(dag or run, "dag_id", "")),
            run_id=str(context.get("run_id") or getattr(run, "run_id", "")),
        )


def _error_in(context: Context) -> object:
    """Return what went wrong, as far as Airflow tells a callback."""
    if (error := context.get("exception")) is not None:
        return error
    reason = context.get("reason")
    return None if reason is None else f"The DAG run has failed: {reason}."
