"""Each example DAG runs in this process against the emulator, from its own file."""

from __future__ import annotations

import copy
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moved import DagBag
from support import Project

from airflow_provider_cdf.demo import FUNCTIONS, examples_folder
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.versions import AIRFLOW_VERSION, HAS_TASK_API

#: All but those that work on what they are handed over, by an inbox or by a CDF function.
EXAMPLES = sorted(
    file for file in examples_folder().glob("*.py") if file.stem not in ("cdf_inbox_work", "cdf_called")
)
#: They need watchers.
ONLY_AIRFLOW_3 = ("cdf_after_workflow", "cdf_inbox_watched")


@pytest.fixture(scope="module")
def cdf() -> Iterator[CdfEmulator]:
    with CdfEmulator(workflows=[examples_folder() / "workflows"], functions=FUNCTIONS) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def project(cdf: CdfEmulator) -> Project:
    return Project(cdf)


def read_dag(file: Path) -> Any:
    bag = DagBag(str(file))
    assert not bag.import_errors
    (dag,) = bag.dags.values()
    return dag


def run_dag(file: Path, *, retries: int | None = None, **arguments: Any) -> Any:
    dag = read_dag(file)
    for task in dag.tasks if retries is not None else []:
        if hasattr(task, "partial_kwargs"):  # it is mapped
            task.partial_kwargs["retries"] = retries
        else:
            task.retries = retries
    return dag.test(**arguments)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_dag_succeeds(
    file: Path, airflow_db: None, cdf_default: CdfEmulator, project: Project
) -> None:
    if file.stem in ONLY_AIRFLOW_3 and not HAS_TASK_API:
        pytest.skip("Airflow 2 has no watchers")
    assert run_dag(file).state == "success"


def test_one_dag_object_may_run_twice(airflow_db: None, cdf_default: CdfEmulator, project: Project) -> None:
    dag = read_dag(examples_folder() / "cdf_roundtrip.py")
    for run in (dag.test(), dag.test()):
        assert run.state == "success"
        assert project.task(execution_of(project, run)["id"], "score", "COMPLETED")


def test_roundtrip_carries_the_value_from_cdf_through_airflow_and_back(
    airflow_db: None, cdf_default: CdfEmulator, project: Project
) -> None:
    run = run_dag(examples_folder() / "cdf_roundtrip.py")

    (execution,) = [
        e for e in project.executions("pump_health") if e["metadata"]["airflow_run_id"] == run.run_id
    ]
    tasks = {task["externalId"]: task for task in project.execution(execution["id"])["executedTasks"]}
    assert execution["status"] == "COMPLETED"
    assert tasks["score"]["output"]["risk"] == 0.72
    assert tasks["publish"]["input"]["function"]["data"] == {"pump": "P-101", "risk": 0.72}


def test_roundtrip_tells_cdf_when_the_work_in_airflow_fails(
    airflow_db: None, cdf_default: CdfEmulator, project: Project
) -> None:
    run = run_dag_where(cdf_default, "cdf_roundtrip", read_sensors=BROKEN)

    assert run.state == "failed"
    execution = execution_of(project, run)
    assert execution["status"] == "FAILED"
    (failed,) = told(project, execution)["failed_tasks"]
    assert (failed["task_id"], failed["state"]) == ("judge", "failed")


#: A reading that the DAGs' own tasks cannot work with.
BROKEN = {"vibration": "broken"}


def run_dag_where(cdf: CdfEmulator, name: str | Path, **functions: Any) -> Any:
    """Run an example while CDF's functions answer something else."""
    with cdf.turn() as engine:
        for function, answer in functions.items():
            engine.functions.set(function, answer)
    try:
        return run_dag(examples_folder() / f"{name}.py" if isinstance(name, str) else name, retries=0)
    finally:
        with cdf.turn() as engine:
            for function in functions:
                engine.functions.set(function, FUNCTIONS[function])


def execution_of(project: Project, run: Any, workflow: str = "pump_health") -> dict[str, Any]:
    (execution,) = [e for e in project.executions(workflow) if e["metadata"]["airflow_run_id"] == run.run_id]
    return project.execution(execution["id"])


def told(
    project: Project, execution: dict[str, Any], status: str = "FAILED_WITH_TERMINAL_ERROR"
) -> dict[str, Any]:
    output: dict[str, Any] = project.task(execution["id"], "score", status)["output"]["airflow"]
    return output


def states(run: Any) -> dict[str, str]:
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


