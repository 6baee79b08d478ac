"""What a report tells CDF about Airflow: one schema, under the one key ``airflow`` of the task's output."""

from __future__ import annotations

import json
from collections import UserList
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    TriggerRule,
    chain,
    task_group,
)
from moved import FAIL_FAST, EmptyOperator
from operator_support import context
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.cdf.checks import MAX_JSON_BYTES
from airflow_provider_cdf.cdf.errors import CdfInputError, CdfNothingToReportToError
from airflow_provider_cdf.hooks import lookup
from airflow_provider_cdf.operators import upstream
from airflow_provider_cdf.operators.callbacks import report_failure
from airflow_provider_cdf.operators.reporting import MAX_NAMED, failure, in_words
from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator
from airflow_provider_cdf.operators.upstream import Upstream
from airflow_provider_cdf.operators.workflow import CdfWorkflowCancelOperator

UNKNOWN = "11111111-2222-4333-8444-555555555555"

pytestmark = pytest.mark.usefixtures("cdf_default")

BASE = "https://airflow.example.com/plant-1"


@dataclass
class Instance(FakeTaskInstance):
    """A task instance that knows its own log, as Airflow's do."""

    log_url: str = f"{BASE}/dags/plant/runs/x/tasks/report?try_number=2"


@pytest.fixture
def execution_id(project: Project) -> str:
    return project.run(project.define(function_task("approve", waits=True)))


@pytest.fixture
def ti() -> Instance:
    return Instance(run_id="manual__2026-11-26T09:00:00+00:00", task_id="report", try_number=2)


def make(execution_id: Any, **arguments: Any) -> CdfTaskUpdateOperator:
    return CdfTaskUpdateOperator(
        task_id="report", execution_id=execution_id, task_external_id="approve", **arguments
    )


def states(ti: FakeTaskInstance, **of: str) -> None:
    ti.states = {task_id: {task_id: state} for task_id, state in of.items()}


def told(project: Project, execution_id: str, status: str = "FAILED_WITH_TERMINAL_ERROR") -> dict[str, Any]:
    output = project.task(execution_id, "approve", status)["output"]
    assert isinstance(output["airflow"], dict)
    return output["airflow"]


def test_the_task_that_failed_is_named_through_any_number_that_could_not_run(
    execution_id: str, project: Project, ti: Instance
) -> None:
    with DAG("plant"):
        operator = make(execution_id)
        chain(
            *(EmptyOperator(task_id=name) for name in ("run", "load", "clean", "model", "judge")),
            operator,
        )
        EmptyOperator(task_id="aside") >> operator
    more = {"clean": "upstream_failed", "model": "upstream_failed", "judge": "upstream_failed"}
    states(ti, run="success", load="failed", aside="success", **more)

    with pytest.raises(AirflowFailException) as caught:
        operator.execute({"ti": ti})

    run_url = f"{BASE}/dags/plant/runs/manual__2026-11-26T09%3A00%3A00%2B00%3A00"
    assert told(project, execution_id) == {
        "dag_id": "plant",
        "run_id": ti.run_id,
        "task_id": "report",
        "try_number": 2,
        "url": run_url,
        "failed_task_count": 1,
        "failed_tasks": [{"task_id": "load", "state": "failed", "url": f"{run_url}/tasks/load"}],
    }
    # The same in Airflow's own log, what is wrong first.
    message = str(caught.value)
    assert message.startswith("The work has failed: Airflow task 'load' (failed). CDF's task was set to ")
    assert f"{run_url}/tasks/load" in message
    assert "judge" not in message


def test_several_causes_are_named_each_once(execution_id: str, project: Project, ti: Instance) -> None:
    with DAG("plant"):
        operator = make(execution_id)
        left, right, top = (EmptyOperator(task_id=name) for name in ("left", "right", "top"))
        top >> [left, right] >> operator
        EmptyOperator(task_id="other") >> right
    states(ti, top="failed", other="failed", left="upstream_failed", right="upstream_failed")

    with pytest.raises(AirflowFailException, match=r"Airflow tasks 'other' \(failed\), 'top' \(failed\)"):
        operator.execute({"ti": ti})

    assert [one["task_id"] for one in told(project, execution_id)["failed_tasks"]] == ["other", "top"]


