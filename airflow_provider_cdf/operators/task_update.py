"""Operator that reports the end of a CDF task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    TriggerRule,
)

from airflow_provider_cdf.cdf.errors import CdfError, CdfInputError
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.fields import (
    TextFields,
    as_text,
    is_from_mapped,
    is_literal,
    refuse_operators,
)
from airflow_provider_cdf.hooks.using import UsesHook
from airflow_provider_cdf.operators.address import (
    ADDRESS,
    mistake_in_address,
    refuse_mistakes,
    target_of,
    which,
)
from airflow_provider_cdf.operators.callbacks import partial_with_callback, report_failure, with_callback
from airflow_provider_cdf.operators.mapped import with_checks
from airflow_provider_cdf.places import names_place
from airflow_provider_cdf.stack import without_stack

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.operators.reporting import Target
    from airflow_provider_cdf.operators.upstream import Upstream


class CdfTaskUpdateOperator(TextFields, UsesHook, BaseOperator):
    """
    Report the end of an asynchronous CDF task.

    The task is found by ``execution_id`` and ``task_external_id``, at whichever attempt CDF is. Or it is
    addressed by ``cdf_task_id``, which goes stale when CDF retries the task.

    Without a ``status`` the report follows from the work before it, and the operator runs however that
    ended. If all direct upstream tasks succeeded or were skipped, but not all were skipped, COMPLETED is
    reported, with ``output``. Otherwise it is FAILED_WITH_TERMINAL_ERROR, with ``{"airflow": {...}}`` that
    names the tasks that failed. Then this task fails too, so that the DAG run is red. CDF does not retry a
    task that ended so: Airflow has done its own retries.

    A report that is mapped over the results of its work is not made where there is no result, and CDF waits
    on. The fan-out section of the patterns says what to write instead.

    As a teardown (``report.as_teardown(setups=run, on_failure_fail_dagrun=True)``) it also runs where Airflow
    skips everything else. There a skipped task before it means that its work was not done.

    :param status: COMPLETED, FAILED (CDF retries the task as its definition says) or
        FAILED_WITH_TERMINAL_ERROR, in any case; ``None`` derives it and makes ``trigger_rule`` ``all_done``.
        Mapped over several, it is the status of work that was done; a failure of the work is reported as
        without a ``status``. (templated)
    :param output: JSON object of at most 100 000 bytes. It is merged into the task's output at the top level:
        later CDF tasks read it as ``${task.output.key}``. The key ``airflow`` is this package's. (templated)
    :param execution_id: UUID of the execution. (templated)
    :param task_external_id: external id of the task. (templated)
    :param parent_task_external_id: the dynamic task or subworkflow whose child is meant, where several tasks
        share the external id. (templated)
    :param cdf_task_id: UUID of the attempt, instead of ``task_external_id``; with an ``execution_id`` an
        unclear answer can be cleared up. (templated)
    :param skipped_status: the status that is reported where a task right before this one was skipped and none
        failed. By default COMPLETED where another one has succeeded, as behind a branch, and
        FAILED_WITH_TERMINAL_ERROR where none has, because then nothing was done. A task that gives one of
        the ids here does not count, nor does a CdfTaskSensor, or a CdfWorkflowRunOperator with
        ``wait_for_completion=False``. As a teardown always the latter: Airflow also skips what had yet to
        run when a person marks the DAG run failed.
    :param cdf_conn_id: id of the Airflow connection. (templated)
    :xcom return_value: the id of the attempt that was reported on.
    """

    template_fields: Sequence[str] = (*ADDRESS, "status", "task_output")
    text_fields: Sequence[str] = (*ADDRESS, "status")
    pushed_ids = MappingProxyType({"return_value": "cdf_task_id"})

    @names_place
    def __init__(
        self,
        *,
        status: str | None = None,
        output: Mapping[str, Any] | None = None,
        execution_id: str | None = None,
        task_external_id: str | None = None,
        parent_task_external_id: str | None = None,
        cdf_task_id: str | None = None,
        skipped_status: str | None = None,
        cdf_conn_id: str = "cdf_default",
        task_output: Mapping[str, Any] | None = None,  # what partial() makes of output
        **kwargs: Any,
    ) -> None:
        output = output if task_output is None else task_output
        address = {
            "execution_id": execution_id,
            "task_external_id": task_external_id,
            "parent_task_external_id": parent_task_external_id,
            "cdf_task_id": cdf_task_id,
        }
        #: Why it is not known which task is meant.
        self.mistake = mistake_in_address(execution_id, task_external_id, cdf_task_id)
        if not is_from_mapped(self):  # whose values execute() checks
            refuse_mistakes(address)
            _refuse_mistakes(status, output, skipped_status)
            if status is None:
                _refuse_other_rules(kwargs)
        follows_from_work = status is None and "trigger_rule" not in kwargs
        super().__init__(**kwargs)
        if follows_from_work:
            self.trigger_rule = _rule_in(self.get_dag())
        # Only now does it hold the user's, which may come from default_args.
        self.on_failure_callback = with_callback(self.on_failure_callback, report_failure)
        self.status = as_text(status)
        # Not `self.output`: that is what Airflow calls an operator's own XCom.
        self.task_output = output
        self.execution_id = as_text(execution_id)
        self.task_external_id = as_text(task_external_id)
        self.parent_task_external_id = as_text(parent_task_external_id)
        self.cdf_task_id = as_text(cdf_task_id)
        self.skipped_status = skipped_status
        self.cdf_conn_id = cdf_conn_id
        #: What CDF is told where no code of this operator can report.
        self.failure_status = "FAILED_WITH_TERMINAL_ERROR"
        #: Why the output could not be rendered. That is no matter where the work has failed.
        self._render_error: Exception | None = None
        self.has_reported = False

    @classmethod
    @names_place
    def partial(cls, **kwargs: Any) -> Any:
        """
        Prepare a mapped task. Without a ``status`` here, its trigger rule is ``all_done``.

        A ``status`` that it is expanded over is that of work that was done: where a task before has failed,
        the failure is reported, as without a status.
        """
        _refuse_mistakes_among(kwargs, is_whole=False)
        if kwargs.get("status") is None:
            kwargs.pop("status", None)  # so that it may be expanded over
            _refuse_other_rules(kwargs)
        if "output" in kwargs:
            # Airflow looks for what a mapped task depends on under the names of template fields only.
            kwargs["task_output"] = kwargs.pop("output")
        follows_from_work = "status" not in kwargs and "trigger_rule" not in kwargs
        partial = with_checks(super().partial(**kwargs), _refuse_mistakes_among)
        partial_with_callback(partial, report_failure)
        if follows_from_work:
            partial.kwargs["trigger_rule"] = _rule_in(partial.kwargs.get("dag"))
        return partial

    @property
    def target(self) -> Target:
        """The CDF task that this reports on."""
        return target_of(self)

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render. Where the output cannot be, as after a failed task that left no XCom, that is for later."""
        try:
            return super().render_template(content, *args, **kwargs)
        except Exception as error:
            if self.status is not None or content is not self.task_output:
                raise
            self._render_error = error
            return None

    @without_stack
    def execute(self, context: Context) -> str:
        """Report, and fail if what was reported is a failure of this DAG run."""
        from airflow_provider_cdf.cdf.checks import check_reportable

        ti = context["ti"]
        if self.mistake:
            raise CdfInputError(self.mistake)
        if self.status is None or self._is_expanded_over_status:
            return self._report_on_the_work(ti)
        try:
            status, output = check_reportable(self.status), self._output_to_send()
        except CdfInputError as error:
            # The callback is about to tell CDF: "Nothing was sent" would not be true for long.
            error.args = (told(error.problem, "CDF is told that this Airflow task has failed."),)
            raise
        return self._report(ti, status, output)

    def _report_on_the_work(self, ti: Any) -> str:
        from airflow_provider_cdf.cdf.checks import check_reportable, is_missing
        from airflow_provider_cdf.operators.ending import ending, work_before
        from airflow_provider_cdf.operators.reporting import failure, with_note
        from airflow_provider_cdf.operators.upstream import direct_upstream, root_causes

        if self.trigger_rule == TriggerRule.ALL_SUCCESS and not self.is_teardown:
            self.log.warning(
                "In a fail_fast DAG only teardowns run after a failure: add .as_teardown(setups=...), "
                "or CDF is not told of one."
                if _is_fail_fast(self.get_dag())
                else "The status is None, so it follows from the work. But this task does not run after a "
                "failure, of which CDF is not told then: add trigger_rule='all_done'."
            )
        end = ending(
            direct_upstream(self, ti),
            work_before(self),
            is_teardown=self.is_teardown,
            has_execution=self.task_external_id is None or not is_missing(self.execution_id),
            skipped_status=None if self.skipped_status is None else check_reportable(self.skipped_status),
        )
        if end.status is None:
            raise AirflowSkipException("No execution id was given, so there is nothing to report to.")
        if end.blamed:
            causes = root_causes(end.blamed, self, ti, end.good)
            self._fail(ti, end.status, failure(ti, causes), causes)
        if self._render_error is not None:
            # All the work is done, so this may pass: Airflow retries. After the last try, CDF is told.
            raise self._render_error
        try:
            status = check_reportable("COMPLETED" if self.status is None else self.status)
            output = self._output_to_send()
        except CdfInputError as error:
            self._report(ti, "FAILED_WITH_TERMINAL_ERROR", failure(ti, [], error))
            raise AirflowFailException(
                told(error.problem, f"CDF's task was set to FAILED_WITH_TERMINAL_ERROR. {which(self)}")
            ) from None
        return self._report(ti, status, with_note(output, ti, skipped=True) if end.skipped else output)

    def _fail(self, ti: Any, status: str, output: Mapping[str, Any], causes: Sequence[Upstream]) -> NoReturn:
        """Report a failure of the work, and fail."""
        from airflow_provider_cdf.operators.reporting import in_words

        what = "failed" if all(one.state != "skipped" for one in causes) else "not been done"
        words = f"The work has {what}: Airflow task{'s' * (len(causes) > 1)} {in_words(causes)}."
        try:
            self._report(ti, status, output)
        except CdfError as error:
            raise error.adding(f"This was to be reported: {words}") from None
        links = " ".join(one.url for one in causes[:3] if one.url)
        raise AirflowFailException(
            told(
                f"{words} CDF's task was set to {status}. This Airflow task fails, too, so that the DAG run "
                f"is red. {links}",
                which(self),
            )
        )

    def _report(self, ti: Any, status: str, output: Mapping[str, Any] | None) -> str:
        from airflow_provider_cdf.operators.reporting import report

        task = report(self.hook, ti, self.target, status, output)
        self.has_reported = True
        return task.id

    def _output_to_send(self) -> dict[str, Any] | None:
        """
        Return the output as CDF takes it.

        :raises CdfInputError: if CDF does not take it. What cannot be read, such as an XCom that a lazy
            sequence reads only now, is an error of its own.
        """
        from airflow_provider_cdf.operators.reporting import checked_output

        return None if self.task_output is None else checked_output(self.task_output)

    @property
    def _is_expanded_over_status(self) -> bool:
        """Whether each map index has a status of its own; the trigger rule is that of having none."""
        dag: Any = self.get_dag()
        mapped = dag.task_dict.get(self.task_id) if is_from_mapped(self) and dag is not None else None
        return mapped is not None and "status" not in mapped.partial_kwargs


