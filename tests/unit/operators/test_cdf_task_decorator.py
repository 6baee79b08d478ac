"""``@task.cdf_task``: what Airflow makes of the decorated function, plain and mapped."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task
from moved import DagSerialization
from support import FakeTaskInstance, Project, function_task, run_to_end
from wording import assert_well_said

from airflow_provider_cdf.operators.callbacks import report_failure
from airflow_provider_cdf.operators.cdf_task import CdfTask
from airflow_provider_cdf.operators.task_work import CdfTaskOperator
from airflow_provider_cdf.versions import HAS_COROUTINE_TASKS, HAS_ON_KILL

pytestmark = pytest.mark.usefixtures("cdf_default")
needs_coroutines = pytest.mark.skipif(not HAS_COROUTINE_TASKS, reason="Airflow 3.2")


@pytest.fixture
def execution_id(project: Project) -> str:
    """An execution with two tasks that wait."""
    tasks = [function_task(name, waits=True) for name in ("score", "grade")]
    return project.run(project.define(*tasks))


def of(execution_id: str, name: str = "score", **more: Any) -> dict[str, Any]:
    return {"execution_id": execution_id, "task_external_id": name, "poll_interval": 0.05, **more}


def execute(operator: Any, ti: FakeTaskInstance) -> Any:
    operator = operator.prepare_for_execution()
    operator.render_template_fields({})
    return run_to_end(operator, {"ti": ti, "task": operator})


def score(project: Project, execution_id: str, name: str = "score") -> dict[str, Any]:
    output: dict[str, Any] = project.task(execution_id, name, "COMPLETED")["output"]
    return output


def test_airflow_offers_it_and_its_function_gets_the_task(
    execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    with DAG("plant"):

        @task.cdf_task(**of(execution_id))
        def judge(cdf_task: CdfTask, factor: int, *, dag: Any = None) -> dict[str, Any]:
            """Judge a pump."""
            return {"pump": cdf_task.data["pump"], "risk": factor / 10}

        operator = judge(factor=7).operator

    assert isinstance(operator, CdfTaskOperator)
    assert (operator.task_id, operator.doc_md) == ("judge", "Judge a pump.")
    assert execute(operator, ti) == {"pump": "P-101", "risk": 0.7}
    assert score(project, execution_id)["risk"] == 0.7


@needs_coroutines
def test_a_coroutine_function_is_awaited_after_a_deferral(
    execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    with DAG("plant"):

        @task.cdf_task(**of(execution_id, deferrable=True))
        async def judge(factor: int, cdf_task: CdfTask) -> dict[str, Any]:
            return {"risk": factor / 10, "pump": cdf_task.data["pump"]}

        operator = judge(7).operator

    execute(operator, ti)
    assert score(project, execution_id)["pump"] == "P-101"


@pytest.mark.parametrize("is_async", [False, pytest.param(True, marks=needs_coroutines)])
def test_mapped_over_its_arguments(
    is_async: bool, execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    with DAG("plant"):
        if is_async:

            @task.cdf_task(**of(execution_id, "{{ task.op_kwargs['name'] }}"))
            async def judge(name: str, factor: int, cdf_task: CdfTask) -> list[Any]:
                return [cdf_task.external_id, name, factor]
        else:

            @task.cdf_task(**of(execution_id, "{{ task.op_kwargs['name'] }}"))
            def judge(name: str, factor: int, cdf_task: CdfTask) -> list[Any]:
                return [cdf_task.external_id, name, factor]

        mapped = judge.partial(factor=2).expand(name=["score", "grade"]).operator

    for name in ("score", "grade"):
        operator = mapped.unmap({"op_kwargs": {"name": name}}).prepare_for_execution()
        # What a mapped task is about may follow from what it is mapped over.
        operator.render_template_fields({"task": operator})
        assert run_to_end(operator, {"ti": ti, "task": operator}) == [name, name, 2]
        assert score(project, execution_id, name)["return_value"] == [name, name, 2]


def test_mapped_keeps_the_callbacks_of_default_args_beside_its_own() -> None:
    def theirs(context: Any) -> None: ...

    with DAG("plant", default_args={"on_failure_callback": theirs}):

        @task.cdf_task(**of("{{ x }}"))
        def judge(name: str) -> None: ...

        mapped = judge.expand(name=["a"]).operator
        plain = judge.override(task_id="plain")("a").operator

    # The DAG processor reads it there; the worker of the instance.
    assert list(mapped.partial_kwargs["on_failure_callback"]) == [theirs, report_failure]
    assert list(mapped.unmap({"op_kwargs": {"name": "a"}}).on_failure_callback) == [theirs, report_failure]
    assert list(plain.on_failure_callback) == [theirs, report_failure]


def test_waits_for_the_tasks_that_its_ids_come_from() -> None:
    with DAG("plant"):

        @task
        def run() -> str: ...

        @task.cdf_task(execution_id=run(), task_external_id="score")
        def judge(name: str) -> None: ...

        plain, mapped = judge("a").operator, judge.override(task_id="mapped").expand(name=["a"]).operator

    assert plain.upstream_task_ids == mapped.upstream_task_ids == {"run"}


def test_can_be_stored_with_the_dag(execution_id: str) -> None:
    with DAG("plant") as dag:

        @task.cdf_task(**of(execution_id))
        def judge(cdf_task: CdfTask) -> None: ...

        judge()

        @task.cdf_task(**of(execution_id))
        def judges(name: str, cdf_task: CdfTask) -> None: ...

        judges.expand(name=["a"])

    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert set(stored.task_dict) == {"judge", "judges"}
    assert stored.get_task("judge").operator_name == "@task.cdf_task"


class TestArguments:
    def test_that_do_not_fit_are_refused_while_the_file_is_read(self) -> None:
        with DAG("plant"):

            @task.cdf_task(**of("{{ x }}"))
            def judge(cdf_task: CdfTask, factor: int) -> None: ...

            with pytest.raises(TypeError, match="factor"):
                judge()

    @pytest.mark.parametrize("how", ["called", "partial", "expand"])
    def test_the_task_itself_is_none(self, how: str) -> None:
        with DAG("plant"):

            @task.cdf_task(**of("{{ x }}"))
            def judge(cdf_task: CdfTask) -> None: ...

            with pytest.raises(ValueError, match=r"cdf_task is given by @task\.cdf_task"):
                {
                    "called": lambda: judge(cdf_task="mine"),
                    "partial": lambda: judge.partial(cdf_task="mine"),
                    "expand": lambda: judge.expand(cdf_task=["mine"]),
                }[how]()

    def test_of_the_decorator_are_checked(self) -> None:
        with DAG("plant"):

            @task.cdf_task(task_external_id="score")
            def judge() -> None: ...

            with pytest.raises(ValueError, match="needs the execution_id"):
                judge()

    def test_multiple_outputs_are_as_with_task(self) -> None:
        with DAG("plant"):

            @task.cdf_task(**of("{{ x }}"))
            def dicts() -> dict[str, Any]: ...

            @task.cdf_task(**of("{{ x }}"), multiple_outputs=False)
            def one() -> dict[str, Any]: ...

            assert dicts().operator.multiple_outputs is True
            assert one().operator.multiple_outputs is False

    def test_a_bare_decorator_says_what_is_missing(self) -> None:
        with DAG("plant"):

            @task.cdf_task
            def judge() -> None: ...

            with pytest.raises(ValueError, match="task_external_id"):
                judge()


def test_a_parameter_that_gets_no_value_is_named_with_the_function() -> None:
    with DAG("plant"):

        @task.cdf_task(**of("{{ x }}"))
        def judge(cdf: CdfTask) -> None: ...

        @task.cdf_task(**of("{{ x }}"))
        def grade(cdf_task: CdfTask, *, factor: int) -> None: ...

        @task.cdf_task(**of("{{ x }}"))
        def sort(factor: int, cdf_task: CdfTask, ti: Any) -> None: ...

        with pytest.raises(TypeError) as unknown:
            judge()
        with pytest.raises(TypeError) as keyword:
            grade()
        with pytest.raises(TypeError) as among:
            sort()
        with pytest.raises(TypeError, match="unexpected keyword argument 'x'"):
            grade(factor=1, x=2)

    assert str(unknown.value).startswith(
        "The function 'judge' gets no value for its parameter 'cdf'. The CDF task comes as cdf_task. [task "
    )
    assert str(keyword.value).startswith(
        "The function 'grade' gets no value for its parameter 'factor'. [task"
    )
    assert str(among.value).startswith("The function 'sort' gets no value for its parameter 'factor'. [task")
    for caught in (unknown, keyword, among):
        assert_well_said(str(caught.value))


@pytest.mark.skipif(not HAS_ON_KILL, reason="Airflow 3.3 allows it")
def test_a_parameter_behind_one_of_the_context_is_named_alike() -> None:
    with DAG("plant"):

        @task.cdf_task(**of("{{ x }}"))
        def judge(ti: Any, factor: int, cdf_task: CdfTask) -> None: ...

        with pytest.raises(
            TypeError, match=r"^The function 'judge' gets no value for its parameter 'factor'"
        ):
            judge()


def test_a_parameter_of_a_mapped_function_that_gets_no_value_is_named_when_it_runs() -> None:
    with DAG("plant"):

        @task.cdf_task(**of("{{ x }}"))
        def judge(cdf: CdfTask, name: str) -> None: ...

        mapped = judge.expand(name=["a"]).operator

    with pytest.raises(TypeError, match=r"^The function 'judge' gets no value .* 'cdf'\. .* cdf_task\.$"):
        mapped.unmap({"op_kwargs": {"name": "a"}})