def test_one_that_could_not_run_with_nothing_to_blame_is_named_itself(
    execution_id: str, project: Project, ti: Instance
) -> None:
    with DAG("plant"):
        operator = make(execution_id)
        EmptyOperator(task_id="top") >> EmptyOperator(task_id="judge") >> operator
    states(ti, top="success", judge="upstream_failed")

    with pytest.raises(AirflowFailException):
        operator.execute({"ti": ti})

    (one,) = told(project, execution_id)["failed_tasks"]
    assert (one["task_id"], one["state"]) == ("judge", "upstream_failed")


@pytest.mark.parametrize("index", [0, 1])
def test_in_a_mapped_group_only_the_own_instances_are_followed(
    execution_id: str, project: Project, ti: Instance, index: int
) -> None:
    made = []
    with DAG("plant"):

        @task_group
        def pump(number: int) -> None:
            operator = make(execution_id)
            made.append(operator)
            EmptyOperator(task_id="load") >> EmptyOperator(task_id="judge") >> operator

        pump.expand(number=[1, 2])
    ti.map_index = index
    ti.states = {
        "pump.load": {"pump.load_0": "failed", "pump.load_1": "failed"},
        "pump.judge": {"pump.judge_0": "upstream_failed", "pump.judge_1": "upstream_failed"},
    }

    with pytest.raises(AirflowFailException):
        made[0].execute({"ti": ti})

    says = told(project, execution_id)
    assert says["map_index"] == index
    assert [(one["task_id"], one["map_index"]) for one in says["failed_tasks"]] == [("pump.load", index)]
    assert says["failed_tasks"][0]["url"].endswith(f"/tasks/pump.load/mapped/{index}")


def test_on_airflow_2_tries_and_logs_are_told_too(
    execution_id: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "HAS_TASK_API", False)

    class OldInstance:
        dag_id, run_id, task_id, map_index, try_number, max_tries = "plant", "r 1", "report", -1, 1, 0
        start_date = None
        log_url = f"{BASE}/dags/plant/grid?dag_run_id=r+1&task_id=report&tab=logs"

        @dataclass
        class OtherInstance:
            task_id: str
            state: str | None
            try_number: int = 3
            map_index: int = -1
            log_url: str = f"{BASE}/dags/plant/grid?dag_run_id=r+1&task_id=load&tab=logs"

        class dag_run:  # noqa: N801 - an attribute of Airflow's
            @staticmethod
            def get_task_instances() -> list[Any]:
                return [OldInstance.OtherInstance("load", "failed"), OldInstance.OtherInstance("x", "failed")]

    with DAG("plant"):
        operator = make(execution_id)
        EmptyOperator(task_id="load") >> operator

    with pytest.raises(AirflowFailException):
        operator.execute({"ti": OldInstance()})

    says = told(project, execution_id)
    assert says["url"] == f"{BASE}/dags/plant/grid?dag_run_id=r%201"
    assert says["failed_tasks"] == [
        {
            "task_id": "load",
            "state": "failed",
            "try_number": 3,
            "url": f"{BASE}/dags/plant/grid?dag_run_id=r+1&task_id=load&tab=logs",
        }
    ]


@pytest.mark.parametrize(
    ("index", "mapped"), [(-1, ""), (None, ""), (3, "&map_index=3")], ids=["plain", "no index", "mapped"]
)
def test_a_task_that_names_itself_links_to_its_log_on_airflow_2_too(index: int | None, mapped: str) -> None:
    # As TaskInstance.log_url of 2.11 has it.
    date = "&base_date=2026-11-26T09%3A00%3A00.000000%2B0000"
    log_url = f"{BASE}/dags/plant/grid?dag_run_id=r%201&task_id=load{mapped}{date}&tab=logs"
    ti: Any = Instance(run_id="r 1", task_id="load", log_url=log_url)
    ti.map_index = index

    said = failure(ti, [], ValueError("down"))["airflow"]

    assert said["url"] == f"{BASE}/dags/plant/grid?dag_run_id=r%201"
    assert said["failed_tasks"][0]["url"] == log_url


