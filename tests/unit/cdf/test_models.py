"""What is read from CDF's answers."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from cdf_support import EXECUTION, TASK, shared_file
from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from airflow_provider_cdf.cdf.models import (
    REPORTABLE_STATUSES,
    ExecutionPage,
    SessionList,
    TaskDefinition,
    TaskExecution,
    TaskStatus,
    TaskType,
    TokenInspection,
    WorkflowDefinition,
    WorkflowExecution,
    WorkflowExecutionDetails,
    WorkflowStatus,
)

GOING_ON = {"SCHEDULED", "IN_PROGRESS"}
ENDED = {
    "COMPLETED",
    "COMPLETED_WITH_ERRORS",
    "FAILED",
    "FAILED_WITH_TERMINAL_ERROR",
    "TIMED_OUT",
    "CANCELED",
    "SKIPPED",
}
TASK_TYPES = {"function", "transformation", "cdf", "dynamic", "subworkflow", "simulation"}


def task(**changes: Any) -> TaskExecution:
    return TaskExecution.model_validate({**TASK, **changes})


def details(**changes: Any) -> WorkflowExecutionDetails:
    return WorkflowExecutionDetails.model_validate({**EXECUTION, **changes})


def test_every_field_of_an_execution_is_read() -> None:
    execution = details(
        startTime=1,
        endTime=2,
        reasonForIncompletion="why",
        metadata={"a": "b"},
        input={"pump": "P-101", "version": "1"},
        executedTasks=[TASK],
        workflowDefinition={"hash": "8AE1", "description": "words", "tasks": []},
    )
    assert execution.id == EXECUTION["id"]
    assert execution.workflow_external_id == "pump"
    assert execution.version == "1"
    assert execution.status is WorkflowStatus.RUNNING
    assert execution.engine_execution_id == EXECUTION["engineExecutionId"]
    assert execution.created_time == 1_700_000_000_000
    assert (execution.start_time, execution.end_time) == (1, 2)
    assert execution.reason_for_incompletion == "why"
    assert execution.metadata == {"a": "b"}
    assert execution.input == {"pump": "P-101", "version": "1"}
    assert [one.external_id for one in execution.executed_tasks] == ["score"]
    assert execution.workflow_definition == WorkflowDefinition(hash="8AE1", description="words", tasks=[])


def test_every_field_of_a_task_execution_is_read() -> None:
    read = task(
        parentTaskExternalId="parent",
        startTime=1,
        endTime=2,
        reasonForIncompletion="why",
        input={"function": {"data": {"a": 1}}},
        output={"callId": 1453249902969082},
    )
    assert (read.id, read.external_id, read.parent_task_external_id) == (TASK["id"], "score", "parent")
    assert (read.status, read.task_type) == (TaskStatus.IN_PROGRESS, TaskType.FUNCTION)
    assert (read.start_time, read.end_time, read.reason_for_incompletion) == (1, 2, "why")
    assert read.input == {"function": {"data": {"a": 1}}}
    assert read.output == {"callId": 1453249902969082}


def test_every_field_of_a_task_definition_is_read() -> None:
    definition = TaskDefinition.model_validate(
        {
            "externalId": "b",
            "type": "simulation",
            "name": "B",
            "description": "words",
            "parameters": {"simulation": {"routineExternalId": "r"}},
            "retries": 0,
            "timeout": 300,
            "onFailure": "skipTask",
            "dependsOn": [{"externalId": "a"}],
        }
    )
    assert definition.model_dump(by_alias=True) == {
        "externalId": "b",
        "type": "simulation",
        "name": "B",
        "description": "words",
        "parameters": {"simulation": {"routineExternalId": "r"}},
        "retries": 0,
        "timeout": 300,
        "onFailure": "skipTask",
        "dependsOn": [{"externalId": "a"}],
    }


def test_a_task_definition_that_says_little_has_the_defaults_of_the_api() -> None:
    definition = TaskDefinition.model_validate({"externalId": "a", "type": "function", "parameters": {}})
    assert (definition.retries, definition.timeout, definition.on_failure) == (3, 3600, "abortWorkflow")


@pytest.mark.parametrize(
    ("model", "schema"),
    [
        (WorkflowExecution, "WorkflowExecutionResponse"),
        (WorkflowExecutionDetails, "WorkflowExecution"),
        (TaskExecution, "TaskExecution"),
        (WorkflowDefinition, "WorkflowDefinitionResponse"),
    ],
)
def test_no_field_that_cognite_specifies_is_left_out(model: type[BaseModel], schema: str) -> None:
    specified = shared_file("openapi-workflows.json")["components"]["schemas"][schema]["properties"]
    read_later = {"workflow_definition"} & set(vars(model))
    assert set(specified) == {to_camel(name) for name in model.model_fields.keys() | read_later}


@pytest.mark.parametrize("status", sorted(GOING_ON | ENDED))
def test_each_status_of_a_task_is_known_and_has_ended_or_not(status: str) -> None:
    assert task(status=status).has_ended is (status in ENDED)
    assert status in TaskStatus.__members__


def test_there_are_exactly_nine_statuses_of_tasks_and_five_of_workflows() -> None:
    assert {str(status) for status in TaskStatus} == GOING_ON | ENDED
    assert {str(status) for status in WorkflowStatus if details(status=status).has_ended} == {
        "COMPLETED",
        "FAILED",
        "TIMED_OUT",
        "TERMINATED",
    }
    assert not details(status="RUNNING").has_ended


@pytest.mark.parametrize("status", ["completed", "Failed", "timed_out"])
def test_statuses_are_compared_in_upper_case(status: str) -> None:
    """As the Python SDK writes them."""
    for read in (task(status=status), details(status=status)):
        assert read.status == status.upper()
        assert read.status in type(read.status).__members__
        assert read.has_ended
    assert task(status="in_progress").status is TaskStatus.IN_PROGRESS
    assert task(status="paused").status == "PAUSED"


@pytest.mark.parametrize("status", ["PAUSED", "aborted"])
@pytest.mark.parametrize("read", [task, details])
def test_an_unknown_status_with_an_end_time_has_ended(read: Any, status: str) -> None:
    assert read(status=status, endTime=1_700_000_000_000).has_ended
    assert not read(status=status, endTime=None).has_ended
    assert not read(status=status, endTime=0).has_ended


def test_what_is_known_to_go_on_does_so_in_spite_of_an_end_time() -> None:
    assert not details(status="RUNNING", endTime=1).has_ended
    for status in GOING_ON:
        assert not task(status=status, endTime=1).has_ended


def test_an_execution_that_runs_after_its_end_says_that_it_ended() -> None:
    assert details(endTime=10).says_it_ended
    assert not details().says_it_ended
    assert not details(endTime=0).says_it_ended
    assert not details(status="COMPLETED", endTime=10).says_it_ended
    assert details(endTime=10, executedTasks=[{**TASK, "startTime": 10}, {**TASK}]).says_it_ended
    # A retry in CDF: what has begun since shows that it runs.
    assert not details(endTime=10, executedTasks=[{**TASK, "startTime": 11}]).says_it_ended


def test_only_failed_and_timed_out_attempts_may_be_retried() -> None:
    assert {status for status in TaskStatus if status.may_be_retried} == {"FAILED", "TIMED_OUT"}


def test_three_statuses_can_be_reported() -> None:
    assert {*REPORTABLE_STATUSES} == {"COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR"}


@pytest.mark.parametrize("task_type", sorted(TASK_TYPES))
def test_each_type_of_task_is_known(task_type: str) -> None:
    assert task(taskType=task_type).task_type in set(TaskType)
    assert {str(one) for one in TaskType} == TASK_TYPES


def test_an_unknown_task_type_is_kept_as_it_came() -> None:
    read = task(taskType="functionApp")
    assert read.task_type == "functionApp"
    assert isinstance(read.task_type, TaskType)
    assert read.task_type not in set(TaskType)
    definition = TaskDefinition.model_validate({"externalId": "a", "type": "functionApp", "parameters": {}})
    assert definition.type == "functionApp"


def test_an_unknown_status_is_kept_as_it_came_and_counts_as_going_on() -> None:
    read = task(status="PAUSED")
    assert (read.status, str(read.status), read.has_ended) == ("PAUSED", "PAUSED", False)
    assert not read.status.may_be_retried
    execution = details(status="QUEUED")
    assert (execution.status, f"{execution.status}", execution.has_ended) == (
        "QUEUED",
        "QUEUED",
        False,
    )


def test_an_unknown_status_survives_copying_pickling_and_json() -> None:
    read = task(status="PAUSED")
    assert copy.deepcopy(read) == read
    assert pickle.loads(pickle.dumps(read)) == read
    assert TaskExecution.model_validate_json(read.model_dump_json(by_alias=True)) == read


def test_unknown_fields_are_kept() -> None:
    assert task(heartbeat=5).model_dump()["heartbeat"] == 5


def test_a_status_that_is_no_text_is_refused() -> None:
    with pytest.raises(ValidationError):
        task(status=5)


@pytest.mark.parametrize(
    ("task_input", "waits_for_a_report"),
    [
        ({"isAsyncComplete": True}, True),
        ({"isAsyncComplete": False}, False),
        ({"asyncComplete": True}, True),
        ({"asyncComplete": False}, False),
        ({"isAsyncComplete": True, "asyncComplete": True}, True),
        ({"isAsyncComplete": None}, None),
        ({}, None),
        (None, None),
    ],
)
def test_both_spellings_of_async_complete_are_read(task_input: Any, waits_for_a_report: bool | None) -> None:
    assert task(input=task_input).is_async_complete is waits_for_a_report


def test_only_functions_are_completed_from_outside() -> None:
    assert task(taskType="cdf", input={"isAsyncComplete": True}).is_async_complete is False
    assert task(taskType="transformation", input={}).is_async_complete is False
    assert task(taskType=None, input={"isAsyncComplete": True}).is_async_complete is True


#: Values that no field but one of free text takes.
ODD: list[Any] = [7.5, ["a"], {"a": 1}, True, "odd"]
NEEDED = {
    "id",
    "externalId",
    "workflowExternalId",
    "status",
    "parentTaskExternalId",
    "executedTasks",
    "items",
}


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_an_odd_type_where_it_is_not_needed_makes_nothing_unreadable(odd: Any) -> None:
    definition = {"externalId": "a", "type": "cdf"}
    for model, whole in (
        (TaskExecution, TASK),
        (WorkflowExecutionDetails, EXECUTION),
        (TaskDefinition, definition),
    ):
        sound = model.model_validate(whole)
        for field, info in model.model_fields.items():
            name = str(info.alias)
            if name in NEEDED or name == "type":
                continue
            read = model.model_validate_json(json.dumps({**whole, name: odd}))
            for other in model.model_fields:
                if other != field:
                    assert getattr(read, other) == getattr(sound, other), (name, other)


@pytest.mark.parametrize("odd", [None, 7.5, ["a"], {"a": 1}], ids=repr)
@pytest.mark.parametrize("name", sorted(NEEDED - {"items", "parentTaskExternalId", "executedTasks"}))
def test_ids_and_statuses_must_have_their_type(name: str, odd: Any) -> None:
    model, whole = (TaskExecution, TASK) if name in TASK else (WorkflowExecution, EXECUTION)
    with pytest.raises(ValidationError, match=name):
        model.model_validate({**whole, name: odd})


@pytest.mark.parametrize("odd", ["tasks", {"a": 1}, [7], [{"id": "x"}]], ids=repr)
def test_tasks_that_cannot_be_read_are_not_taken_for_tasks_that_have_not_started(odd: Any) -> None:
    with pytest.raises(ValidationError, match="executedTasks"):
        details(executedTasks=odd)


@pytest.mark.parametrize("tasks", ["tasks", [{"externalId": "a", "type": "cdf"}, {"type": "cdf"}]], ids=repr)
def test_a_definition_that_cannot_be_read_whole_is_not_believed(tasks: Any) -> None:
    assert details(workflowDefinition={"tasks": tasks}).workflow_definition is None
    assert details(workflowDefinition={"tasks": None}).workflow_definition == WorkflowDefinition()


def test_one_odd_execution_does_not_make_a_page_unreadable() -> None:
    items = [{"id": 5}, "text", EXECUTION, {**EXECUTION, "status": 7}, None, {**EXECUTION, "endTime": "odd"}]
    page = ExecutionPage.model_validate_json(json.dumps({"items": items}))
    assert [one.id for one in page.items] == [EXECUTION["id"]] * 2


@pytest.mark.parametrize(
    "answer", [{"items": None}, {"items": {}}, {"items": [], "nextCursor": 5}, {}], ids=repr
)
def test_a_page_without_its_items_or_with_a_strange_cursor_is_unreadable(answer: Any) -> None:
    with pytest.raises(ValidationError):
        ExecutionPage.model_validate(answer)


@pytest.mark.parametrize("more", [{}, {"id": "text"}, {"id": None, "status": 5, "type": ["x"]}], ids=repr)
def test_a_session_needs_its_nonce_and_nothing_else(more: Any) -> None:
    session = SessionList.model_validate({"items": [{"nonce": "n0nce", **more}]}).items[0]
    assert (session.nonce, session.id, session.status, session.type) == ("n0nce", None, None, None)
    with pytest.raises(ValidationError, match="nonce"):
        SessionList.model_validate({"items": [{"id": 1, "status": "READY"}]})


@pytest.mark.parametrize("name", ["input", "output"])
def test_an_object_that_is_null_or_missing_reads_as_empty(name: str) -> None:
    assert getattr(task(**{name: None}), name) == {}
    assert getattr(TaskExecution.model_validate({k: v for k, v in TASK.items() if k != name}), name) == {}


@pytest.mark.parametrize(
    "name", ["version", "engineExecutionId", "createdTime", "startTime", "endTime", "reasonForIncompletion"]
)
def test_a_null_in_an_execution_reads_as_none(name: str) -> None:
    assert details(**{name: None}).model_dump(by_alias=True)[name] is None


@pytest.mark.parametrize("name", ["parentTaskExternalId", "startTime", "endTime", "reasonForIncompletion"])
def test_a_null_in_a_task_reads_as_none(name: str) -> None:
    assert task(**{name: None}).model_dump(by_alias=True)[name] is None


def test_an_execution_without_metadata_input_tasks_or_definition_is_read() -> None:
    execution = details(metadata=None, input=None)
    assert (execution.metadata, execution.input, execution.executed_tasks) == ({}, {}, [])
    assert execution.workflow_definition is None


@pytest.mark.parametrize(
    "name", ["name", "description", "parameters", "retries", "timeout", "onFailure", "dependsOn"]
)
def test_a_null_in_a_task_definition_reads_as_if_it_were_not_there(name: str) -> None:
    definition = {"externalId": "a", "type": "cdf"}
    assert TaskDefinition.model_validate({**definition, name: None}) == TaskDefinition.model_validate(
        definition
    )


@pytest.mark.parametrize("wrong", [None, 5, [], {"tasks": 5}, {"tasks": [{}]}], ids=repr)
def test_a_definition_that_cannot_be_read_is_none(wrong: Any) -> None:
    assert details(workflowDefinition=wrong).workflow_definition is None


@pytest.mark.parametrize("name", ["metadata", "input", "executedTasks"])
def test_a_null_in_an_execution_reads_as_if_it_were_not_there(name: str) -> None:
    without = WorkflowExecutionDetails.model_validate({k: v for k, v in EXECUTION.items() if k != name})
    assert details(**{name: None}) == without


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValidationError):
        WorkflowExecution.model_validate({"id": "x"})
    with pytest.raises(ValidationError):
        SessionList.model_validate({"items": []})


def test_a_page_of_executions_knows_its_cursor() -> None:
    page = ExecutionPage.model_validate({"items": [EXECUTION], "nextCursor": "c"})
    assert (len(page.items), page.next_cursor) == (1, "c")
    assert ExecutionPage.model_validate({"items": []}).next_cursor is None


def test_a_nonce_is_not_in_the_repr_of_its_session() -> None:
    sessions = SessionList.model_validate({"items": [{"id": 1, "status": "READY", "nonce": "n0nce"}]})
    assert sessions.items[0].nonce == "n0nce"
    assert "n0nce" not in repr(sessions)


def test_a_token_inspection_is_read() -> None:
    inspection = TokenInspection.model_validate(
        {
            "subject": "s",
            "projects": [{"projectUrlName": "p", "groups": [1]}],
            "capabilities": [{"sessionsAcl": {"actions": ["CREATE"]}, "projectScope": {"projects": ["p"]}}],
        }
    )
    assert inspection.projects[0].project_url_name == "p"
    assert inspection.capabilities[0]["sessionsAcl"] == {"actions": ["CREATE"]}


def test_a_recorded_execution_is_read_whole() -> None:
    recorded = shared_file("execution-sample.json")
    execution = WorkflowExecutionDetails.model_validate(recorded)
    assert execution.id == recorded["id"]
    assert execution.status == "COMPLETED"
    assert [one.id for one in execution.executed_tasks] == [one["id"] for one in recorded["executedTasks"]]
    assert {one.is_async_complete for one in execution.executed_tasks} == {True, False}
    for read, raw in zip(execution.executed_tasks, recorded["executedTasks"], strict=True):
        assert read.model_dump(by_alias=True, exclude_unset=True, mode="json") == raw
    assert execution.workflow_definition is not None
    assert [one.type for one in execution.workflow_definition.tasks] == [
        one["type"] for one in recorded["workflowDefinition"]["tasks"]
    ]


@pytest.mark.parametrize("said", [10**400, -(10**400), 10**15 + 1, 1e300])
def test_a_time_that_is_none_reads_as_if_it_were_not_there(said: Any) -> None:
    assert task(startTime=said, endTime=said).start_time is None
    assert details(createdTime=said, endTime=said).end_time is None
    assert task(startTime=10**15).start_time == 10**15


ACL = {"workflowOrchestrationAcl": {"actions": ["READ"]}}
READ, WRITE = "workflowOrchestrationAcl:READ", "workflowOrchestrationAcl:WRITE"


@pytest.mark.parametrize(
    "capability",
    [
        {**ACL, "projectScope": 5},
        {**ACL, "projectScope": ["p"]},
        {**ACL, "projectScope": "allProjects"},
        {**ACL, "projectScope": {"projects": 7}},
        {**ACL, "projectScope": {"projects": "the p"}},
        {"workflowOrchestrationAcl": {"actions": 7}, "projectScope": {"allProjects": {}}},
        {"workflowOrchestrationAcl": {"actions": "READ"}, "projectScope": {"allProjects": {}}},
        {"workflowOrchestrationAcl": 7, "projectScope": {"allProjects": {}}},
    ],
)
def test_a_capability_that_is_not_what_it_should_be_grants_nothing(capability: Any) -> None:
    inspection = TokenInspection.model_validate(
        {
            "projects": [{"projectUrlName": "p"}],
            "capabilities": [capability, {**ACL, "projectScope": {"projects": ["p"]}}],
        }
    )
    assert inspection.missing_in("p", READ, WRITE) == [WRITE]
    only = TokenInspection.model_validate(
        {"projects": [{"projectUrlName": "p"}], "capabilities": [capability]}
    )
    assert only.missing_in("p", READ, WRITE) == [READ, WRITE]