class TestDecorator:
    @pytest.mark.parametrize("name", ["cdf_task_decorator", "cdf_task_operator"])
    def test_carries_the_value_through_airflow_and_back(
        self, name: str, airflow_db: None, cdf_default: CdfEmulator, project: Project
    ) -> None:
        run = run_dag(examples_folder() / f"{name}.py")

        execution = execution_of(project, run)
        tasks = {task["externalId"]: task for task in execution["executedTasks"]}
        assert execution["status"] == "COMPLETED"
        assert tasks["publish"]["input"]["function"]["data"] == {"pump": "P-101", "risk": 0.72}

    def test_tells_cdf_when_the_function_fails(
        self, airflow_db: None, cdf_default: CdfEmulator, project: Project
    ) -> None:
        run = run_dag_where(cdf_default, "cdf_task_decorator", read_sensors=BROKEN)

        assert run.state == "failed"
        error = told(project, execution_of(project, run))["error"]
        assert error["type"] == "TypeError"
        assert "unsupported operand" in error["message"]


class TestGroup:
    """Also on a real Airflow, in tests/system."""

    def test_carries_the_value_through_airflow_and_back(
        self, airflow_db: None, cdf_default: CdfEmulator, project: Project
    ) -> None:
        run = run_dag(examples_folder() / "cdf_task_group.py")

        execution = execution_of(project, run)
        assert execution["status"] == "COMPLETED"
        assert project.task(execution["id"], "score", "COMPLETED")["output"]["risk"] == 0.72
        assert states(run)["score.outcome"] == "success"

    def test_reports_a_failure_and_the_run_is_red(
        self, airflow_db: None, cdf_default: CdfEmulator, project: Project
    ) -> None:
        run = run_dag_where(cdf_default, "cdf_task_group", read_sensors=BROKEN)

        assert run.state == "failed"
        (failed,) = told(project, execution_of(project, run))["failed_tasks"]
        assert failed["task_id"] == "score.judge"
        assert states(run)["ended"] == "upstream_failed"

    def test_reports_a_short_circuit_and_the_run_is_red(
        self, airflow_db: None, cdf_default: CdfEmulator, project: Project
    ) -> None:
        run = run_dag_where(cdf_default, "cdf_task_group", read_sensors={"vibration": None})

        assert run.state == "failed"
        (not_done,) = told(project, execution_of(project, run))["failed_tasks"]
        assert (not_done["task_id"], not_done["state"]) == ("score.judge", "skipped")
        # The last task is skipped, too: without the group's own the run would be green.
        assert states(run)["ended"] == "skipped"
        assert states(run)["score.outcome"] == "failed"


class TestFanOut:
    @pytest.mark.parametrize("name", ["cdf_fan_out", "cdf_fan_out_each"])
    def test_does_all_children_of_a_dynamic_task(
        self, name: str, airflow_db: None, cdf_default: CdfEmulator, project: Project
    ) -> None:
        run = run_dag(examples_folder() / f"{name}.py")

        execution = execution_of(project, run, "fleet_check")
        risks = {
            task["externalId"]: task["output"]["risk"]
            for task in execution["executedTasks"]
            if task.get("parentTaskExternalId") == "inspect"
        }
        assert execution["status"] == "COMPLETED"
        assert risks == {"inspect_P-101": 0.72, "inspect_P-102": 0.14, "inspect_P-103": 0.39}

    @pytest.mark.parametrize("name", ["cdf_fan_out", "cdf_fan_out_each"])
    def test_of_no_children_is_no_failure(
        self, name: str, airflow_db: None, cdf_default: CdfEmulator, project: Project
    ) -> None:
        run = run_dag_where(cdf_default, name, list_pumps={"tasks": []})

        assert run.state == "success"
        assert execution_of(project, run, "fleet_check")["status"] == "COMPLETED"

    @pytest.mark.parametrize(
        ("name", "status", "of_others"),
        [
            ("cdf_fan_out", "TERMINATED", {"CANCELED"}),
            ("cdf_fan_out_each", "FAILED", {"COMPLETED", "CANCELED"}),
        ],
    )
    def test_leaves_no_child_waiting_where_one_fails(
        self,
        name: str,
        status: str,
        of_others: set[str],
        airflow_db: None,
        cdf_default: CdfEmulator,
        project: Project,
    ) -> None:
        pumps = copy.deepcopy(FUNCTIONS["list_pumps"])
        pumps["tasks"][1]["parameters"]["function"]["data"] = BROKEN
        run = run_dag_where(cdf_default, name, list_pumps=pumps)

        assert run.state == "failed"
        execution = execution_of(project, run, "fleet_check")
        children = {
            task["externalId"]: task["status"]
            for task in execution["executedTasks"]
            if task.get("parentTaskExternalId") == "inspect"
        }
        assert execution["status"] == status
        failed = children.pop("inspect_P-102")
        assert failed == ("CANCELED" if name == "cdf_fan_out" else "FAILED_WITH_TERMINAL_ERROR")
        assert set(children.values()) <= of_others


