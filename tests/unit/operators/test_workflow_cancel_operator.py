"""CdfWorkflowCancelOperator against the emulator."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.operators.workflow import CdfWorkflowCancelOperator

pytestmark = pytest.mark.usefixtures("cdf_default")


def cancel(ti: FakeTaskInstance, execution_id: Any, **arguments: Any) -> Any:
    operator = CdfWorkflowCancelOperator(task_id="cancel", execution_id="{{ templated }}", **arguments)
    operator.execution_id = execution_id  # as rendering does
    return operator.execute({"ti": ti})


def test_ends_a_running_execution_with_the_reason(project: Project, ti: FakeTaskInstance) -> None:
    execution_id = project.run(project.define(function_task("approve", waits=True)))

    cancel(ti, execution_id, reason="The DAG is over")

    execution = project.execution(execution_id)
    assert execution["status"] == "TERMINATED"
    assert execution["reasonForIncompletion"] == "The DAG is over"


def test_gives_a_reason_of_its_own_where_there_is_none(project: Project, ti: FakeTaskInstance) -> None:
    execution_id = project.run(project.define(function_task("approve", waits=True)))

    cancel(ti, execution_id)

    assert "Airflow" in project.execution(execution_id)["reasonForIncompletion"]


def test_a_reason_longer_than_500_characters_does_not_keep_the_execution_alive(
    project: Project, ti: FakeTaskInstance
) -> None:
    execution_id = project.run(project.define(function_task("approve", waits=True)))

    cancel(ti, execution_id, reason="x" * 501)

    assert project.execution(execution_id)["status"] == "TERMINATED"


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "TERMINATED"])
def test_an_execution_that_has_ended_is_left_alone(
    status: str, project: Project, ti: FakeTaskInstance
) -> None:
    execution_id = project.run(project.define(function_task("approve", waits=True)))
    task = project.task(execution_id, "approve")
    if status == "TERMINATED":
        project.cancel(execution_id, "somebody else did")
    else:
        project.update(task["id"], status)
    before = project.execution(execution_id)

    assert cancel(ti, execution_id, reason="too late") == status

    assert project.execution(execution_id) == before


@pytest.mark.parametrize("execution_id", [None, "None", ""], ids=repr)
def test_a_run_that_never_started_is_nothing_to_cancel(execution_id: Any, ti: FakeTaskInstance) -> None:
    assert cancel(ti, execution_id) is None


@pytest.mark.parametrize("execution_id", [str(uuid.uuid4()), "../../sessions"], ids=["unknown", "no UUID"])
def test_an_execution_that_does_not_exist_is_named(
    execution_id: str, ti: FakeTaskInstance, clear: Any
) -> None:
    with pytest.raises(AirflowException) as error:
        cancel(ti, execution_id)

    clear(error.value, execution_id)


@pytest.mark.parametrize("name", ["execution_id", "reason", "cdf_conn_id"])
def test_is_templated(name: str) -> None:
    assert name in CdfWorkflowCancelOperator.template_fields
