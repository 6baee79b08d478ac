"""An output that cannot be reported is a failure that can: CDF is never left waiting because of it."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseOperator, task
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator

pytestmark = pytest.mark.usefixtures("cdf_default")


@pytest.fixture
def execution_id(project: Project) -> str:
    return project.run(project.define(function_task("approve", waits=True)))


def report(execution_id: str, output: Any) -> CdfTaskUpdateOperator:
    with DAG("plant"):
        return CdfTaskUpdateOperator(
            task_id="report", execution_id=execution_id, task_external_id="approve", output=output
        )


@pytest.mark.parametrize(
    "output",
    [["a", "list"], 7, {"too": "x" * 100_000}, {"not": {1, 2}}],
    ids=["list", "number", "large", "set"],
)
def test_an_output_that_cdf_would_refuse_is_reported_as_a_failure(
    output: Any, execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    with pytest.raises(AirflowFailException, match="has no usable output"):
        report(execution_id, output).execute({"ti": ti})
    failed = project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")
    assert "has no usable output" in failed["output"]["airflow"]["failed_tasks"][ti.task_id]


def test_an_output_that_cannot_be_rendered_is_reported_as_a_failure(
    execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    operator = report(execution_id, {"risk": "{{ nothing['risk'] }}"})
    operator.render_template_fields({"ti": ti, "nothing": None})
    with pytest.raises(AirflowFailException, match="has no usable output"):
        operator.execute({"ti": ti})
    project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")


def test_another_field_that_cannot_be_rendered_is_an_error_as_ever(ti: FakeTaskInstance) -> None:
    operator = report("{{ nothing['id'] }}", None)
    with pytest.raises(Exception, match="None"):
        operator.render_template_fields({"ti": ti, "nothing": None})


def test_a_mapped_report_depends_on_the_task_that_makes_its_output() -> None:
    with DAG("plant") as dag:

        @task
        def judge() -> dict[str, int]:
            return {"risk": 1}

        CdfTaskUpdateOperator.partial(task_id="report", task_external_id="approve", output=judge()).expand(
            execution_id=["a", "b"]
        )
    assert dag.get_task("report").upstream_task_ids == {"judge"}


def test_an_operators_own_xcom_is_what_it_is_for_every_operator() -> None:
    operator = report("{{ templated }}", {"risk": 1})
    assert type(operator.output) is type(BaseOperator(task_id="other").output)