@pytest.mark.skipif(
    (3, 1) <= AIRFLOW_VERSION < (3, 2), reason="Airflow 3.1 looks for the tasks in the example of the same id"
)
class TestFanOutOfGroups:
    """The block of docs/patterns.md, to which the example beside it is the head."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        page = (Path(__file__).parents[2] / "docs" / "patterns.md").read_text()
        (block,) = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def each" in one)
        example = (examples_folder() / "cdf_fan_out_each.py").read_text()
        head, end, _ = example.partition("    @task.cdf_task(")
        assert end
        judge = """\
@task
def judge(task_input):
    return {"risk": task_input["function"]["data"]["vibration"] / 10}

"""
        file = tmp_path / "fan_out_of_groups.py"
        # On each Airflow: airflow.sdk has these on 3 only.
        imports = """\
from airflow.providers.common.compat.sdk import task_group
from airflow_provider_cdf.task_group import CdfTaskGroup
"""
        file.write_text(head.replace("from airflow.pro", f"{imports}from airflow.pro", 1))
        with file.open("a") as written:
            written.write(textwrap.indent(judge + block, "    "))
        return file

    def test_is_green_to_the_end_of_the_workflow(
        self, file: Path, airflow_db: None, cdf_default: CdfEmulator, project: Project
    ) -> None:
        # Which of several tasks comes first is chance, and `ended` before a report waits for ever here.
        assert "each.child.reported" in read_dag(file).get_task("ended").upstream_task_ids

        run = run_dag(file)

        assert run.state == "success"
        assert execution_of(project, run, "fleet_check")["status"] == "COMPLETED"
        assert states(run)["ended"] == "success"

    def test_is_red_where_one_child_fails(
        self, file: Path, airflow_db: None, cdf_default: CdfEmulator, project: Project
    ) -> None:
        pumps = copy.deepcopy(FUNCTIONS["list_pumps"])
        pumps["tasks"][1]["parameters"]["function"]["data"] = BROKEN
        run = run_dag_where(cdf_default, file, list_pumps=pumps)

        assert run.state == "failed"
        execution = execution_of(project, run, "fleet_check")
        assert execution["status"] == "FAILED"
        children = [one for one in execution["executedTasks"] if one.get("parentTaskExternalId") == "inspect"]
        assert "FAILED_WITH_TERMINAL_ERROR" in [one["status"] for one in children]


def test_a_teardown_cancels_what_the_run_has_started_before_it_died(
    airflow_db: None, cdf_default: CdfEmulator, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag = read_dag(examples_folder() / "cdf_cancel_teardown.py")
    run_task = dag.get_task("run")
    run_task.retries = 0
    # As where memory runs out: Airflow calls nothing then.
    run_task.on_failure_callback = []
    execute = CdfWorkflowRunOperator.execute

    def start_and_die(self: Any, context: Any) -> None:
        execute(self, context)
        raise MemoryError

    monkeypatch.setattr(CdfWorkflowRunOperator, "execute", start_and_die)
    run = dag.test()

    assert states(run)["run"] == "failed"
    assert execution_of(project, run)["status"] == "TERMINATED"


@pytest.mark.parametrize("name", ["cdf_inbox_work", "cdf_called"])
def test_the_conf_that_the_document_makes_fits(
    name: str,
    airflow_db: None,
    cdf_default: CdfEmulator,
    project: Project,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()
    (block,) = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "json.dumps" in one)
    exec(compile(str(block), "conf.py", "exec"), {})
    conf = json.loads(capsys.readouterr().out.splitlines()[-1])

    run = run_dag(examples_folder() / f"{name}.py", run_conf=conf)

    assert run.state == "success"
    assert project.task(conf["execution_id"], "score", "COMPLETED")["output"]["risk"] == 0.72


class TestDirectWay:
    """With its CDF function, in tests/system."""

    def test_does_the_work_of_the_task_that_the_function_names(
        self, airflow_db: None, cdf_default: CdfEmulator, project: Project
    ) -> None:
        execution_id = project.run("pump_health")
        waiting = project.task(execution_id, "score")["id"]

        run = run_dag(
            examples_folder() / "cdf_called.py",
            run_conf={"pump": "P-101", "vibration": 7.2, "cogniteOrchestrationTaskId": waiting},
        )

        assert run.state == "success"
        assert project.task(execution_id, "score", "COMPLETED")["output"]["risk"] == 0.72


class TestInbox:
    """With its DAG runs, in tests/system."""

    def test_does_the_work_of_the_task_that_it_is_told(
        self, airflow_db: None, cdf_default: CdfEmulator, project: Project
    ) -> None:
        execution_id = project.run("pump_health")
        waiting = project.task(execution_id, "score")["id"]

        run = run_dag(
            examples_folder() / "cdf_inbox_work.py",
            run_conf={"execution_id": execution_id, "cdf_task_id": waiting},
        )

        assert run.state == "success"
        assert project.task(execution_id, "score", "COMPLETED")["output"]["risk"] == 0.72