def _refuse_mistakes(status: Any, output: Any, skipped_status: Any) -> None:
    """
    Refuse what a DAG file says itself, and cannot be meant.

    :raises ValueError: while the file is parsed.
    """
    refuse_operators(status=status, output=output)
    try:
        for given in (status, skipped_status):
            if given is not None and is_literal(given):
                from airflow_provider_cdf.cdf.checks import check_reportable

                check_reportable(given)
        if output is None:
            return
        # A list is no object, whatever its templates become.
        from airflow_provider_cdf.operators.reporting import checked_output, refuse_own_key

        if is_literal(output) or isinstance(output, list | tuple):
            checked_output(output)
        elif isinstance(output, Mapping):
            refuse_own_key(output)
    except CdfInputError as error:
        raise ValueError(error.problem) from None


def _refuse_mistakes_among(arguments: Mapping[str, Any], *, is_whole: bool = True) -> None:
    """
    Refuse mistakes in the arguments of a mapped task, by default in those of one map index.

    :raises ValueError: while the file is parsed.
    """
    refuse_mistakes(arguments, is_whole=is_whole)
    output = arguments.get("output")
    _refuse_mistakes(
        arguments.get("status"),
        arguments.get("task_output") if output is None else output,
        arguments.get("skipped_status"),
    )


def _refuse_other_rules(arguments: Mapping[str, Any]) -> None:
    allowed = (TriggerRule.ALL_DONE, TriggerRule.ALL_DONE_SETUP_SUCCESS)
    if arguments.get("trigger_rule", TriggerRule.ALL_DONE) not in allowed:
        raise ValueError(
            "status=None needs trigger_rule='all_done', because it reports failures, too. Under another "
            "rule, CDF would be left waiting."
        )


def _rule_in(dag: Any) -> TriggerRule:
    """Return the rule under which the operator runs however the work before it has ended."""
    # A fail_fast DAG allows no other. Only a teardown runs there after a failure.
    return TriggerRule.ALL_SUCCESS if _is_fail_fast(dag) else TriggerRule.ALL_DONE


def _is_fail_fast(dag: Any) -> bool:
    # It is called fail_stop on Airflow 2.
    return bool(getattr(dag, "fail_fast", False) or getattr(dag, "fail_stop", False))
