"""CdfWorkflowCancelOperator against the emulator."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.cdf.errors import CdfInputError, CdfUnreachableError
from airflow_provider_cdf.operators.workflow import CdfWorkflowCancelOperator, CdfWorkflowRunOperator

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


def test_an_id_that_is_none_is_refused_in_words_that_do_not_contradict(ti: FakeTaskInstance) -> None:
    with pytest.raises(CdfInputError) as caught:
        cancel(ti, "nope")
    assert "may still run" not in str(caught.value)
    assert "Nothing was sent to CDF." in str(caught.value)


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
def test_without_an_id_there_is_nothing_to_cancel(
    execution_id: Any,
    ti: FakeTaskInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(CdfWorkflowCancelOperator, "log", logging.getLogger("operator under test"))
    assert cancel(ti, execution_id) is None
    assert "No execution id was given, so nothing is cancelled." in caplog.text


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


def test_is_a_task_of_its_dag_and_may_be_a_teardown() -> None:
    with DAG("plant") as dag:
        run = CdfWorkflowRunOperator(task_id="run", workflow_external_id="w", version="1")
        stop = CdfWorkflowCancelOperator(
            task_id="stop", execution_id="{{ ti.xcom_pull('run', key='execution_id') }}", retries=3
        )
        run >> stop.as_teardown(setups=run)
    assert dag.get_task("stop") is stop
    assert stop.retries == 3
    assert stop.is_teardown
    assert stop.upstream_task_ids == {"run"}


def test_where_cdf_does_not_answer_the_execution_may_still_run(
    project: Project, ti: FakeTaskInstance, connect: Callable[..., None]
) -> None:
    connect(host="http://127.0.0.1:9")
    execution_id = str(uuid.uuid4())
    with pytest.raises(
        CdfUnreachableError, match=rf"The execution may still run in CDF\. \[execution {execution_id}"
    ):
        cancel(ti, execution_id)
