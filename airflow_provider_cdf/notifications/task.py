"""Notifier that reports the end of a CDF task."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseNotifier
from asgiref.sync import sync_to_async

from airflow_provider_cdf.cdf.errors import CdfError, CdfInputError, CdfNothingToReportToError
from airflow_provider_cdf.cdf.foreign import one_line
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.fields import TextFields, as_text, is_literal, refuse_operators, render_only
from airflow_provider_cdf.operators.address import ADDRESS, refuse_mistakes, target_of, which
from airflow_provider_cdf.operators.callbacks import MAY_STILL_WAIT, is_retried, not_known
from airflow_provider_cdf.operators.ending import GOOD
from airflow_provider_cdf.places import names_place

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from jinja2 import Environment

    from airflow_provider_cdf.operators.upstream import Upstream


class CdfTaskNotifier(TextFields, BaseNotifier):
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
    Under ``dag.test()`` of Airflow 3.3, a DAG's callback cannot pull an XCom, as the one here does.
    A failure is reported with ``{"airflow": {...}}``, which names the DAG run, the tasks that are known to
    have failed, and the error where Airflow tells it: of a task, class and text of its exception; of a DAG,
    the reason that Airflow gives, such as ``timed_out``. Which tasks of a DAG have failed, Airflow tells on
    2.11, and from 3.1.8 on. A CDF task that has been reported on already is left alone. An output that CDF
    does not take is reported as FAILED_WITH_TERMINAL_ERROR.

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

    @names_place
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

        refuse_mistakes(
            {
                "execution_id": execution_id,
                "task_external_id": task_external_id,
                "parent_task_external_id": parent_task_external_id,
                "cdf_task_id": cdf_task_id,
            }
        )
        refuse_operators(status=status, output=output)
        if is_literal(status):
            try:
                check_reportable(status)
            except CdfInputError as error:
                raise ValueError(error.problem) from None
        super().__init__(**kwargs)
        self.status = status
        self.output = output
        self.execution_id = as_text(execution_id)
        self.task_external_id = task_external_id
        self.parent_task_external_id = parent_task_external_id
        self.cdf_task_id = as_text(cdf_task_id)
        self.cdf_conn_id = cdf_conn_id

    def render_template_fields(self, context: Context, jinja_env: Environment | None = None) -> None:
        """Leave the fields to :meth:`notify`: what is written here stays for all DAG runs of the process."""

    def notify(self, context: Context) -> None:
        """
        Report. What cannot be reported as it is, because of the output, is reported as a failure.

        :raises CdfError: if it could not be reported, or only as a failure. That there is nothing to report
            to is logged only.
        """
        dag: Any = context.get("dag")
        if dag is not None and not hasattr(dag, "get_template_env"):
            context = copy.copy(context)
            context["dag"] = _StoredDag(dag)  # type: ignore[typeddict-item]  # as good as one, for a template
        of_this_run = copy.copy(self)
        try:
            render_only(of_this_run, (*ADDRESS, "status"), context)
        except Exception as error:  # a template may raise anything
            raise CdfError(told(MAY_STILL_WAIT, not_known(error))) from None
        try:
            of_this_run._report(context)
        except CdfNothingToReportToError as error:
            self.log.warning("%s", error)

    def _report(self, context: Context) -> None:
        from airflow_provider_cdf.cdf.checks import check_reportable
        from airflow_provider_cdf.operators.deadline import CALLBACK_PATIENCE, hook_within, seconds_left
        from airflow_provider_cdf.operators.reporting import KEY, failure, if_it_fits, report

        ti = _reporter(context)
        patience = min(seconds_left(context), CALLBACK_PATIENCE)
        try:
            status = check_reportable(self.status)
            is_of_a_task = "ti" in context and "reason" not in context
            if is_of_a_task and status != "COMPLETED" and is_retried(context):
                return
            output, problem = self._output_in(context)
            if status != "COMPLETED" or problem:
                own = failure(
                    ti,
                    self._failed_in(context) if isinstance(ti, _DagRun) else [],
                    problem if status == "COMPLETED" else _error_in(context),
                    # Of one that was killed, no state is known here on Airflow 3.
                    has_failed=status != "COMPLETED" and str(getattr(ti, "state", None)) not in GOOD,
                )
                output = if_it_fits({**(output or {}), KEY: own[KEY]}, own)
                status = check_reportable("FAILED_WITH_TERMINAL_ERROR") if status == "COMPLETED" else status
            with hook_within(patience, self.cdf_conn_id) as hook:
                report(hook, ti, target_of(self), status, output, patience=patience)
        except CdfNothingToReportToError:
            raise
        except CdfError as error:
            raise error.adding(told(MAY_STILL_WAIT, which(self))) from None
        if problem:
            raise CdfError(told(problem, f"CDF's task was set to {status}.", which(self)))

    def _output_in(self, context: Context) -> tuple[Mapping[str, Any] | None, str]:
        """Return the output as CDF takes it, and why it does not take it if so."""
        from airflow_provider_cdf.operators.reporting import checked_output

        try:
            output = self.render_template(self.output, context, self.get_template_env(context.get("dag")))
            return (None if output is None else checked_output(output)), ""
        except CdfInputError as error:
            return None, error.problem
        except Exception as error:  # a template may raise anything
            return None, f"The output cannot be rendered: {one_line(error)}"

    def _failed_in(self, context: Context) -> Sequence[Upstream]:
        """Return the tasks that are known to have failed, for the callback of a DAG."""
        from airflow_provider_cdf.operators.upstream import failed_in_run

        ti, dag = context.get("ti"), context.get("dag")
        if ti is None or dag is None:
            return []
        try:
            return failed_in_run(ti, dag.task_ids)
        except Exception as error:  # whatever keeps Airflow from saying must not keep the report back
            self.log.info("Which tasks have failed is not told: Airflow did not say. %s", one_line(error))
            return []

    async def async_notify(self, context: Context) -> None:
        """Report, from a coroutine."""
        # By way of asgiref, as everywhere in a triggerer: Airflow 3.1 mixes up answers in other threads.
        await sync_to_async(self.notify)(context)


class _StoredDag:
    """
    A DAG as it is stored, which is what ``dag.test()`` of Airflow 3.3 hands to a DAG's callbacks.

    It cannot render, so here is what a DAG renders with that gives no macros and filters of its own.
    """

    def __init__(self, dag: Any) -> None:
        self._dag = dag

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # copies ask for these before there is a DAG
        return getattr(self._dag, name)

    def get_template_env(self, *, force_sandboxed: bool = False) -> Environment:
        """Make an environment for templates."""
        from airflow.sdk.definitions._internal.templater import NativeEnvironment, SandboxedEnvironment
        from jinja2 import StrictUndefined

        is_native = self.render_template_as_native_obj and not force_sandboxed
        kind: Any = NativeEnvironment if is_native else SandboxedEnvironment
        return kind(undefined=StrictUndefined)  # type: ignore[no-any-return]  # one of two classes


@dataclass(frozen=True)
class _DagRun:
    """
    Who reports where a DAG's callback does.

    The task that Airflow hands over there is any one of the DAG run, and may have succeeded.
    """

    dag_id: str
    run_id: str
    task_id: str = ""
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    #: By which the address of Airflow is known, if it is.
    log_url: str | None = None

    @classmethod
    def of(cls, context: Context) -> _DagRun:
        dag: Any = context.get("dag")
        run: Any = context.get("dag_run")
        return cls(
            dag_id=str(getattr(dag or run, "dag_id", "")),
            run_id=str(context.get("run_id") or getattr(run, "run_id", "")),
            log_url=getattr(context.get("ti"), "log_url", None),
        )


def _reporter(context: Context) -> Any:
    # Only the callback of a DAG is given a reason, also where it is None.
    ti = context.get("ti")
    return _DagRun.of(context) if ti is None or "reason" in context else ti


def _error_in(context: Context) -> object:
    """Return what went wrong, as far as Airflow tells a callback."""
    if (error := context.get("exception")) is not None:
        return error
    reason = context.get("reason")
    if reason == "timed_out":  # Airflow's word for this and nothing else
        return "The DAG run has failed: timed_out, as its dagrun_timeout is over."
    return None if reason is None else f"The DAG run has failed: {reason}."
