"""
The objects of CDF's Data Workflows API, with the names the API gives them.

Models only read. CDF adds statuses, task types and fields without notice (``functionApp`` tasks in March
2026), so whatever is unknown is kept as it came instead of refused.

API reference: https://api-docs.cognite.com/20230101/tag/Workflow-executions
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel


class _OpenEnum(StrEnum):
    """An enum that keeps a value it does not know as a member of its own instead of raising."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member


class WorkflowStatus(_OpenEnum):
    """Status of a workflow execution."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    TERMINATED = "TERMINATED"

    @property
    def has_ended(self) -> bool:
        """Whether the execution has ended. An unknown status counts as running: waiting on does no harm."""
        return self in _ENDED_WORKFLOW


class TaskStatus(_OpenEnum):
    """Status of one attempt at a task of an execution."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    COMPLETED_WITH_ERRORS = "COMPLETED_WITH_ERRORS"
    FAILED = "FAILED"
    FAILED_WITH_TERMINAL_ERROR = "FAILED_WITH_TERMINAL_ERROR"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"
    SKIPPED = "SKIPPED"

    @property
    def has_ended(self) -> bool:
        """Whether this attempt has ended. An unknown status counts as going on."""
        return self in _ENDED_TASK

    @property
    def may_be_retried(self) -> bool:
        """Whether CDF may follow this attempt with another one while the execution is RUNNING."""
        return self in (TaskStatus.FAILED, TaskStatus.TIMED_OUT)


_ENDED_WORKFLOW = frozenset(WorkflowStatus) - {WorkflowStatus.RUNNING}
_ENDED_TASK = frozenset(TaskStatus) - {TaskStatus.SCHEDULED, TaskStatus.IN_PROGRESS}

#: The statuses that ``POST /workflows/tasks/{taskId}/update`` accepts.
REPORTABLE_STATUSES = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.FAILED_WITH_TERMINAL_ERROR)


class TaskType(_OpenEnum):
    """Type of a task. Only ``function`` tasks can be completed from outside (``isAsyncComplete``)."""

    FUNCTION = "function"
    TRANSFORMATION = "transformation"
    CDF = "cdf"
    DYNAMIC = "dynamic"
    SUBWORKFLOW = "subworkflow"
    SIMULATION = "simulation"


class OnFailure(_OpenEnum):
    """What a failed task does to its workflow."""

    ABORT_WORKFLOW = "abortWorkflow"
    SKIP_TASK = "skipTask"


class _Answer(BaseModel):
    # Built at first use: DAG files import this module at every parse and seldom need it.
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True, defer_build=True
    )

    @model_validator(mode="before")
    @classmethod
    def _null_means_not_set(cls, answer: Any) -> Any:
        if not isinstance(answer, dict):
            return answer
        return {name: value for name, value in answer.items() if value is not None}


class TaskReference(_Answer):
    """A task that another one depends on."""

    external_id: str


class TaskDefinition(_Answer):
    """
    A task as its workflow version defines it.

    :param parameters: by task type, with its ``${...}`` references unresolved.
    :param retries: 0 to 10 attempts after the first one.
    :param timeout: seconds, 100 to 43 200.
    """

    external_id: str
    type: TaskType
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    retries: int = 3
    timeout: float = 3600
    on_failure: OnFailure = OnFailure.ABORT_WORKFLOW
    depends_on: list[TaskReference] = Field(default_factory=list)


class WorkflowDefinition(_Answer):
    """The definition that an execution was started with; later changes to the version do not touch it."""

    hash: str | None = None
    description: str | None = None
    tasks: list[TaskDefinition] = Field(default_factory=list)


