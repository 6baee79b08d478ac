"""
The answers of the API, field by field, for the emulator's own OpenAPI document.

Only the document is made from these; :mod:`~airflow_provider_cdf.emulator.api.views` makes the answers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from airflow_provider_cdf.emulator.api.schemas import InternalId, TriggerRule, WorkflowStatus
from airflow_provider_cdf.emulator.rules.definitions import WorkflowDefinition
from airflow_provider_cdf.emulator.rules.fields import Absent, Description, Model

Time = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(max_length=255)]
Uuid = Annotated[str, Field(min_length=36, max_length=36)]
Metadata = Annotated[dict[str, Annotated[str, Field(max_length=255)]], Field(max_length=10)]


class Error(Model):
    code: int
    message: str
    missing: Absent[list[dict[str, Any]]] = None
    duplicated: Absent[list[dict[str, Any]]] = None


class ErrorAnswer(Model):
    error: Error


class Empty(Model):
    """An object without keys."""


class WorkflowView(Model):
    external_id: Name
    description: Absent[Description] = None
    data_set_id: Absent[InternalId] = None
    data_domain_external_id: Absent[str] = None
    max_concurrent_executions: Annotated[int, Field(ge=1, le=10_000)] | None = None
    created_time: Time
    last_updated_time: Time


class Workflows(Model):
    items: list[WorkflowView]
    next_cursor: Absent[str] = None


class DefinitionView(WorkflowDefinition):
    hash: str


class VersionView(Model):
    workflow_external_id: Name
    version: Name
    workflow_definition: DefinitionView
    created_time: Time
    last_updated_time: Time


class Versions(Model):
    items: Annotated[list[VersionView], Field(max_length=1000)]
    next_cursor: Absent[str] = None


class VersionWithWarnings(VersionView):
    warnings: Absent[list[str]] = None


class UpsertedVersion(Model):
    items: Annotated[list[VersionWithWarnings], Field(min_length=1, max_length=1)]


class ExecutionView(Model):
    id: Uuid
    workflow_external_id: Name
    version: Absent[Name] = None
    status: WorkflowStatus
    engine_execution_id: Uuid
    created_time: Time
    start_time: Absent[Time] = None
    end_time: Absent[Time] = None
    reason_for_incompletion: Absent[str] = None
    metadata: Metadata


class Executions(Model):
    items: Annotated[list[ExecutionView], Field(max_length=1000)]
    next_cursor: Absent[str] = None


class TaskView(Model):
    id: Uuid
    external_id: Name
    parent_task_external_id: Name | None = None
    status: Literal[
        "IN_PROGRESS",
        "CANCELED",
        "FAILED",
        "FAILED_WITH_TERMINAL_ERROR",
        "COMPLETED",
        "COMPLETED_WITH_ERRORS",
        "SCHEDULED",
        "TIMED_OUT",
        "SKIPPED",
    ]
    task_type: Literal["function", "transformation", "cdf", "dynamic", "subworkflow", "simulation"] | str
    start_time: Absent[Time] = None
    end_time: Absent[Time] = None
    input: dict[str, Any]
    output: dict[str, Any]
    reason_for_incompletion: Absent[str] = None


class ExecutionDetails(ExecutionView):
    workflow_definition: DefinitionView
    executed_tasks: list[TaskView]
    input: Absent[dict[str, Any]] = None


class TriggerView(Model):
    external_id: Name
    trigger_rule: TriggerRule
    input: Absent[dict[str, Any]] = None
    metadata: Absent[Metadata] = None
    workflow_external_id: Name
    workflow_version: Name
    created_time: Time
    last_updated_time: Time
    is_paused: bool


class Triggers(Model):
    items: list[TriggerView]
    next_cursor: Absent[str] = None


class TriggerRun(Model):
    fire_time: Time
    external_id: Name
    workflow_external_id: Name
    workflow_version: Name
    workflow_execution_id: Uuid | None = None
    status: Literal["success", "failed"]
    reason_for_failure: str | None = None


class TriggerHistory(Model):
    items: list[TriggerRun]
    next_cursor: Absent[str] = None


SessionStatus = Literal["READY", "ACTIVE", "CANCELLED", "EXPIRED", "REVOKED", "ACCESS_LOST"]
SessionType = Literal["CLIENT_CREDENTIALS", "TOKEN_EXCHANGE", "ONESHOT_TOKEN_EXCHANGE"]


class NewSession(Model):
    id: int
    type: SessionType
    status: SessionStatus
    nonce: str
    client_id: Absent[str] = None


class NewSessions(Model):
    items: list[NewSession]


class SessionView(Model):
    id: int
    type: SessionType
    status: SessionStatus
    creation_time: Time
    expiration_time: Time
    client_id: Absent[str] = None


class Sessions(Model):
    items: list[SessionView]
    next_cursor: Absent[str] = None


class ProjectAccess(Model):
    project_url_name: str
    groups: list[int]


class Inspection(Model):
    model_config = ConfigDict(extra="allow")

    subject: str
    projects: list[ProjectAccess]
    capabilities: list[dict[str, Any]]
