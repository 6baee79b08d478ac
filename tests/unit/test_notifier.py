"""CdfTaskNotifier against the emulator, called as Airflow calls it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from moved import EmptyOperator
from support import FakeTaskInstance, Project, call, function_task

from airflow_provider_cdf.cdf.errors import CdfError, CdfInputError
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks import lookup
from airflow_provider_cdf.notifications.task import CdfTaskNotifier
from airflow_provider_cdf.operators import callbacks, deadline, upstream
from airflow_provider_cdf.versions import HAS_STATES_IN_CALLBACKS, HAS_TASK_API

pytestmark = pytest.mark.usefixtures("cdf_default")

needs_task_api = pytest.mark.skipif(not HAS_TASK_API, reason="DAGs of Airflow 3")
needs_states = pytest.mark.skipif(
    not HAS_STATES_IN_CALLBACKS, reason="the DAG processor of this Airflow tells no states"
)

UNKNOWN = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def execution_id(project: Project) -> str:
    execution_id = project.run(project.define(function_task("score", waits=True)))
    project.task(execution_id, "score")
    return execution_id


def notifier(status: str, execution_id: str = "{{ id }}", **more: Any) -> CdfTaskNotifier:
    address = {"execution_id": execution_id, "task_external_id": "score"}
    return CdfTaskNotifier(**{**address, "status": status, **more})


def of_task(ti: FakeTaskInstance, execution_id: str, **more: Any) -> Any:
    """What Airflow hands to the callback of a task."""
    return {"ti": ti, "dag": DAG("plant"), "id": execution_id, **more}


def output(project: Project, execution_id: str, status: str) -> dict[str, Any]:
    found: dict[str, Any] = project.task(execution_id, "score", status)["output"]
    return found


def test_of_success_completes_with_its_output(
    execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    notifier("{{ 'completed' }}", output={"risk": "{{ 1 + 1 }}"})(of_task(ti, execution_id))

    assert output(project, execution_id, "COMPLETED")["risk"] == "2"
    assert "airflow" not in output(project, execution_id, "COMPLETED")


@pytest.mark.parametrize("status", ["FAILED", "FAILED_WITH_TERMINAL_ERROR"])
def test_of_a_tasks_failure_tells_the_error(
    status: str, execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    context = of_task(ti, execution_id, exception=RuntimeError("down"))
    notifier(status, output={"ticket": 7})(context)

    reported = output(project, execution_id, status)
    assert reported["ticket"] == 7
    assert reported["airflow"]["error"] == {"type": "RuntimeError", "message": "down"}
    assert reported["airflow"]["failed_tasks"][0]["task_id"] == ti.task_id


def test_of_a_lost_worker_tells_nothing_where_airflow_tries_again(
    execution_id: str, project: Project, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The DAG processor of Airflow 3.0 to 3.2 calls it all the same.
    monkeypatch.setattr(callbacks, "CALLS_BACK_ONCE", False)
    ti.max_tries, ti.hostname = 1, "worker-1"
    notifier("FAILED")(of_task(ti, execution_id))
    assert project.task(execution_id, "score")
    notifier("COMPLETED")(of_task(ti, execution_id))  # a callback of success
    assert project.task(execution_id, "score", "COMPLETED")


def test_what_a_task_raises_reaches_cdf_cut_masked_and_without_its_cause(
    execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    lookup.keep_out_of_logs("correct-horse-battery")
    error = ValueError("login\ncorrect-horse-battery " + "x" * 1000)
    error.__cause__ = RuntimeError("confidential")
    notifier("FAILED_WITH_TERMINAL_ERROR")(of_task(ti, execution_id, exception=error))

    reported = output(project, execution_id, "FAILED_WITH_TERMINAL_ERROR")
    message = reported["airflow"]["error"]["message"]
    assert message.startswith("login *** x")
    assert len(message) <= 500
    assert "confidential" not in str(reported)


def test_of_a_dag_run_tells_the_reason_and_needs_no_task(execution_id: str, project: Project) -> None:
    # All that Airflow hands over where it knows of no last task.
    context: Any = {"dag": DAG("plant"), "run_id": "manual__1", "reason": "timed_out", "id": execution_id}
    notifier("FAILED_WITH_TERMINAL_ERROR")(context)

    told = output(project, execution_id, "FAILED_WITH_TERMINAL_ERROR")["airflow"]
    assert (told["dag_id"], told["run_id"]) == ("plant", "manual__1")
    assert not told.keys() & {"task_id", "try_number", "failed_tasks", "failed_task_count"}
    assert told["error"]["message"] == ("The DAG run has failed: timed_out, as its dagrun_timeout is over.")


LOG = "https://airflow.example.com/dags/plant/runs/r/tasks/other?try_number=1"


def of_dag(execution_id: str, reason: str | None, *task_ids: str, **states: str) -> Any:
    """What Airflow hands to the callback of a DAG: any one of its tasks, whatever has become of it."""
    ti = FakeTaskInstance(run_id="r", task_id="other")
    ti.log_url = LOG  # type: ignore[attr-defined]
    for key, state in states.items():
        task_id = key.split("__")[0]  # a__1 is for the map index 1 of task a
        ti.states.setdefault(task_id, {})[key.replace("__", "_")] = state
    with DAG("plant") as dag:
        for task_id in task_ids:
            EmptyOperator(task_id=task_id)
    return of_task(ti, execution_id, reason=reason, dag=dag, run_id=ti.run_id)


@pytest.mark.parametrize("reason", ["timed_out", "task_failure", None])
def test_of_a_dag_blames_no_task_that_has_not_failed(
    reason: str | None, execution_id: str, project: Project
) -> None:
    context = of_dag(execution_id, reason, "other", "load", other="success", load="skipped")
    notifier("FAILED_WITH_TERMINAL_ERROR")(context)

    told = output(project, execution_id, "FAILED_WITH_TERMINAL_ERROR")["airflow"]
    assert (told["dag_id"], told["run_id"]) == ("plant", "r")
    assert told["url"] == "https://airflow.example.com/dags/plant/runs/r"
    assert not told.keys() & {"task_id", "try_number", "failed_tasks", "failed_task_count"}
    assert ("error" in told) == (reason is not None)


@needs_states
def test_of_a_dag_names_the_tasks_that_have_failed(execution_id: str, project: Project) -> None:
    states = {"other": "success", "load": "failed", "judge__0": "success", "judge__12": "failed"}
    context = of_dag(
        execution_id, "task_failure", "other", "load", "judge", "end", **states, end="upstream_failed"
    )
    notifier("FAILED_WITH_TERMINAL_ERROR")(context)

    told = output(project, execution_id, "FAILED_WITH_TERMINAL_ERROR")["airflow"]
    assert told["failed_task_count"] == 2
    judge, load = told["failed_tasks"]
    assert (judge["task_id"], judge["map_index"], judge["state"]) == ("judge", 12, "failed")
    assert judge["url"].endswith("/runs/r/tasks/judge/mapped/12")
    assert (load["task_id"], load["state"]) == ("load", "failed")
    assert "map_index" not in load
    assert told["error"]["message"] == "The DAG run has failed: task_failure."


@needs_task_api
@needs_states
def test_of_a_dag_names_the_right_one_of_two_with_one_name(execution_id: str, project: Project) -> None:
    context = of_dag(execution_id, "task_failure", "a", "a_1", "other", a__0="success", a_1="failed")
    notifier("FAILED_WITH_TERMINAL_ERROR")(context)

    told = output(project, execution_id, "FAILED_WITH_TERMINAL_ERROR")["airflow"]
    assert [(one["task_id"], one.get("map_index")) for one in told["failed_tasks"]] == [("a_1", None)]


@pytest.mark.parametrize("why", ["it is not asked", "it does not say"])
def test_of_a_dag_is_made_also_where_airflow_tells_no_states(
    why: str, execution_id: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = of_dag(execution_id, "task_failure", "load", load="failed")
    if why == "it is not asked":
        monkeypatch.setattr(upstream, "HAS_STATES_IN_CALLBACKS", False)
    else:
        context["ti"].states = None
    notifier("FAILED_WITH_TERMINAL_ERROR")(context)

    told = output(project, execution_id, "FAILED_WITH_TERMINAL_ERROR")["airflow"]
    assert told["error"]["message"] == "The DAG run has failed: task_failure."
    assert "failed_tasks" not in told


@pytest.mark.parametrize("state", ["success", "skipped"])
def test_of_a_task_that_has_not_failed_blames_it_not(
    state: str, execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    ti.state = state  # type: ignore[attr-defined]
    notifier("FAILED_WITH_TERMINAL_ERROR")(of_task(ti, execution_id))

    told = output(project, execution_id, "FAILED_WITH_TERMINAL_ERROR")["airflow"]
    assert told["task_id"] == ti.task_id
    assert "failed_tasks" not in told


@pytest.mark.parametrize("is_awaited", [False, True], ids=["called", "awaited"])
def test_reports_to_the_execution_of_each_run_that_it_is_called_for(
    is_awaited: bool, project: Project, ti: FakeTaskInstance
) -> None:
    # Airflow's DAG processor has one DAG object, and one notifier, for the callbacks of all DAG runs.
    workflow = project.define(function_task("score", waits=True))
    execution_ids = [project.run(workflow) for _ in range(2)]
    one = notifier("COMPLETED", output={"id": "{{ id }}"})

    async def awaited(context: Any) -> None:
        one.context = context
        await one

    for execution_id in execution_ids:
        project.task(execution_id, "score")
        context = of_task(ti, execution_id)
        if is_awaited and hasattr(one, "__await__"):  # Airflow 3.1 or later
            asyncio.run(awaited(context))
        else:
            one(context)
    assert [output(project, each, "COMPLETED")["id"] for each in execution_ids] == execution_ids


def test_leaves_a_task_alone_that_has_been_reported_on(
    execution_id: str, project: Project, ti: FakeTaskInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    project.update(project.task(execution_id, "score")["id"], "COMPLETED")

    notifier("FAILED_WITH_TERMINAL_ERROR")(of_task(ti, execution_id))

    assert "already ended COMPLETED" in capsys.readouterr().out
    assert output(project, execution_id, "COMPLETED") is not None


def test_that_could_not_report_says_so(
    cdf: CdfEmulator, execution_id: str, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "CALLBACK_PATIENCE", 0.5)
    cdf.faults.add("POST", "*/update", status=503, times=50)
    try:
        with pytest.raises(CdfError, match="may still wait for a report"):
            notifier("COMPLETED", execution_id).notify(of_task(ti, execution_id))
    finally:
        cdf.faults.clear()


@pytest.mark.parametrize("is_native", [False, True])
def test_ids_and_status_stay_text_where_the_dag_renders_natively(
    is_native: bool, project: Project, ti: FakeTaskInstance
) -> None:
    # As a Python value, "2024_01" is 202401.
    execution_id = project.run(project.define(function_task("2024_01", waits=True)))
    project.task(execution_id, "2024_01")
    context = of_task(ti, execution_id)
    context["dag"] = DAG("plant", render_template_as_native_obj=is_native)
    notifier("COMPLETED", task_external_id="2024_01", output={"n": "{{ 1 }}"})(context)
    reported = project.task(execution_id, "2024_01", "COMPLETED")["output"]
    assert reported["n"] == (1 if is_native else "1")


@needs_task_api
@pytest.mark.parametrize("is_native", [False, True])
def test_renders_by_itself_where_the_dag_is_one_that_cannot(
    is_native: bool, project: Project, ti: FakeTaskInstance
) -> None:
    execution_id = project.run(project.define(function_task("2024_01", waits=True)))
    project.task(execution_id, "2024_01")
    # As dag.test() of Airflow 3.3 calls the callbacks of a DAG.
    stored = SimpleNamespace(dag_id="plant", render_template_as_native_obj=is_native)
    context = of_task(ti, execution_id, dag=stored)
    output = {"n": "{{ 1 }}", "dag": "{{ dag.dag_id }}", "day": "{{ day | ds }}"}
    context["day"] = datetime(2026, 1, 2, tzinfo=UTC)
    notifier("COMPLETED", task_external_id="{{ '2024_01' }}", output=output)(context)
    reported = project.task(execution_id, "2024_01", "COMPLETED")["output"]
    assert reported["n"] == (1 if is_native else "1")
    assert (reported["dag"], reported["day"]) == ("plant", "2026-01-02")
    assert context["dag"] is stored


@needs_task_api
def test_reports_no_success_with_a_value_that_such_a_dag_does_not_know(
    execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    stored = SimpleNamespace(dag_id="plant", render_template_as_native_obj=False)
    with pytest.raises(CdfError, match="cannot be rendered: 'risk' is undefined"):
        call(notifier("COMPLETED", output={"risk": "{{ risk }}"}), of_task(ti, execution_id, dag=stored))
    assert output(project, execution_id, "FAILED_WITH_TERMINAL_ERROR")


def test_numbers_become_text_where_the_dag_renders_natively(
    execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    context = of_task(ti, execution_id)
    context["dag"] = DAG("plant", render_template_as_native_obj=True)
    with pytest.raises(CdfError, match="'7'"):
        call(notifier("COMPLETED", cdf_conn_id="{{ 7 }}"), context)


#: Outputs that CDF does not take, and what is said of them.
UNUSABLE: dict[str, tuple[Any, str]] = {
    "own key": ({"airflow": {}}, "has the key 'airflow'"),
    "no JSON": ({"risk": {1}}, "output.risk"),
    "too large": ({"risk": "{{ 'x' * 100001 }}"}, "100000"),
    "no value": ({"risk": "{{ nothing.of_that_kind }}"}, "cannot be rendered"),
}


@pytest.mark.parametrize(("value", "said"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_output_that_cdf_does_not_take_is_reported_as_a_failure(
    value: Any, said: str, execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    with pytest.raises(CdfError, match="task was set to FAILED_WITH_TERMINAL_ERROR") as error:
        call(notifier("COMPLETED", output=value), of_task(ti, execution_id))
    assert said in str(error.value)
    assert "Nothing was sent" not in str(error.value)
    reported = output(project, execution_id, "FAILED_WITH_TERMINAL_ERROR")
    assert said in reported["airflow"]["error"]["message"]
    assert "failed_tasks" not in reported["airflow"]  # the task has succeeded
    assert "risk" not in reported


@pytest.mark.parametrize("size", [99_990, 100_001])
def test_an_output_too_large_for_a_failure_is_left_out_of_it(
    size: int, execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    context = of_task(ti, execution_id, exception=RuntimeError("down"))
    one = notifier("FAILED", output={"a": f"{{{{ 'x' * {size} }}}}"})
    if size > 100_000:
        with pytest.raises(CdfError, match="task was set to FAILED"):
            call(one, context)
    else:
        call(one, context)
    reported = output(project, execution_id, "FAILED")
    assert reported["airflow"]["error"] == {"type": "RuntimeError", "message": "down"}
    assert "a" not in reported


def test_one_whose_address_cannot_be_rendered_says_that_cdf_waits(ti: FakeTaskInstance) -> None:
    with pytest.raises(CdfError, match=r"^The CDF task may still wait .* undefined"):
        call(notifier("COMPLETED", "{{ nothing.of_that_kind }}"), of_task(ti, ""))


def test_a_status_that_cdf_does_not_have_says_that_cdf_waits(execution_id: str, ti: FakeTaskInstance) -> None:
    with pytest.raises(CdfInputError, match="may still wait"):
        call(notifier("{{ 'done' }}"), of_task(ti, execution_id))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"status": "COMPLETED"}, "task_external_id"),
        ({"status": "COMPLETED", "task_external_id": "score"}, "execution_id"),
        ({"status": "DONE", "cdf_task_id": UNKNOWN}, "Did you mean COMPLETED"),
    ],
)
def test_refuses_mistakes_while_the_file_is_read(arguments: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CdfTaskNotifier(**arguments)
