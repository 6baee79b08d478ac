"""What is refused where a DAG file is read, and what is not."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, TaskGroup
from wording import assert_well_said

from airflow_provider_cdf.arguments import number_or, seconds
from airflow_provider_cdf.cdf.errors import CdfInputError
from airflow_provider_cdf.fields import is_literal
from airflow_provider_cdf.notifications.task import CdfTaskNotifier
from airflow_provider_cdf.operators.task import CdfTaskOperator, CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowCancelOperator, CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor

ODD: list[Any] = [0, -1, 0.0, float("nan"), float("inf"), 1e12, "10", None, True, timedelta(0), timedelta(-1)]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_duration_is_positive_and_finite(odd: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^poll_interval must be a positive number of seconds or a timedelta"
    ):
        seconds(odd, "poll_interval")


@pytest.mark.parametrize(("given", "taken"), [(5, 5), (0.01, 0.01), (timedelta(minutes=1), 60.0), (1e9, 1e9)])
def test_a_duration_is_taken_in_seconds(given: Any, taken: float) -> None:
    assert seconds(given) == taken


@pytest.mark.parametrize("odd", [one for one in ODD if one != 1e12], ids=repr)
def test_a_trigger_takes_the_default_for_what_is_no_positive_number(odd: Any) -> None:
    assert number_or(odd, 7.0) == 7.0
    assert number_or(odd, None) is None
    assert number_or(2, 7.0) == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("COMPLETED", True),
        (["A", "B"], True),
        (("A",), True),
        ("{{ params.status }}", False),
        ("{% if x %}A{% endif %}", False),
        (["A", "{{ b }}"], False),
        (None, True),
        ({"a": ["{{ b }}"]}, False),
    ],
)
def test_what_holds_no_template_is_literal(value: Any, expected: bool) -> None:
    assert is_literal(value) is expected


# -- sensors ----------------------------------------------------------------------------------------------


def sensor(kind: type, **arguments: Any) -> Any:
    more = {"task_external_id": "approve"} if kind is CdfTaskSensor else {}
    return kind(**{"task_id": "wait", "execution_id": "{{ params.id }}", **more, **arguments})


SENSORS = pytest.mark.parametrize("kind", [CdfTaskSensor, CdfWorkflowSensor])


@SENSORS
@pytest.mark.parametrize("name", ["poke_interval", "timeout", "max_poll_silence"])
@pytest.mark.parametrize("odd", [0, -5, float("nan"), float("inf"), timedelta(0), "10"], ids=repr)
def test_a_sensor_refuses_durations_that_are_none(kind: type, name: str, odd: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a positive number of seconds"):
        sensor(kind, **{name: odd})


@SENSORS
def test_a_sensor_takes_durations_that_are(kind: type) -> None:
    made = sensor(kind, poke_interval=timedelta(seconds=5), timeout=timedelta(hours=1), max_poll_silence=60)
    assert (made.poke_interval, made.timeout, made.max_poll_silence) == (5, 3600, 60)
    assert sensor(kind, timeout=None).timeout == 7 * 24 * 3600


@SENSORS
def test_deferrable_is_true_or_false(kind: type) -> None:
    with pytest.raises(TypeError, match=r"^deferrable must be True or False, not 'False'\. \[task '"):
        sensor(kind, deferrable="False")
    with pytest.raises(TypeError, match=r"^deferrable must be True or False, not 'False'\. \[task '"):
        CdfWorkflowRunOperator(task_id="r", workflow_external_id="w", version="1", deferrable="False")


@pytest.mark.parametrize(
    "name", ["wait_for_completion", "cancel_on_kill", "cancel_on_timeout", "retry_from_failure"]
)
def test_a_flag_is_true_or_false(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be True or False, not 'no'\. \[task 'r', "):
        CdfWorkflowRunOperator(task_id="r", workflow_external_id="w", version="1", **{name: "no"})


def test_mistakes_of_a_cancellation_are_seen_in_the_dag_file() -> None:
    with DAG("plant"):
        run = BaseOperator(task_id="run")
        with pytest.raises(ValueError, match=r"^execution_id is the task 'run' itself: write run\.output"):
            CdfWorkflowCancelOperator(task_id="stop", execution_id=run)
        with pytest.raises(TypeError, match=r"^unless_succeeded must be True or False"):
            CdfWorkflowCancelOperator(task_id="end", execution_id=run.output, unless_succeeded="no")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"x": [float("nan")]}, r"^The input\.x\[0\] is not JSON: it is nan"),
        ({"a": {1}}, r"^The input\.a is not JSON: it is set"),
        ('{"a": 1}', r"^The input must be a JSON object.*Ways that give an object"),
    ],
)
def test_an_input_that_is_no_json_is_seen_in_the_dag_file(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CdfWorkflowRunOperator(task_id="r", workflow_external_id="w", version="1", input=value)


@pytest.mark.parametrize("names", ["read", [None], [""], [["read"]]])
def test_task_outputs_that_are_no_list_of_ids_are_seen_in_the_dag_file(names: Any) -> None:
    with pytest.raises(ValueError, match=r"^task_outputs must be a list of external ids"):
        CdfWorkflowRunOperator(task_id="r", workflow_external_id="w", version="1", task_outputs=names)


RUN: dict[str, Any] = {
    "task_id": "r",
    "workflow_external_id": "w",
    "version": "1",
    "wait_for_completion": False,
}


@pytest.mark.parametrize(
    "argument", [{"task_outputs": ["read"]}, {"task_outputs": "{{ x }}"}, {"timeout": 60}]
)
def test_what_needs_a_wait_is_refused_without_one(argument: dict[str, Any]) -> None:
    (name,) = argument

    def refused() -> Any:
        return pytest.raises(ValueError, match=rf"^{name} needs wait_for_completion: ")

    with DAG("plant", default_args={"task_outputs": ["other"], "timeout": 5}):
        with refused() as caught:
            CdfWorkflowRunOperator(**RUN, **argument)
        assert_well_said(str(caught.value))
        with refused():
            CdfWorkflowRunOperator.partial(**RUN, **argument)
        with refused():
            CdfWorkflowRunOperator.partial(**RUN).expand(
                **{name: [value] for name, value in argument.items()}
            )
        with refused():
            CdfWorkflowRunOperator.partial(**RUN).expand_kwargs([{"input": {}}, argument])
    with DAG("other", default_args={"wait_for_completion": False}), refused():
        CdfWorkflowRunOperator(task_id="r", workflow_external_id="w", version="1", **argument)


def test_what_needs_a_wait_may_stand_in_default_args() -> None:
    defaults = {"task_outputs": ["read"], "timeout": 60}
    with (
        DAG("plant", default_args=defaults),
        TaskGroup("north", default_args={"timeout": timedelta(hours=1)}),
    ):
        CdfWorkflowRunOperator(**RUN)
        mapped = CdfWorkflowRunOperator.partial(**{**RUN, "task_id": "each"}).expand(input=[{}])
    assert mapped.unmap({"input": {}}).task_outputs == ["read"]
    CdfWorkflowRunOperator(**RUN, default_args=defaults)
    CdfWorkflowRunOperator(**RUN, task_outputs=[], timeout=None)


def test_a_status_that_is_no_text_is_refused_like_another() -> None:
    with pytest.raises(CdfInputError, match=r"^CDF has no status 1 here\."):
        sensor(CdfTaskSensor, target_status=1)


@SENSORS
def test_an_operator_in_place_of_its_output_is_refused_with_what_to_write(kind: type) -> None:
    with DAG("plant"):
        run = BaseOperator(task_id="run")
        with pytest.raises(
            ValueError,
            match=r"^execution_id is the task 'run' itself: write run\.output, which is what it returns",
        ):
            sensor(kind, execution_id=run)
        mapped = CdfWorkflowRunOperator.partial(task_id="each", workflow_external_id="w").expand(
            version=["1", "2"]
        )
        with pytest.raises(ValueError, match=r"write each\.output, "):
            sensor(kind, task_id="mapped", execution_id=mapped)
        sensor(kind, task_id="right", execution_id=run.output)


ID = "11111111-1111-4111-8111-111111111111"
TO_RUN = "Write what the task that starts the execution returns, such as run.output."
TO_WAITS = "Write what a CdfTaskSensor returns, such as waits.output."


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("execution_id", lambda of: of.waits.output, f"waits.output, which is a CDF task's id. {TO_RUN}"),
        ("execution_id", lambda of: of.waits, f"waits.output, which is a CDF task's id. {TO_RUN}"),
        (
            "execution_id",
            lambda of: of.all_wait.output,
            f"all_wait.output, which is a CDF task's id. {TO_RUN}",
        ),
        (
            "execution_id",
            lambda of: of.waits.output["x"],
            "waits.output['x'], which is not an execution's id.",
        ),
        ("execution_id", lambda of: of.run.output["id"], "run.output['id'], which is not an execution's id."),
        ("execution_id", lambda of: of.report.output, f"report.output, which is a CDF task's id. {TO_RUN}"),
        ("execution_id", lambda of: of.stop.output, f"stop.output, which is not an execution's id. {TO_RUN}"),
        ("cdf_task_id", lambda of: of.run.output, f"run.output, which is an execution's id. {TO_WAITS}"),
        ("cdf_task_id", lambda of: of.ended.output, f"ended.output, which is an execution's id. {TO_WAITS}"),
    ],
)
def test_an_xcom_of_ours_that_holds_another_id_is_refused(name: str, given: Any, words: str) -> None:
    with DAG("plant"):
        value = given(tasks_of_ours())
        address = {name: value} if name == "cdf_task_id" else {name: value, "task_external_id": "b"}
        takers: list[Any] = [
            lambda: CdfTaskUpdateOperator(task_id="t", **address),
            lambda: CdfTaskOperator(task_id="t", python_callable=print, **address),
            lambda: CdfTaskNotifier(status="COMPLETED", **address),
            lambda: CdfTaskUpdateOperator.partial(task_id="t", **address),
            lambda: CdfTaskUpdateOperator.partial(task_id="t", output={}).expand_kwargs([address]),
        ]
        if name == "execution_id":
            takers += [
                lambda: CdfTaskSensor(task_id="t", **address),
                lambda: CdfWorkflowSensor(task_id="t", execution_id=value),
                lambda: CdfWorkflowCancelOperator(task_id="t", execution_id=value),
                lambda: CdfWorkflowSensor.partial(task_id="t", execution_id=value),
            ]
        for taker in takers:
            with pytest.raises(ValueError, match=f"^{name} is given ") as caught:
                taker()
            assert words in str(caught.value)
            assert_well_said(str(caught.value))


def test_an_xcom_that_may_hold_the_id_is_not_refused() -> None:
    class OfAUser(CdfTaskSensor):
        """Its execute() may return what it likes."""

    with DAG("plant"):
        of = tasks_of_ours()
        own = OfAUser(task_id="own", execution_id=ID, task_external_id="a")
        for index, value in enumerate(
            [of.run.output, of.run.output["execution_id"], of.ended.output, own.output]
        ):
            CdfWorkflowSensor(task_id=f"waits{index}", execution_id=value)
        CdfTaskUpdateOperator(task_id="by_id", cdf_task_id=of.waits.output)
        CdfWorkflowSensor.partial(task_id="each").expand(execution_id=of.runs.output)


def test_a_task_mapped_over_other_ids_is_refused() -> None:
    with DAG("plant"):
        wrong = tasks_of_ours().all_wait.output
        with pytest.raises(ValueError, match=r"^execution_id is given all_wait\.output, .* \[task 'each', "):
            CdfWorkflowSensor.partial(task_id="each").expand(execution_id=wrong)


def tasks_of_ours() -> Any:
    task = {"execution_id": ID, "task_external_id": "a"}
    run = {"workflow_external_id": "w", "version": "1"}
    return SimpleNamespace(
        run=CdfWorkflowRunOperator(task_id="run", **run),
        runs=CdfWorkflowRunOperator.partial(task_id="runs", **run).expand(input=[{}]),
        waits=CdfTaskSensor(task_id="waits", **task),
        all_wait=CdfTaskSensor.partial(task_id="all_wait", task_external_id="a").expand(execution_id=[ID]),
        report=CdfTaskUpdateOperator(task_id="report", **task),
        stop=CdfWorkflowCancelOperator(task_id="stop", execution_id=ID),
        ended=CdfWorkflowSensor(task_id="ended", execution_id=ID),
    )


@pytest.mark.parametrize(
    ("kind", "given", "missing"),
    [
        (CdfWorkflowRunOperator, {"workflow_external_id": "w"}, "version"),
        (CdfWorkflowRunOperator, {}, "version and workflow_external_id"),
        (CdfTaskSensor, {"execution_id": ID}, "task_external_id"),
        (CdfTaskSensor, {"task_external_id": "a"}, "execution_id"),
        (CdfWorkflowSensor, {}, "execution_id"),
        (CdfWorkflowCancelOperator, {}, "execution_id"),
        (CdfTaskOperator, {"execution_id": ID, "task_external_id": "a"}, "python_callable"),
    ],
)
def test_a_mapped_task_is_given_what_it_needs(kind: Any, given: dict[str, Any], missing: str) -> None:
    refused = rf"^{missing} must be given, in partial\(\) or in expand\(\)\. \[task 't', "
    with DAG("plant"):
        with pytest.raises(TypeError, match=refused) as caught:
            kind.partial(task_id="t", **given).expand(cdf_conn_id=["a"])
        assert_well_said(str(caught.value))
        with pytest.raises(TypeError, match=refused):
            kind.partial(task_id="t", **given).expand_kwargs([{"cdf_conn_id": "a"}])
    all_values = {"version": "1", "python_callable": print}
    values = {name: all_values.get(name, ID) for name in missing.split(" and ")}
    with DAG("north", default_args=values):
        kind.partial(task_id="t", **given).expand(cdf_conn_id=["a"])
    with DAG("south"), TaskGroup("g", default_args=values):
        kind.partial(task_id="t", **given).expand(cdf_conn_id=["a"])
    with DAG("east"):
        kind.partial(task_id="t", **given).expand_kwargs([values])
        waits = CdfTaskSensor(task_id="waits", execution_id=ID, task_external_id="a")
        kind.partial(task_id="later", **given).expand_kwargs(waits.output)


def test_a_class_of_a_user_may_give_what_ours_needs() -> None:
    class First(CdfWorkflowRunOperator):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(version="1", **kwargs)

    with DAG("plant"):
        mapped = First.partial(task_id="t", workflow_external_id="w").expand(input=[{}])
    assert mapped.unmap({"input": {}}).version == "1"


def test_an_id_may_be_a_uuid() -> None:
    ids: dict[str, Any] = {"execution_id": UUID(ID), "task_external_id": "a"}
    with DAG("plant"):
        made = [
            CdfTaskSensor(task_id="a", **ids),
            CdfWorkflowSensor(task_id="b", execution_id=UUID(ID)),
            CdfWorkflowCancelOperator(task_id="c", execution_id=UUID(ID)),
            CdfTaskOperator(task_id="d", python_callable=print, **ids),
            CdfTaskUpdateOperator(task_id="e", **ids),
            CdfTaskNotifier(status="COMPLETED", **ids),
        ]
        by_id = [
            CdfTaskOperator(task_id="f", python_callable=print, cdf_task_id=UUID(ID)),  # type: ignore[arg-type]
            CdfTaskUpdateOperator(task_id="g", cdf_task_id=UUID(ID)),  # type: ignore[arg-type]
            CdfTaskNotifier(status="COMPLETED", cdf_task_id=UUID(ID)),  # type: ignore[arg-type]
        ]
        mapped = CdfTaskSensor.partial(task_id="h", task_external_id="a").expand(execution_id=[UUID(ID)])
    assert {one.execution_id for one in made} == {one.cdf_task_id for one in by_id} == {ID}
    assert mapped.unmap({"execution_id": UUID(ID)}).execution_id == ID


@pytest.mark.parametrize("name", ["task_external_id", "target_status", "parent_task_external_id"])
def test_each_argument_of_the_task_sensor_is_looked_at(name: str) -> None:
    with DAG("plant"), pytest.raises(ValueError, match=f"^{name} is the task 'plan' itself"):
        sensor(CdfTaskSensor, **{name: BaseOperator(task_id="plan")})


@pytest.mark.parametrize(
    ("literal", "nearest"),
    [
        ("SUCCESS", "COMPLETED"),
        ("success", "COMPLETED"),
        (["COMPLETED", "done"], "COMPLETED"),
        ("CANCELLED", "CANCELED"),
        ("RUNNING", "IN_PROGRESS"),
        ("IN PROGRESS", "IN_PROGRESS"),
        ("error", "FAILED"),
        ("queued", "SCHEDULED"),
        ("timeout", "TIMED_OUT"),
    ],
)
def test_an_unknown_status_is_refused_with_the_nearest_one(literal: Any, nearest: str) -> None:
    with pytest.raises(
        CdfInputError, match=rf"^CDF has no status .* Did you mean {nearest}\? It has SCHEDULED,"
    ):
        sensor(CdfTaskSensor, target_status=literal)


def test_a_status_that_nothing_is_near_to_is_refused_too() -> None:
    with pytest.raises(CdfInputError, match=r"^CDF has no status 'xyz' here\. It has SCHEDULED,"):
        sensor(CdfTaskSensor, target_status="xyz")


@pytest.mark.parametrize("target", ["{{ params.status }}", ["COMPLETED", "{{ params.status }}"], "completed"])
def test_a_status_that_may_be_right_is_not_refused(target: Any) -> None:
    assert sensor(CdfTaskSensor, target_status=target).target_status == target


@SENSORS
@pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
def test_what_default_args_combine_is_not_refused(kind: type, option: str) -> None:
    """They are written for a whole DAG, whose other tasks are no sensors, or other ones."""
    defaults = {
        "timeout": 600,
        "poke_interval": 5,
        "poll_interval": 5,
        "mode": "reschedule",
        "deferrable": True,
        "retries": 3,
        "execution_timeout": timedelta(hours=2),
        "max_poll_silence": 60,
        "wait_for_completion": False,
        "target_status": "COMPLETED",
        option: True,
    }
    with DAG("plant", default_args=defaults):
        assert sensor(kind).timeout == 600
