"""Failure callbacks of our own, added to the user's: for tasks that die without running code of their own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import MappedOperator

from airflow_provider_cdf.cdf.errors import CdfError, CdfNothingToReportToError
from airflow_provider_cdf.cdf.foreign import one_line
from airflow_provider_cdf.cdf.messages import ids, told
from airflow_provider_cdf.fields import render_only
from airflow_provider_cdf.operators.address import ADDRESS, target_of, which
from airflow_provider_cdf.operators.cancelling import TASK_HAS_DIED, cancel
from airflow_provider_cdf.operators.mapped import make_what_is_needed
from airflow_provider_cdf.versions import CALLS_BACK_ONCE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.hooks.cdf import CdfHook

log = logging.getLogger(__name__)

#: What becomes of a CDF task where a callback could not report.
MAY_STILL_WAIT = "The CDF task may still wait for a report."


def with_callback(given: Any, own: Any) -> list[Any]:
    """Return a task's callbacks with one of ours added to the user's, unless it is among them already."""
    callbacks = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    return callbacks if own in callbacks else [*callbacks, own]


def partial_with_callback(partial: Any, own: Any) -> Any:
    """Return what ``partial()`` has made with one of our callbacks added."""
    # Airflow has merged in those of default_args. The DAG processor takes the callbacks of a mapped task from
    # here, without ever making an instance.
    partial.kwargs["on_failure_callback"] = with_callback(partial.kwargs.get("on_failure_callback"), own)
    return partial


def operator_of(context: Context, *fields: str) -> Any:
    """
    Return the operator that a callback is about, of a mapped task that of its map index.

    It is one of its own: Airflow's DAG processor calls the callbacks of all DAG runs with the same operators.

    :param fields: the template fields that the callback needs. Rendered here, because no code of the operator
        may have run; and no others, because an input that cannot be rendered must not be in the way.
    """
    operator: Any = context["task"]
    if isinstance(operator, MappedOperator):
        # The DAG processor has the task as it was mapped. Rendering it puts its instance into the context.
        try:
            operator.render_template_fields(context)
        except Exception:
            # A template may raise anything, of a field not needed here. The instance is there all the same,
            # unless it does not take what it is mapped over.
            operator = context["task"]
            if isinstance(operator, MappedOperator):
                return make_what_is_needed(operator, fields, context)
        else:
            return context["task"]
    operator = operator.prepare_for_execution()  # which is Airflow's for a copy
    render_only(operator, fields, context)
    return operator


def is_retried(context: Context) -> bool:
    """Whether Airflow tries a task again, for which it has called a failure callback all the same."""
    from airflow_provider_cdf.operators.identity import is_last_try

    # In the task's own process, which has the error itself, only a failure for good leads here.
    if CALLS_BACK_ONCE or isinstance(context.get("exception"), BaseException):
        return False
    ti: Any = context["ti"]
    # What never got to a worker was given up in the queue, and that is for good.
    if not getattr(ti, "hostname", None) or is_last_try(ti.try_number, getattr(ti, "max_tries", None) or 0):
        return False
    log.info("The worker of this task was lost. CDF is not told, because Airflow tries again.")
    return True


def not_known(error: Exception | str) -> str:
    """Say that a callback does not know what it is about."""
    return f"Which one is not known, because its arguments cannot be read: {one_line(error)}"


def report_failure(context: Context) -> None:
    """
    Tell CDF that no report will come any more, so that its task does not wait until it times out.

    Airflow calls this for every final failure of an operator that reports, also where no code of the operator
    ran: its process was killed on the last try, or its templates could not be rendered.
    """
    from airflow_provider_cdf.operators.deadline import CALLBACK_PATIENCE, hook_within, seconds_left
    from airflow_provider_cdf.operators.reporting import failure, report

    ti = context["ti"]
    if is_retried(context):
        return
    try:
        operator = operator_of(context, *ADDRESS)
    except Exception as error:
        log.warning("%s", told(MAY_STILL_WAIT, not_known(error)))
        return
    if operator.has_reported:
        return  # and the task that waits now may be CDF's next attempt
    if operator.mistake:
        log.warning("%s", told(MAY_STILL_WAIT, not_known(operator.mistake)))
        return
    output = failure(ti, [], context.get("exception"))
    patience = min(seconds_left(context), CALLBACK_PATIENCE)
    try:
        with hook_within(patience, operator.cdf_conn_id) as hook:
            report(hook, ti, target_of(operator), operator.failure_status, output, patience=patience)
    except CdfNothingToReportToError as error:
        operator.log.info("%s", error)  # it has been reported, or CDF has ended the task itself
    except CdfError as error:
        operator.log.warning("%s", told(MAY_STILL_WAIT, error, which(operator)))


def cancel_orphan(context: Context) -> None:
    """
    Cancel what a run operator that has failed for good has left undecided.

    Airflow calls this for every final failure. Mostly the operator has decided. It has not where its process
    was killed on the last try, and the DAG processor calls this with a fresh operator; or where it failed
    while an execution of an earlier try may run.
    """
    from airflow_provider_cdf.operators.deadline import CALLBACK_PATIENCE, hook_within, seconds_left

    if is_retried(context):
        return
    try:
        operator = operator_of(context, "cdf_conn_id", "workflow_external_id")
    except Exception as error:
        log.warning("%s", told("An execution of this task may still run in CDF.", not_known(error)))
        return
    if not _is_unsettled(operator, context):
        return
    if not operator.cancel_on_kill:
        if operator.is_left_running:
            operator.log.warning(
                "The task has failed; its execution goes on in CDF (cancel_on_kill=False). [execution %s]",
                operator.execution_id,
            )
        return
    # Where its own process has failed before it started anything, nothing more can appear.
    is_dead = operator.execution_id is None and operator.is_settled is None
    patience = seconds_left(context) if is_dead else min(seconds_left(context), CALLBACK_PATIENCE)
    try:
        with hook_within(patience, operator.cdf_conn_id) as hook:
            if operator.execution_id is not None:
                # This one only: another process of the task may go on with another one.
                operator.log.info(cancel(hook, operator.execution_id, TASK_HAS_DIED))
            else:
                _cancel_all(hook, operator, context, patience - CALLBACK_PATIENCE if is_dead else 0.0)
    except CdfError as error:
        operator.log.warning(
            "%s",
            told(
                "An execution of this task may still run in CDF.",
                error,
                f"Its metadata names DAG run {context['ti'].run_id!r}.",
                ids(workflow=repr(operator.workflow_external_id), execution=operator.execution_id),
            ),
        )


def _cancel_all(hook: CdfHook, operator: Any, context: Context, within: float) -> None:
    from airflow_provider_cdf.operators.identity import Try
    from airflow_provider_cdf.operators.starts import Starts

    settings = hook.client.settings
    this = Try.of(context, settings.airflow_name)
    starts = Starts(settings, this, operator.workflow_external_id)
    fates = hook.client.perform(
        starts.cancel_all(
            lambda known: operator.is_settled is None and not any(this.has_submitted(one) for one in known),
            within=within,
        )
    )
    operator.log.info(
        told(*fates)
        or "CDF lists no execution of this task that still runs. Should one appear later, nothing of Airflow "
        f"cancels it: its metadata is airflow_run_key = {this.key}."
    )


def _is_unsettled(operator: Any, context: Context) -> bool:
    """Whether something that nobody decides about may still run in CDF, after a task has failed for good."""
    if operator.is_settled is None:
        # It has not run here: mostly, its own process is dead.
        return not _has_begun_nothing(context)
    if operator.is_settled:
        return bool(operator.is_left_running)  # but not if its task fails after all, as in post_execute
    return not (
        operator.execution_id is None and context["ti"].try_number == 1 and not operator.has_submitted
    )


def _has_begun_nothing(context: Context) -> bool:
    """Whether a task has failed in this very process before it did anything, here or in another process."""
    from airflow_provider_cdf.operators.notes import read_note
    from airflow_provider_cdf.operators.waits import stored

    # Only the task's own process has the error itself; the DAG processor has a text, or none.
    if not isinstance(context.get("exception"), BaseException) or context["ti"].try_number != 1:
        return False
    try:
        # It may have been deferred, and have failed when it was resumed.
        note = read_note(context)
        return not note if note is not None else stored(context, "execution_id") is None
    except Exception:  # whatever keeps Airflow from saying: then CDF is looked at, which is never wrong
        return False