def test_where_airflow_tells_no_address_there_are_no_links(execution_id: str, project: Project) -> None:
    with DAG("plant"):
        operator = make(execution_id)
        EmptyOperator(task_id="load") >> operator
    ti = FakeTaskInstance(task_id="report")
    states(ti, load="failed")

    with pytest.raises(AirflowFailException):
        operator.execute({"ti": ti})

    assert "url" not in json.dumps(told(project, execution_id))


@pytest.mark.parametrize("letter", ["x", "ü"])
def test_however_long_the_names_are_it_fits(letter: str) -> None:
    # Of signs that are not ASCII, a link has six for each.
    name = letter * 250
    ti = Instance(dag_id=name, run_id=name, task_id=name, log_url=f"{BASE}/dags/{name}/runs/x/tasks/x")
    url = f"{BASE}/dags/{'%C3%BC' * 750}"
    failed = [Upstream(name, index, "failed", 9, url) for index in range(1000)]

    said = failure(ti, failed, ValueError(letter * 100_000))

    assert len(json.dumps(said, ensure_ascii=False).encode()) <= MAX_JSON_BYTES
    assert said["airflow"]["failed_task_count"] == 1000
    assert MAX_NAMED / 4 <= len(said["airflow"]["failed_tasks"]) <= MAX_NAMED


def test_the_log_names_as_many_as_cdf_is_told_and_counts_the_rest() -> None:
    failed = [Upstream("judge", index, "failed") for index in range(MAX_NAMED + 5)]
    words = in_words(failed)
    assert words.startswith("'judge[0]' (failed), 'judge[1]' (failed)")
    assert words.endswith(f"'judge[{MAX_NAMED - 1}]' (failed) and 5 more")
    assert "more" not in in_words(failed[:MAX_NAMED])


# -- skipped work -------------------------------------------------------------------------------------------


def test_where_only_the_run_has_succeeded_no_work_was_done(
    execution_id: str, project: Project, ti: Instance
) -> None:
    with DAG("plant"):
        run = EmptyOperator(task_id="run")
        operator = make(run.output, output={"risk": 1})
        EmptyOperator(task_id="judge") >> operator
    assert operator.upstream_task_ids == {"run", "judge"}
    operator = operator.prepare_for_execution()  # as Airflow does, before it renders
    operator.execution_id = execution_id
    states(ti, run="success", judge="skipped")

    with pytest.raises(AirflowFailException, match=r"^The work has not been done: .*'judge' \(skipped\)"):
        operator.execute({"ti": ti})

    assert told(project, execution_id)["failed_task_count"] == 1


def skipped(execution_id: str, ti: Instance, *, teardown: bool, **more: Any) -> CdfTaskUpdateOperator:
    """A report behind work that was skipped, because of a task that was skipped before it had run."""
    with DAG("plant"):
        operator = make(execution_id, output={"risk": 1}, **more)
        chain(*(EmptyOperator(task_id=name) for name in ("load", "judge")), operator)
        run = EmptyOperator(task_id="run")
        run >> operator
        if teardown:
            operator.as_teardown(setups=run)
    states(ti, run="success", load="skipped", judge="skipped")
    return operator


def test_skipped_work_is_done_and_marked(execution_id: str, project: Project, ti: Instance) -> None:
    skipped(execution_id, ti, teardown=False).execute({"ti": ti})

    says = told(project, execution_id, "COMPLETED")
    assert says["skipped"] is True
    assert says["url"].startswith(BASE)
    assert project.task(execution_id, "approve", "COMPLETED")["output"]["risk"] == 1


