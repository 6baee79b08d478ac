"""What is read from CDF's answers."""

from __future__ import annotations

import copy
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
    assert set(specified) == {to_camel(name) for name in model.model_fields}


@pytest.mark.parametrize("status", sorted(GOING_ON | ENDED))
def test_each_status_of_a_task_is_known_and_has_ended_or_not(status: str) -> None:
    assert task(status=status).status.has_ended is (status in ENDED)
    assert status in TaskStatus.__members__


def test_there_are_exactly_nine_statuses_of_tasks_and_five_of_workflows() -> None:
    assert {str(status) for status in TaskStatus} == GOING_ON | ENDED
    assert {str(status) for status in WorkflowStatus if status.has_ended} == {
        "COMPLETED",
        "FAILED",
        "TIMED_OUT",
        "TERMINATED",
    }
    assert not WorkflowStatus.RUNNING.has_ended


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
    assert (read.status, str(read.status), read.status.has_ended) == ("PAUSED", "PAUSED", False)
    assert not read.status.may_be_retried
    execution = details(status="QUEUED")
    assert (execution.status, f"{execution.status}", execution.status.has_ended) == (
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
        ({"isAsyncComplete": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_both_spellings_of_async_complete_are_read(task_input: Any, waits_for_a_report: bool) -> None:
    assert task(input=task_input).is_async_complete is waits_for_a_report


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


@pytest.mark.parametrize("name", ["metadata", "input", "executedTasks", "workflowDefinition"])
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