class TaskExecution(_Answer):
    """
    One attempt at a task; a retried task has several, each with an id of its own.

    :param id: UUID of the attempt, which is what an update addresses.
    :param parent_task_external_id: the dynamic task or subworkflow that this task belongs to.
    :param input: the task's parameters with all references resolved.
    :param output: ``{}`` until the task has any.
    :param start_time: milliseconds since the epoch.
    :param end_time: milliseconds since the epoch.
    """

    id: str
    external_id: str
    status: TaskStatus
    task_type: TaskType
    parent_task_external_id: str | None = None
    input: dict[str, Any] = Field(default_factory=dict)
    output: dict[str, Any] = Field(default_factory=dict)
    start_time: int | None = None
    end_time: int | None = None
    reason_for_incompletion: str | None = None

    @property
    def is_async_complete(self) -> bool:
        """Whether somebody outside CDF ends this task; executions from before 2024 say ``asyncComplete``."""
        return bool(self.input.get("isAsyncComplete", self.input.get("asyncComplete", False)))


class WorkflowExecution(_Answer):
    """
    A workflow execution as lists and ``run`` answer it, without its tasks.

    :param id: UUID of the execution.
    :param engine_execution_id: UUID in the engine underneath; of use to Cognite's support only.
    :param created_time: milliseconds since the epoch, like ``start_time`` and ``end_time``.
    :param start_time: absent while the execution queues behind ``maxConcurrentExecutions``.
    :param metadata: strings by the specification; recorded executions hold numbers too.
    """

    id: str
    workflow_external_id: str
    status: WorkflowStatus
    version: str | None = None
    engine_execution_id: str | None = None
    created_time: int | None = None
    start_time: int | None = None
    end_time: int | None = None
    reason_for_incompletion: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class WorkflowExecutionDetails(WorkflowExecution):
    """
    A workflow execution with its input, its tasks and the definition it runs.

    :param executed_tasks: every attempt at every task that has been scheduled so far. A task that is not
        listed has not started; the order carries no meaning.
    """

    workflow_definition: WorkflowDefinition | None = None
    executed_tasks: list[TaskExecution] = Field(default_factory=list)
    input: dict[str, Any] = Field(default_factory=dict)


class ExecutionPage(_Answer):
    """One page of ``POST /workflows/executions/list``."""

    items: list[WorkflowExecution]
    next_cursor: str | None = None


class Session(_Answer):
    """
    A session that a run acts under.

    :param nonce: proves the session to ``run`` and ``retry``; it works once and lives about a minute.
    """

    nonce: str = Field(repr=False)
    id: int | None = None
    status: str | None = None
    type: str | None = None


class SessionList(_Answer):
    """The answer to ``POST /sessions``: always exactly one session."""

    items: list[Session] = Field(min_length=1)


class SessionState(_Answer):
    """What ``POST /sessions/byids`` says of a session: READY until its nonce is used, then ACTIVE."""

    status: str | None = None


class SessionStates(_Answer):
    """The answer about sessions by their ids."""

    items: list[SessionState] = Field(default_factory=list)


class WorkflowVersion(_Answer):
    """A version of a workflow; of interest is only that there is one."""


class TokenProject(_Answer):
    """A project that the token has access to."""

    project_url_name: str


class TokenInspection(_Answer):
    """
    What the token may do: ``GET /api/v1/token/inspect``.

    :param capabilities: ``[{"workflowOrchestrationAcl": {...}, "projectScope": {...}}, ...]``.
    """

    subject: str
    projects: list[TokenProject]
    capabilities: list[dict[str, Any]] = Field(default_factory=list)

    def granted_in(self, project: str) -> set[str]:
        """Return what the token may do in a project, such as ``workflowOrchestrationAcl:READ``."""
        if all(one.project_url_name != project for one in self.projects):
            return set()
        granted: set[str] = set()
        for capability in self.capabilities:
            scope = capability.get("projectScope") or {}
            if "allProjects" in scope or project in (scope.get("projects") or ()):
                for acl, grant in capability.items():
                    if acl.endswith("Acl") and isinstance(grant, dict):
                        granted |= {f"{acl}:{action}" for action in grant.get("actions") or ()}
        return granted
