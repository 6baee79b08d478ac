"""Which of several tasks with one external id is meant, and which may be reported to."""

from __future__ import annotations

from typing import Any

import pytest
from cdf_support import EXECUTION
from support import Project

from airflow_provider_cdf.cdf.attempts import current_attempt, current_attempts, is_async_complete
from airflow_provider_cdf.cdf.errors import CdfAmbiguousTaskError
from airflow_provider_cdf.cdf.models import TaskExecution, WorkflowExecutionDetails

SITE = {"subworkflow": {"workflowExternalId": "site", "version": "1"}}


def listed(parent: str | None = None, external_id: str = "approve", **more: Any) -> dict[str, Any]:
    return {
        "id": f"{parent}/{external_id}",
        "externalId": external_id,
        "status": "IN_PROGRESS",
        "taskType": "function",
        "parentTaskExternalId": parent,
        **more,
    }


def defined(external_id: str, type_: str = "subworkflow", **parameters: Any) -> dict[str, Any]:
    return {"externalId": external_id, "type": type_, "parameters": parameters}


def inline(external_id: str, *children: dict[str, Any]) -> dict[str, Any]:
    return defined(external_id, subworkflow={"tasks": list(children)})


def execution(
    *tasks: dict[str, Any], defined: list[dict[str, Any]] | None = None
) -> WorkflowExecutionDetails:
    definition = None if defined is None else {"tasks": defined}
    return WorkflowExecutionDetails.model_validate(
        {**EXECUTION, "executedTasks": list(tasks), "workflowDefinition": definition}
    )


def found(seen: WorkflowExecutionDetails, *which: str) -> str | None:
    task = current_attempt(seen, *which)
    return None if task is None else task.id


# -- which one is meant -----------------------------------------------------------------------------------


def test_with_a_parent_only_its_children_count() -> None:
    seen = execution(listed(), listed("north"), listed("south"))
    assert found(seen, "approve", "south") == "south/approve"
    assert found(seen, "approve", "north") == "north/approve"
    assert found(seen, "approve", "east") is None


def test_without_a_parent_a_task_without_a_parent_comes_first() -> None:
    child = listed("north", startTime=2)
    assert found(execution(child, listed(startTime=1)), "approve") == "none/approve"
    assert found(execution(child, listed(status="COMPLETED")), "approve") == "none/approve"


def test_the_child_is_not_taken_for_a_task_without_a_parent_that_has_not_started() -> None:
    seen = execution(listed("north"), defined=[defined("north", **SITE), defined("approve", "function")])
    assert found(seen, "approve") is None


def test_an_only_child_needs_no_parent_named() -> None:
    first = listed("north", id="first", status="FAILED", startTime=1)
    seen = execution(listed("north"), first, defined=[defined("north", **SITE)])
    assert found(seen, "approve") == "north/approve"
    assert found(execution(listed("north")), "approve") == "north/approve"


@pytest.mark.parametrize(
    "seen",
    [
        execution(listed("north"), listed("south")),
        execution(listed("north"), listed("south", status="COMPLETED")),
        # The other one has not started yet, but will have such a child.
        execution(listed("north"), defined=[defined("north", **SITE), defined("south", **SITE)]),
        execution(listed("south"), defined=[defined("north", **SITE), defined("south", **SITE)]),
        execution(defined=[inline("north", defined("approve")), inline("south", defined("approve"))]),
        execution(listed("north"), defined=[defined("north", **SITE), inline("south", defined("approve"))]),
        execution(
            listed("north"),
            listed(None, "south", taskType="dynamic", output={"dynamicTasks": [defined("approve")]}),
            defined=[defined("north", **SITE), defined("south", "dynamic", dynamic={"tasks": "${x}"})],
        ),
    ],
    ids=["both", "one ended", "south later", "north later", "inline", "mixed", "dynamic"],
)
def test_one_of_several_children_is_refused_with_their_parents_named(seen: WorkflowExecutionDetails) -> None:
    with pytest.raises(CdfAmbiguousTaskError) as caught:
        current_attempt(seen, "approve")
    assert str(caught.value) == (
        "2 tasks have a child 'approve'. Set parent_task_external_id to one of them: 'north', 'south'. "
        f"[execution {EXECUTION['id']}]"
    )
    assert current_attempt(seen, "north") is None