def test_work_that_was_done_is_not_marked(execution_id: str, project: Project, ti: Instance) -> None:
    with DAG("plant"):
        operator = make(execution_id, output={"risk": 1})
        EmptyOperator(task_id="judge") >> operator
    states(ti, judge="success")

    operator.execute({"ti": ti})

    assert "airflow" not in project.task(execution_id, "approve", "COMPLETED")["output"]


def test_in_a_teardown_skipped_work_is_not_done(execution_id: str, project: Project, ti: Instance) -> None:
    with pytest.raises(AirflowFailException, match=r"^The work has not been done: .*'load' \(skipped\)"):
        skipped(execution_id, ti, teardown=True).execute({"ti": ti})

    says = told(project, execution_id)
    assert [(one["task_id"], one["state"]) for one in says["failed_tasks"]] == [("load", "skipped")]


@pytest.mark.parametrize("teardown", [True, False])
@pytest.mark.parametrize("status", ["completed", "FAILED_WITH_TERMINAL_ERROR", "FAILED"])
def test_what_skipped_work_means_can_be_chosen(
    teardown: bool, status: str, execution_id: str, project: Project, ti: Instance
) -> None:
    operator = skipped(execution_id, ti, teardown=teardown, skipped_status=status)
    if status == "completed":
        operator.execute({"ti": ti})
        assert told(project, execution_id, "COMPLETED")["skipped"] is True
    else:
        with pytest.raises(AirflowFailException):
            operator.execute({"ti": ti})
        assert told(project, execution_id, status)["failed_tasks"]


def test_failed_work_is_failed_whatever_skipped_work_means(
    execution_id: str, project: Project, ti: Instance
) -> None:
    operator = skipped(execution_id, ti, teardown=True, skipped_status="COMPLETED")
    states(ti, run="success", load="failed", judge="skipped")
    ti.states["run"] = {"run": "failed"}

    with pytest.raises(AirflowFailException):
        operator.execute({"ti": ti})

    assert [one["task_id"] for one in told(project, execution_id)["failed_tasks"]] == ["run"]


@pytest.mark.parametrize("missing", [None, "None", ""])
def test_where_the_run_was_skipped_the_report_is_too(missing: Any, ti: Instance) -> None:
    with DAG("plant"):
        operator = make("{{ run }}")
        EmptyOperator(task_id="run") >> operator
    operator.execution_id = missing
    states(ti, run="skipped")

    with pytest.raises(AirflowSkipException):
        operator.execute({"ti": ti})


def test_where_the_run_failed_there_is_nothing_to_report_to(ti: Instance) -> None:
    with DAG("plant"):
        operator = make("{{ run }}")
        EmptyOperator(task_id="run") >> operator
    operator.execution_id = None
    states(ti, run="failed")

    with pytest.raises(CdfNothingToReportToError, match=r"'run' \(failed\)"):
        operator.execute({"ti": ti})


# -- how it runs however the work ends ----------------------------------------------------------------------


def test_in_a_fail_fast_dag_it_can_be_a_teardown() -> None:
    with DAG("plant", **FAIL_FAST) as dag:
        run = EmptyOperator(task_id="run")
        operator = make("{{ run }}").as_teardown(setups=run)
    dag.validate()
    assert operator.trigger_rule == TriggerRule.ALL_DONE_SETUP_SUCCESS


def test_in_a_fail_fast_dag_a_mapped_one_can_be_a_teardown() -> None:
    with DAG("plant", **FAIL_FAST) as dag:
        run = EmptyOperator(task_id="run")
        mapped = CdfTaskUpdateOperator.partial(task_id="report", task_external_id="approve").expand(
            execution_id=[UNKNOWN, UNKNOWN]
        )
        mapped.as_teardown(setups=run)
    dag.validate()
    assert mapped.trigger_rule == TriggerRule.ALL_DONE_SETUP_SUCCESS
    assert mapped.unmap({"execution_id": UNKNOWN}).status is None


