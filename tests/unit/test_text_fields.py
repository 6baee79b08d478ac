"""What CDF knows as text stays text, and mistakes in a DAG file are seen while it is parsed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, XComNotFound, task
from support import FakeTaskInstance

from airflow_provider_cdf.fields import TextFields, as_text, is_literal
from airflow_provider_cdf.notifications.task import CdfTaskNotifier
from airflow_provider_cdf.operators.callbacks import report_failure
from airflow_provider_cdf.operators.task import CdfTaskOperator, CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowCancelOperator, CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor
from airflow_provider_cdf.versions import AIRFLOW_VERSION

EXECUTION = "059edaa4-a17a-4102-910e-2c3591500cce"

UNKNOWN = "11111111-2222-4333-8444-555555555555"


class Runs(TextFields, BaseOperator):
    """An operator with the fields of a run."""

    template_fields: Sequence[str] = ("version", "metadata", "names", "input", "execution_id")
    text_fields: Sequence[str] = ("version", "metadata", "names", "execution_id")
    collections_of_text: Sequence[str] = ("metadata", "names")

    def __init__(
        self,
        *,
        version: Any = None,
        metadata: Any = None,
        names: Any = None,
        input: Any = None,  # noqa: A002 - as the real one
        execution_id: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.version, self.metadata, self.names = version, metadata, names
        self.input, self.execution_id = input, execution_id


REAL: dict[str, tuple[Any, dict[str, Any]]] = {
    "run": (CdfWorkflowRunOperator, {"workflow_external_id": "2024_01", "version": "1"}),
    "cancel": (CdfWorkflowCancelOperator, {"execution_id": UNKNOWN, "reason": "007"}),
    "update": (CdfTaskUpdateOperator, {"execution_id": UNKNOWN, "task_external_id": "2024_01"}),
    "task sensor": (
        CdfTaskSensor,
        {"execution_id": UNKNOWN, "task_external_id": "1e3", "parent_task_external_id": "007"},
    ),
    "workflow sensor": (CdfWorkflowSensor, {"execution_id": UNKNOWN, "cdf_conn_id": "1"}),
}


@pytest.mark.parametrize(("kind", "fields"), REAL.values(), ids=REAL.keys())
def test_every_operator_and_sensor_keeps_its_text_under_native_rendering(
    kind: Any, fields: dict[str, Any]
) -> None:
    with DAG("plant", render_template_as_native_obj=True) as dag:
        operator = kind(task_id="a", **fields)
    operator.render_template_fields({}, dag.get_template_env())
    assert {name: getattr(operator, name) for name in fields} == fields


def rendered(context: dict[str, Any] | None = None, *, native: bool = True, **fields: Any) -> Runs:
    with DAG("plant", render_template_as_native_obj=native) as dag:
        operator = Runs(task_id="run", **fields)
    # As Airflow does.
    operator.render_template_fields(context or {}, dag.get_template_env())
    return operator


both = pytest.mark.parametrize("native", [True, False])


@both
@pytest.mark.parametrize("text", ["1", "2024_01", "1.10", "1_0", "007", "None", "True", "[1]", "0x10", "1e3"])
def test_text_without_a_template_is_left_as_written(text: str, native: bool) -> None:
    operator = rendered(native=native, version=text, metadata={"batch": text}, names=[text])
    assert operator.version == text
    assert operator.metadata == {"batch": text}
    assert operator.names == [text]


@both
@pytest.mark.parametrize("text", ["1", "2024_01", "1.10", "007"])
def test_a_template_that_becomes_text_stays_it(text: str, native: bool) -> None:
    context = {"params": {"version": text}}
    operator = rendered(
        context, native=native, version="{{ params.version }}", metadata={"v": "{{ params.version }}"}
    )
    assert operator.version == text
    assert operator.metadata == {"v": text}


def test_one_template_may_become_a_list_or_a_dict_of_text() -> None:
    context = {"params": {"names": ["a", 7]}}
    fields = {"names": "{{ params.names }}", "metadata": "{{ {'batch': 7, 'v': '007'} }}"}
    operator = rendered(context, **fields)
    assert operator.names == ["a", "7"]
    assert operator.metadata == {"batch": "7", "v": "007"}
    assert rendered(context, native=False, **fields).names == "['a', 7]"


def test_which_fields_of_ours_may() -> None:
    for kind in (CdfWorkflowRunOperator, CdfTaskSensor):
        assert set(kind.collections_of_text) <= set(kind.text_fields) <= set(kind.template_fields)


def test_other_fields_are_rendered_as_the_dag_says() -> None:
    context = {"params": {"pump": 101}}
    fields: dict[str, Any] = {
        "version": "{{ params.pump }}",
        "input": {"pump": "{{ params.pump }}", "v": "1"},
    }
    operator = rendered(context, **fields)
    assert operator.version == "101"
    assert operator.input == {"pump": 101, "v": 1}
    assert rendered(context, native=False, **fields).input == {"pump": "101", "v": "1"}


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 2), reason="below Airflow 3.2 only a DAG may ask for them")
def test_an_operator_may_ask_for_native_values_by_itself() -> None:
    with DAG("plant") as dag:
        operator = Runs(
            task_id="run", version="1", input={"pump": "{{ 101 }}"}, render_template_as_native_obj=True
        )
    operator.render_template_fields({}, dag.get_template_env())
    assert operator.version == "1"
    assert operator.input == {"pump": 101}


def test_a_mapped_task_keeps_its_text_too() -> None:
    with DAG("plant", render_template_as_native_obj=True) as dag:
        mapped = Runs.partial(task_id="run", version="1", input={"a": "1"}).expand(names=[["007"]])
    operator = mapped.unmap({"names": ["007"]})
    operator._do_render_template_fields(operator, mapped.template_fields, {}, dag.get_template_env(), set())
    assert (operator.version, operator.names, operator.input) == ("1", ["007"], {"a": 1})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (0, "0"),
        (1.1, 1.1),  # 1.10 is the same number: refused later
        (True, True),
        (None, None),
        ("1", "1"),
        ({"a": 1, "b": 0.72, "c": True, 7: None}, {"a": "1", "b": "0.72", "c": True, "7": None}),
        ([1, "2", 3.5], ["1", "2", "3.5"]),
        ((1, 2), ["1", "2"]),
        (UUID(EXECUTION), EXECUTION),
        ({"batch": UUID(EXECUTION)}, {"batch": EXECUTION}),
    ],
    ids=repr,
)
def test_a_number_becomes_its_text_where_it_has_one(value: Any, text: Any) -> None:
    assert as_text(value) == text
    assert type(as_text(value)) is type(text)


@pytest.mark.parametrize("key", ["return_value", "execution_id"])
@pytest.mark.parametrize("make", [Runs, CdfWorkflowCancelOperator])
def test_an_id_that_no_task_has_left_is_none_however_it_is_asked_for(
    key: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DAG("plant") as dag:
        before = BaseOperator(task_id="before")
        operator = make(task_id="stop", execution_id=before.output[key])

    def resolve(*_: Any, **__: Any) -> Any:
        if key == "return_value":
            return None
        raise XComNotFound("plant", "before", key)

    monkeypatch.setattr(type(before.output), "resolve", resolve)
    operator.render_template_fields({}, dag.get_template_env())
    assert operator.execution_id is None


def test_an_id_from_an_xcom_may_be_a_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    with DAG("plant", render_template_as_native_obj=True) as dag:
        before = BaseOperator(task_id="before")
        operators = [
            Runs(task_id="run", execution_id=before.output),
            Runs(task_id="other", execution_id="{{ params.id }}"),
        ]
    monkeypatch.setattr(type(before.output), "resolve", lambda *_, **__: UUID(EXECUTION))
    for operator in operators:
        operator.render_template_fields({"params": {"id": UUID(EXECUTION)}}, dag.get_template_env())
    assert [one.execution_id for one in operators] == [EXECUTION] * 2


def test_an_id_from_an_xcom_is_not_rendered_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with DAG("plant") as dag:
        before = BaseOperator(task_id="before")
        operator = Runs(task_id="run", execution_id=before.output)
    monkeypatch.setattr(type(before.output), "resolve", lambda *_, **__: "{{ conn.cdf_default.password }}")
    operator.render_template_fields({}, dag.get_template_env())
    assert operator.execution_id == "{{ conn.cdf_default.password }}"


def test_another_error_of_an_xcom_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with DAG("plant") as dag:
        before = BaseOperator(task_id="before")
        operator = Runs(task_id="run", execution_id=before.output["execution_id"])

    def resolve(*_: Any, **__: Any) -> Any:
        raise ConnectionError("object storage: 503")

    monkeypatch.setattr(type(before.output), "resolve", resolve)
    with pytest.raises(ConnectionError):
        operator.render_template_fields({}, dag.get_template_env())


def test_a_callback_renders_to_text_too(monkeypatch: pytest.MonkeyPatch, ti: FakeTaskInstance) -> None:
    from airflow_provider_cdf.operators import reporting

    seen = []
    extra = '{"project": "plant", "token": "a-token-of-its-own"}'
    connection = f'{{"conn_type": "cdf", "host": "https://cdf.example.com", "extra": {extra}}}'
    monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", connection)
    monkeypatch.setattr(reporting, "report", lambda hook, ti, target, *_, **__: seen.append(target))
    with DAG("plant", render_template_as_native_obj=True):
        operator = CdfTaskUpdateOperator(
            task_id="report",
            execution_id="{{ id }}",
            task_external_id="2024_01",
            output={"a": "{{ nothing.x }}"},
        )
    report_failure({"ti": ti, "task": operator, "id": UNKNOWN})
    assert seen == [reporting.Target(UNKNOWN, "2024_01")]


# -- while a DAG file is parsed -----------------------------------------------------------------------------


def make(**arguments: Any) -> CdfTaskUpdateOperator:
    return CdfTaskUpdateOperator(
        task_id="report", **{"execution_id": UNKNOWN, "task_external_id": "approve", **arguments}
    )


def make_mapped(**arguments: Any) -> Any:
    partial = CdfTaskUpdateOperator.partial(task_id="report", **{"task_external_id": "approve", **arguments})
    return partial if "execution_id" in arguments else partial.expand(execution_id=[UNKNOWN])


def make_expanded(**arguments: Any) -> Any:
    arguments = {"execution_id": UNKNOWN, "task_external_id": "approve", **arguments}
    partial = CdfTaskUpdateOperator.partial(task_id="report")
    return partial.expand(**{name: [value] for name, value in arguments.items() if value is not None})


def make_expanded_kwargs(**arguments: Any) -> Any:
    arguments = {"task_external_id": "approve", **arguments}
    return CdfTaskUpdateOperator.partial(task_id="report").expand_kwargs(
        [{"execution_id": UNKNOWN, "task_external_id": "approve"}, {"execution_id": UNKNOWN, **arguments}]
    )


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown status": ({"status": "SUCCESS"}, "Did you mean COMPLETED?"),
    "misspelt status": ({"status": "COMPLETE"}, "Did you mean COMPLETED?"),
    "status of a sensor": ({"status": "in_progress"}, "It has COMPLETED, FAILED, "),
    "status for skipped work": ({"skipped_status": "skipped"}, "CDF has no status 'skipped' here."),
    "list": ({"output": ["a"]}, "The output must be a JSON object (a dict), not list."),
    "list with templates": ({"output": ["{{ a }}"]}, "The output must be a JSON object (a dict), not list."),
    "text": ({"output": '{"a": 1}'}, "output=task.output"),
    "number": ({"output": 7}, "not int"),
    "NaN": ({"output": {"a": [float("nan")]}}, "The output.a[0] is not JSON: it is nan."),
    "size": ({"output": {"a": "x" * 100_000}}, "100008 bytes"),
    "our key": ({"output": {"airflow": 1}}, "has the key 'airflow'"),
    "our key beside a template": ({"output": {"airflow": "{{ a }}"}}, "has the key 'airflow'"),
    "id of an execution": ({"execution_id": "abc"}, "execution_id must be a UUID. It is 'abc'."),
    "id of a task": (
        {"cdf_task_id": 7, "task_external_id": None, "execution_id": UNKNOWN},
        "cdf_task_id must be a UUID. It is '7'.",
    ),
}


@pytest.mark.parametrize("how", [make, make_mapped, make_expanded, make_expanded_kwargs])
@pytest.mark.parametrize(("arguments", "what"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_a_literal_is_seen_while_the_file_is_parsed(
    arguments: dict[str, Any], what: str, how: Any
) -> None:
    with DAG("plant"), pytest.raises(ValueError, match=r".") as caught:
        how(**arguments)
    assert what in str(caught.value)
    assert "Nothing was sent" not in str(caught.value)


@pytest.mark.parametrize(
    "make_one",
    [
        lambda **ids: CdfTaskSensor(task_id="a", task_external_id="score", **ids),
        lambda **ids: CdfWorkflowSensor(task_id="a", **ids),
        lambda **ids: CdfWorkflowCancelOperator(task_id="a", **ids),
        lambda **ids: CdfTaskOperator(task_id="a", task_external_id="score", python_callable=print, **ids),
        lambda **ids: CdfTaskNotifier(status="COMPLETED", task_external_id="score", **ids),
    ],
)
def test_an_id_that_is_none_is_seen_by_everything_that_takes_one(make_one: Any) -> None:
    with DAG("plant"), pytest.raises(ValueError, match=r"^execution_id must be a UUID\. It is 'abc'\. \["):
        make_one(execution_id="abc")
    with DAG("pipe"):
        make_one(execution_id="{{ abc }}")


#: What takes an address, and what it needs beside that.
MAPPABLE: dict[Any, dict[str, Any]] = {
    CdfTaskUpdateOperator: {},
    CdfTaskOperator: {"python_callable": print},
    CdfTaskSensor: {},
    CdfWorkflowSensor: {},
    CdfWorkflowCancelOperator: {},
}


@pytest.mark.parametrize("kind", MAPPABLE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("is_expanded", [False, True], ids=["fixed", "mapped"])
def test_a_mistake_in_an_address_is_seen_in_every_mapped_task(kind: Any, is_expanded: bool) -> None:
    more: dict[str, Any] = {"task_id": "a", **MAPPABLE[kind]}
    if is_expanded and "Workflow" not in kind.__name__:
        more["task_external_id"] = "score"

    def make_one(value: Any) -> None:
        if is_expanded:
            kind.partial(**more).expand(execution_id=[value])
        else:
            kind.partial(**more, execution_id=value)

    with DAG("plant"):
        run = BaseOperator(task_id="run")
        for value, words in ((run, r"write run\.output"), ("abc", "must be a UUID")):
            with pytest.raises(ValueError, match=rf"^execution_id .*{words}"):
                make_one(value)


@pytest.mark.parametrize("kind", [CdfTaskUpdateOperator, CdfTaskOperator], ids=lambda kind: kind.__name__)
def test_two_addresses_are_seen_in_every_mapped_task(kind: Any) -> None:
    two = {"task_external_id": "score", "cdf_task_id": UNKNOWN}
    with DAG("plant"):
        with pytest.raises(ValueError, match=r"^Give either task_external_id"):
            kind.partial(task_id="a", **two, **MAPPABLE[kind])
        with pytest.raises(ValueError, match=r"^Give either task_external_id"):
            kind.partial(task_id="a", **MAPPABLE[kind]).expand_kwargs([two])


@pytest.mark.parametrize("kind", [CdfTaskUpdateOperator, CdfTaskOperator], ids=lambda kind: kind.__name__)
def test_a_mapped_task_may_be_given_its_address_bit_by_bit(kind: Any) -> None:
    with DAG("plant"):
        run = BaseOperator(task_id="run").output
        partial = kind.partial(task_id="a", execution_id=run, **MAPPABLE[kind])
        assert partial.expand(task_external_id=["a", "b"]).task_id == "a"


@pytest.mark.parametrize("wrong", [{"execution_id": "abc"}, {"cdf_task_id": UNKNOWN}, {"execution_id": None}])
def test_a_mistake_in_an_address_is_seen_in_a_mapped_function(wrong: dict[str, Any]) -> None:
    @task.cdf_task(**{"execution_id": UNKNOWN, "task_external_id": "score", **wrong})
    def judge(name: str) -> None: ...

    with DAG("plant"), pytest.raises(ValueError, match=r"must be a UUID|Give either|needs the execution_id"):
        judge.expand(name=["a"])


def test_a_notifier_is_given_an_id_and_not_the_task_that_returns_it() -> None:
    with DAG("plant"):
        run: Any = BaseOperator(task_id="run")
    with pytest.raises(ValueError, match=r"write run\.output"):
        CdfTaskNotifier(status="COMPLETED", task_external_id="score", execution_id=run)


@pytest.mark.parametrize(
    ("fixed", "mapped"),
    [
        ({"task_external_id": "approve"}, {"output": [{"a": 1}]}),
        ({"output": {"a": 1}}, {"execution_id": [UNKNOWN]}),
        ({"task_external_id": "approve", "cdf_task_id": UNKNOWN}, {"execution_id": [UNKNOWN]}),
    ],
)
def test_a_mapped_report_that_names_no_task_is_seen_while_the_file_is_parsed(
    fixed: dict[str, Any], mapped: dict[str, Any]
) -> None:
    with DAG("plant"):
        judged = BaseOperator(task_id="judge").output
        for values in (mapped, dict.fromkeys(mapped, judged)):
            with pytest.raises(ValueError, match=r"^(Give either task_external_id|task_external_id needs)"):
                CdfTaskUpdateOperator.partial(task_id="report", **fixed).expand(**values)


def test_what_is_mapped_over_results_is_left_for_later() -> None:
    with DAG("plant"):
        judged = BaseOperator(task_id="judge").output
        partial = CdfTaskUpdateOperator.partial(task_id="report", task_external_id="approve")
        mapped = partial.expand(output=judged, execution_id=[UNKNOWN, judged])
        CdfTaskUpdateOperator.partial(task_id="all").expand_kwargs(judged)
    assert mapped.partial_kwargs["task_external_id"] == "approve"


@pytest.mark.parametrize("where", ["execution_id", "task_external_id", "output", "in output", "in a list"])
def test_an_operator_in_place_of_its_output_is_refused(where: str) -> None:
    with DAG("plant"):
        judge = BaseOperator(task_id="judge")
        values: dict[str, Any] = {
            "output": {"output": judge},
            "in output": {"output": {"risk": judge}},
            "in a list": {"output": {"risk": [judge]}},
        }
        with pytest.raises(ValueError, match=r"is the task 'judge' itself: write judge\.output"):
            make(**values.get(where, {where: judge}))


@pytest.mark.parametrize("name", ["workflow_external_id", "version", "input", "metadata", "task_outputs"])
def test_the_run_operator_looks_at_each_of_its_arguments(name: str) -> None:
    with DAG("plant"):
        value = BaseOperator(task_id="judge")
        arguments: dict[str, Any] = {"workflow_external_id": "pumps", "version": "1"}
        arguments[name] = {"a": value} if name in ("input", "metadata") else value
        with pytest.raises(ValueError, match=rf"^{name}.* is the task 'judge' itself: write judge\.output"):
            CdfWorkflowRunOperator(task_id="run", **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        lambda judge: {"status": "{{ status }}"},
        lambda judge: {"output": "{{ native }}"},
        lambda judge: {"output": judge.output},
        lambda judge: {"output": {"risk": judge.output, "all": [judge.output["x"]], "text": "{{ a }}"}},
        lambda judge: {"task_external_id": "{{ name }}"},
    ],
)
def test_what_is_no_literal_is_left_for_later(arguments: Any) -> None:
    with DAG("plant"):
        make(**arguments(BaseOperator(task_id="judge")))


def test_numbers_are_taken_as_their_text() -> None:
    with DAG("plant"):
        assert make(task_external_id=1).task_external_id == "1"


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("a", True),
        ("{{ a }}", False),
        ("{% if a %}", False),
        ({"a": [1, {"b": None}]}, True),
        ({"a": [1, {"b": "{{ c }}"}]}, False),
        ({"{{ a }}": 1}, False),
        (lambda context, jinja_env: {}, False),
    ],
)
def test_what_a_literal_is(value: Any, literal: bool) -> None:
    assert is_literal(value) is literal