@pytest.mark.parametrize(("workflow", "version"), [("site", "2"), ("other", "1")])
def test_another_subworkflow_has_children_of_its_own(workflow: str, version: str) -> None:
    other = {"subworkflow": {"workflowExternalId": workflow, "version": version}}
    seen = execution(listed("north"), defined=[defined("north", **SITE), defined("south", **other)])
    assert found(seen, "approve") == "north/approve"


def test_the_attempts_that_count_are_one_for_each_task_and_parent() -> None:
    seen = execution(
        listed("north", id="first", status="FAILED", startTime=1),
        listed("north", startTime=2),
        listed("south", status="COMPLETED"),
        listed(),
    )
    assert [one.id for one in current_attempts(seen)] == ["north/approve", "south/approve", "none/approve"]


# -- which one may be reported to -------------------------------------------------------------------------


def asked(task: dict[str, Any], *others: dict[str, Any], defined: list[dict[str, Any]]) -> bool | None:
    return is_async_complete(execution(task, *others, defined=defined), TaskExecution.model_validate(task))


@pytest.mark.parametrize(("defines", "says"), [(True, True), (False, False), (None, False)])
def test_where_the_input_does_not_say_the_definition_does(defines: Any, says: bool) -> None:
    own = defined("approve", "function", isAsyncComplete=defines)
    dynamic = listed(None, "north", taskType="dynamic", output={"dynamicTasks": [own]})
    assert asked(listed(), defined=[own]) is says
    assert asked(listed("north"), defined=[inline("north", defined("other"), own)]) is says
    assert asked(listed("north"), dynamic, defined=[defined("north", "dynamic")]) is says


def test_the_input_is_asked_first() -> None:
    own = defined("approve", "function", isAsyncComplete=False)
    assert asked(listed(input={"isAsyncComplete": True}), defined=[own]) is True


def test_what_neither_says_is_not_known() -> None:
    assert asked(listed("north"), defined=[defined("north", **SITE)]) is None
    assert asked(listed(), defined=[]) is None
    # The definition of a task with the same external id says nothing about somebody's child.
    assert asked(listed("north"), defined=[defined("approve", "function", isAsyncComplete=True)]) is None


def test_only_functions_are_asynchronous() -> None:
    own = defined("approve", "cdf", isAsyncComplete=True)
    assert asked(listed(taskType="cdf", input={"isAsyncComplete": True}), defined=[own]) is False


# -- on the emulator --------------------------------------------------------------------------------------


def test_one_subworkflow_at_two_sites(project: Project) -> None:
    approve = {**defined("approve", "function", function={"externalId": "f"}, isAsyncComplete=True)}
    site = {"workflowExternalId": project.define(approve), "version": "1"}
    workflow = project.define(*(defined(name, subworkflow=site) for name in ("north", "south")))
    execution_id = project.run(workflow)
    project.task(execution_id, "approve")
    for _ in range(200):
        seen = WorkflowExecutionDetails.model_validate(project.execution(execution_id))
        if sum(task.external_id == "approve" for task in seen.executed_tasks) == 2:
            break
    with pytest.raises(CdfAmbiguousTaskError, match="'north', 'south'"):
        current_attempt(seen, "approve")
    for name in ("north", "south"):
        task = current_attempt(seen, "approve", name)
        assert task is not None
        assert task.parent_task_external_id == name
        assert is_async_complete(seen, task) is True
        project.update(task.id, "COMPLETED", {"site": name})
    tasks = project.execution(execution_id)["executedTasks"]
    outputs = {one["parentTaskExternalId"]: one["output"] for one in tasks if one["externalId"] == "approve"}
    assert {name: output["site"] for name, output in outputs.items()} == {"north": "north", "south": "south"}
