"""The operator that cancels an execution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_cdf.arguments import flag
from airflow_provider_cdf.cdf.errors import CdfError, CdfInputError
from airflow_provider_cdf.fields import TextFields, refuse_operators, refuse_wrong_ids
from airflow_provider_cdf.operators.cancelling import after_cancelling
from airflow_provider_cdf.stack import without_stack

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class CdfWorkflowCancelOperator(TextFields, BaseOperator):
    """
    Cancel an execution, as a teardown for a run that no task waits for.

    An execution that has ended is left alone. Without an id there is nothing to cancel.

    :param execution_id: UUID of the execution: best ``run.output["execution_id"]``, which is there also where
        the task ``run`` has died after the start. (templated)
    :param reason: becomes the execution's reason; at most 500 characters. (templated)
    :param only_after_failure: cancel only if a task right before this one did not succeed, such as a report
        that could not be made. So it can stand before a task that waits for the end of the execution.
    :param cdf_conn_id: id of the Airflow connection. (templated)
    :xcom return_value: the status that the execution is in afterwards; none if it was not looked at.
    """

    template_fields: Sequence[str] = ("execution_id", "reason", "cdf_conn_id")
    text_fields = template_fields

    def __init__(
        self,
        *,
        execution_id: str,
        reason: str = "Cancelled by Airflow.",
        only_after_failure: bool = False,
        cdf_conn_id: str = "cdf_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        refuse_operators(execution_id=execution_id, reason=reason, cdf_conn_id=cdf_conn_id)
        refuse_wrong_ids(self, execution_id=execution_id)
        self.execution_id = execution_id
        self.reason = reason
        self.only_after_failure = flag(only_after_failure, "only_after_failure")
        self.cdf_conn_id = cdf_conn_id

    @without_stack
    def execute(self, context: Context) -> str | None:
        """Cancel the execution unless it has ended."""
        from airflow_provider_cdf.cdf.checks import is_missing
        from airflow_provider_cdf.hooks.cdf import CdfHook
        from airflow_provider_cdf.operators.upstream import direct_upstream

        if self.only_after_failure:
            before = direct_upstream(self, context["ti"])
            if all(one.state == "success" for one in before):
                self.log.info("All tasks before have succeeded: the execution is left alone.")
                return None
        if is_missing(self.execution_id):
            self.log.info("No execution id was given, so nothing is cancelled.")
            return None
        try:
            execution = CdfHook(self.cdf_conn_id).cancel_execution(self.execution_id, self.reason)
        except CdfInputError:
            raise
        except CdfError as error:
            raise error.adding(
                f"The execution may still run in CDF. [execution {self.execution_id}]"
            ) from None
        self.log.info(after_cancelling(execution))
        return execution.status
