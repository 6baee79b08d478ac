"""The operator that cancels an execution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_cdf.arguments import flag
from airflow_provider_cdf.cdf.errors import CdfError, CdfInputError
from airflow_provider_cdf.fields import (
    TextFields,
    as_text,
    is_from_mapped,
    refuse_operators,
    refuse_wrong_ids,
)
from airflow_provider_cdf.operators.cancelling import after_cancelling
from airflow_provider_cdf.operators.mapped import with_checks
from airflow_provider_cdf.places import names_place
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
    :param unless_succeeded: leave the execution alone if all tasks right before this one have succeeded. One
        that has failed, or was skipped, such as a report, is a reason to cancel. So this can stand before a
        task that waits for the end of the execution.
    :param cdf_conn_id: id of the Airflow connection. (templated)
    :xcom return_value: the status that the execution is in afterwards; none if it was not looked at.
    """

    template_fields: Sequence[str] = ("execution_id", "reason", "cdf_conn_id")
    text_fields = template_fields
    pushed_ids: Mapping[str, str] = MappingProxyType({})

    @names_place
    def __init__(
        self,
        *,
        execution_id: str,
        reason: str = "Cancelled by Airflow.",
        unless_succeeded: bool = False,
        cdf_conn_id: str = "cdf_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not is_from_mapped(self):
            _refuse_mistakes({"execution_id": execution_id, "reason": reason, "cdf_conn_id": cdf_conn_id})
        self.execution_id = as_text(execution_id)
        self.reason = reason
        self.unless_succeeded = flag(unless_succeeded, "unless_succeeded")
        self.cdf_conn_id = cdf_conn_id

    @classmethod
    @names_place
    def partial(cls, **kwargs: Any) -> Any:
        """Prepare a mapped task."""
        _refuse_mistakes(kwargs)
        return with_checks(super().partial(**kwargs), _refuse_mistakes)

    @without_stack
    def execute(self, context: Context) -> str | None:
        """Cancel the execution unless it has ended."""
        from airflow_provider_cdf.cdf.checks import is_missing
        from airflow_provider_cdf.hooks.cdf import CdfHook
        from airflow_provider_cdf.operators.upstream import direct_upstream

        if self.unless_succeeded:
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


def _refuse_mistakes(arguments: Mapping[str, Any]) -> None:
    """
    Refuse what a DAG file says itself, and cannot be meant.

    :raises ValueError: while the file is parsed.
    """
    refuse_operators(**{name: arguments.get(name) for name in CdfWorkflowCancelOperator.template_fields})
    refuse_wrong_ids(None, execution_id=arguments.get("execution_id"))