def test_in_a_fail_fast_dag_a_plain_one_says_that_it_will_not_be_run(
    execution_id: str, ti: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DAG("plant", **FAIL_FAST):
        operator = make(execution_id)
    warnings: list[str] = []
    monkeypatch.setattr(operator.log, "warning", lambda text, *_: warnings.append(text))
    operator.execute({"ti": ti})
    assert any("as_teardown" in warning for warning in warnings)


def test_a_status_that_turns_out_to_be_none_is_no_matter_of_fail_fast(
    execution_id: str, ti: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DAG("plant"):
        operator = make(execution_id, status="{{ of another task }}")
    operator.status = None
    warnings: list[str] = []
    monkeypatch.setattr(operator.log, "warning", lambda text, *_: warnings.append(text))
    operator.execute({"ti": ti})
    assert not any("fail_fast" in warning for warning in warnings)
    assert any("trigger_rule='all_done'" in warning for warning in warnings)


def test_a_mapped_report_of_a_dag_without_fail_fast_runs_however_the_work_ends() -> None:
    with DAG("plant"):
        mapped = CdfTaskUpdateOperator.partial(task_id="report", task_external_id="approve").expand(
            execution_id=[UNKNOWN, UNKNOWN]
        )
    assert mapped.trigger_rule == TriggerRule.ALL_DONE


def test_a_mapped_report_of_a_given_status_runs_as_any_other_task() -> None:
    with DAG("plant"):
        mapped = CdfTaskUpdateOperator.partial(
            task_id="report", task_external_id="approve", status="FAILED"
        ).expand(execution_id=[UNKNOWN, UNKNOWN])
    assert mapped.trigger_rule == TriggerRule.ALL_SUCCESS


def mapped_over_a_status(execution_id: str, status: Any, ti: Instance, how: str) -> Any:
    """Return the one operator of a report that gets its status by index, behind a task ``work``."""
    with DAG("plant"):
        partial = CdfTaskUpdateOperator.partial(
            task_id="report", task_external_id="approve", execution_id=execution_id
        )
        if how == "expand":
            mapped = partial.expand(status=[status])
        else:
            # No list, in which a status that CDF does not have is refused while the file is parsed.
            mapped = partial.expand_kwargs(UserList([{"status": status, "output": {"a": 1}}]))
        EmptyOperator(task_id="work") >> mapped
    assert mapped.trigger_rule == TriggerRule.ALL_DONE
    ti.map_index = 0
    about = context(ti, mapped)
    mapped.render_template_fields(about)
    return about["task"]


@pytest.mark.parametrize("how", ["expand", "expand_kwargs"])
@pytest.mark.parametrize("status", ["COMPLETED", "FAILED_WITH_TERMINAL_ERROR"])
def test_a_status_may_be_expanded_over(
    status: str, how: str, execution_id: str, project: Project, ti: Instance
) -> None:
    operator = mapped_over_a_status(execution_id, status, ti, how)
    states(ti, work="success")
    operator.execute({"ti": ti})
    assert project.task(execution_id, "approve", status)


def test_a_status_that_is_expanded_over_is_none_of_work_that_has_failed(
    execution_id: str, project: Project, ti: Instance
) -> None:
    operator = mapped_over_a_status(execution_id, "COMPLETED", ti, "expand")
    states(ti, work="failed")
    with pytest.raises(AirflowFailException, match="work"):
        operator.execute({"ti": ti})
    assert project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")


def test_a_status_that_is_expanded_over_and_is_none_of_cdfs_is_reported_as_a_failure(
    execution_id: str, project: Project, ti: Instance
) -> None:
    operator = mapped_over_a_status(execution_id, "SUCCESS", ti, "expand_kwargs")
    states(ti, work="success")
    with pytest.raises(AirflowFailException, match="SUCCESS"):
        operator.execute({"ti": ti})
    assert project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")


@pytest.mark.parametrize("rule", ["all_success", "none_failed", "one_failed"])
def test_another_rule_is_refused_without_a_status(rule: str) -> None:
    with DAG("plant"):
        with pytest.raises(ValueError, match="all_done"):
            make("{{ run }}", trigger_rule=rule)
        with pytest.raises(ValueError, match="all_done"):
            CdfTaskUpdateOperator.partial(task_id="m", task_external_id="a", trigger_rule=rule)


def test_both_ends_may_stand_behind_a_setup_as_teardowns() -> None:
    with DAG("plant") as dag:
        run = EmptyOperator(task_id="run")
        report = make(run.output)
        stop = CdfWorkflowCancelOperator(task_id="stop", execution_id=run.output, unless_succeeded=True)
        report >> stop
        report.as_teardown(setups=run)
        stop.as_teardown(setups=run)
    dag.validate()
    dag.validate_setup_teardown()


@pytest.mark.parametrize(
    ("state", "status"), [("success", "RUNNING"), ("failed", "TERMINATED"), ("skipped", "TERMINATED")]
)
def test_a_cancellation_that_is_for_failures_leaves_what_has_been_reported_alone(
    state: str, status: str, execution_id: str, project: Project, ti: Instance
) -> None:
    with DAG("plant"):
        stop = CdfWorkflowCancelOperator(task_id="stop", execution_id=execution_id, unless_succeeded=True)
        EmptyOperator(task_id="report") >> stop
    states(ti, report=state)

    stop.execute({"ti": ti})

    assert project.execution(execution_id)["status"] == status


# -- the last word of a task that dies ----------------------------------------------------------------------


def test_the_callback_names_the_task_and_the_error(execution_id: str, project: Project, ti: Instance) -> None:
    with DAG("plant"):
        operator = make(execution_id)

    report_failure({"ti": ti, "task": operator, "exception": RuntimeError("no\nmemory")})

    says = told(project, execution_id)
    assert says["error"] == {"type": "RuntimeError", "message": "no memory"}
    assert says["failed_task_count"] == 1
    (one,) = says["failed_tasks"]
    assert one == {"task_id": "report", "state": "failed", "try_number": 2, "url": one["url"]}
    assert one["url"].endswith("/tasks/report")


def test_the_callback_of_a_mapped_task_names_its_map_index(
    execution_id: str, project: Project, ti: Instance
) -> None:
    ti.map_index = 3
    with DAG("plant"):
        operator = make(execution_id)

    report_failure({"ti": ti, "task": operator})

    (one,) = told(project, execution_id)["failed_tasks"]
    assert (one["task_id"], one["map_index"]) == ("report", 3)


def test_what_airflow_masks_is_masked_for_cdf_too(execution_id: str, project: Project, ti: Instance) -> None:
    lookup.keep_out_of_logs("correct-horse-battery")
    with DAG("plant"):
        operator = make(execution_id)

    report_failure({"ti": ti, "task": operator, "exception": RuntimeError("login correct-horse-battery")})

    assert told(project, execution_id)["error"]["message"] == "login ***"


def test_the_callback_says_nothing_where_a_report_was_made(project: Project, ti: Instance) -> None:
    # The attempt that waits now is CDF's next one.
    execution_id = project.run(project.define(function_task("approve", waits=True, retries=1)))
    project.task(execution_id, "approve")
    with DAG("plant"):
        operator = make(execution_id, status="FAILED")
    operator.execute({"ti": ti})
    second = project.task(execution_id, "approve")["id"]

    report_failure({"ti": ti, "task": operator})

    assert project.task(execution_id, "approve", "IN_PROGRESS")["id"] == second


def test_a_status_that_is_wrong_says_what_becomes_of_the_task(execution_id: str, ti: Instance) -> None:
    operator = make(execution_id, status="{{ status }}")
    operator.status = "SUCCESS"
    with pytest.raises(CdfInputError, match=r"Did you mean COMPLETED\?.* CDF is told") as caught:
        operator.execute({"ti": ti})
    assert "Nothing was sent" not in str(caught.value)
