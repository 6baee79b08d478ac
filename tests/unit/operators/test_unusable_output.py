"""An output that cannot be reported is a failure that can: CDF is never left waiting because of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseOperator, task
from jinja2 import UndefinedError
from moved import EmptyOperator
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.operators.callbacks import report_failure
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
    ("output", "why"),
    [
        (["a", "list"], "must be a JSON object (a dict), not list"),
        (7, "must be a JSON object (a dict), not int"),
        ('{"risk": 1}', "must be a JSON object (a dict), not text"),
        ({"too": "x" * 100_000}, "100010 bytes"),
        ({"not": [1, {1, 2}]}, "The output.not[1] is not JSON: it is set."),
        ({"airflow": 1}, "has the key 'airflow'"),
    ],
    ids=["list", "number", "text", "large", "set", "our own key"],
)
def test_an_output_that_cdf_would_refuse_is_reported_as_a_failure_at_once(
    output: Any, why: str, execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    operator = report(execution_id, "{{ templated }}")
    operator.task_output = output
    with pytest.raises(AirflowFailException) as caught:
        operator.execute({"ti": ti})
    # It was sent: what is wrong.
    assert why in str(caught.value)
    assert "Nothing was sent" not in str(caught.value)
    assert "FAILED_WITH_TERMINAL_ERROR" in str(caught.value)
    told = project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")["output"]["airflow"]
    assert told["error"]["type"] == "CdfInputError"
    assert why in told["error"]["message"]
    assert [one["task_id"] for one in told["failed_tasks"]] == [ti.task_id]
    assert told["failed_task_count"] == 1
    # The callback that Airflow calls next has nothing to add.
    assert operator.has_reported


class Flaky(Sequence[int]):
    """The results of a mapped task: they are read when they are sent, and cannot be."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        raise ConnectionError("object storage: 503 Slow Down")


def test_an_error_while_the_output_is_rendered_is_one_that_airflow_retries(
    execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    operator = report(execution_id, {"risk": "{{ nothing['risk'] }}"})
    operator.render_template_fields({"ti": ti, "nothing": None})
    with pytest.raises(UndefinedError) as caught:
        operator.execute({"ti": ti})
    assert not isinstance(caught.value, AirflowFailException)
    project.task(execution_id, "approve", "IN_PROGRESS")
    # After the last try, the callback reports, with the reason.
    report_failure({"ti": ti, "task": operator, "exception": caught.value})
    told = project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")["output"]["airflow"]
    assert told["error"] == {"type": "UndefinedError", "message": str(caught.value)}


def test_an_error_while_a_lazy_result_is_read_is_one_that_airflow_retries(
    execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    operator = report(execution_id, "{{ templated }}")
    operator.task_output = {"scores": Flaky()}
    with pytest.raises(ConnectionError):
        operator.execute({"ti": ti})
    project.task(execution_id, "approve", "IN_PROGRESS")


def test_where_the_work_has_failed_an_output_that_cannot_be_rendered_is_no_matter(
    execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    with DAG("plant"):
        operator = CdfTaskUpdateOperator(
            task_id="report",
            execution_id=execution_id,
            task_external_id="approve",
            output={"risk": "{{ nothing['risk'] }}"},
        )
        EmptyOperator(task_id="judge") >> operator
    operator.render_template_fields({"ti": ti, "nothing": None})
    ti.states = {"judge": {"judge": "failed"}}
    with pytest.raises(AirflowFailException, match="'judge' \\(failed\\)"):
        operator.execute({"ti": ti})
    told = project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")["output"]["airflow"]
    assert [one["task_id"] for one in told["failed_tasks"]] == ["judge"]
    assert "error" not in told


def test_a_rendering_error_counts_where_the_status_is_given(ti: FakeTaskInstance) -> None:
    with DAG("plant"):
        operator = CdfTaskUpdateOperator(
            task_id="report",
            cdf_task_id="{{ id }}",
            status="COMPLETED",
            output={"a": "{{ nothing['risk'] }}"},
        )
    with pytest.raises(UndefinedError):
        operator.render_template_fields({"ti": ti, "id": "1", "nothing": None})


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
            execution_id=["{{ a }}", "{{ b }}"]
        )
    assert dag.get_task("report").upstream_task_ids == {"judge"}


def test_an_operators_own_xcom_is_what_it_is_for_every_operator() -> None:
    operator = report("{{ templated }}", {"risk": 1})
    assert type(operator.output) is type(BaseOperator(task_id="other").output)
