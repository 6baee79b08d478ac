"""
The objects of CDF's Data Workflows API, with the names the API gives them.

Models only read. CDF adds statuses, task types and fields without notice (``functionApp`` tasks in March
2026), so whatever is unknown is kept as it came instead of refused. Only ids, statuses and cursors must be
what the API promises: any other field of a wrong type reads as if it were not there.

API reference: https://api-docs.cognite.com/20230101/tag/Workflow-executions
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Self, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    GetCoreSchemaHandler,
    OnErrorOmit,
    StringConstraints,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema


class _OpenEnum(StrEnum):
    """An enum that keeps a value it does not know as a member of its own instead of raising."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member


class _Status(_OpenEnum):
    """A status, which is compared in upper case: the Python SDK, for one, writes ``completed``."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        return cls.__members__.get(value.upper()) or super()._missing_(value.upper())


class WorkflowStatus(_Status):
    """Status of a workflow execution; whether it has ended, the execution knows."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    TERMINATED = "TERMINATED"


class TaskStatus(_Status):
    """Status of one attempt at a task of an execution; whether it has ended, the attempt knows."""

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
    def may_be_retried(self) -> bool:
        """Whether CDF may follow this attempt with another one while the execution is RUNNING."""
        return self in (TaskStatus.FAILED, TaskStatus.TIMED_OUT)


_GOES_ON = frozenset({"RUNNING", "SCHEDULED", "IN_PROGRESS"})
_ENDED_WORKFLOW = frozenset(WorkflowStatus) - _GOES_ON
_ENDED_TASK = frozenset(TaskStatus) - _GOES_ON

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


class _Else:
    """
    What is null, or of a wrong type, reads as the default.

    In pydantic's core, because a validator in Python would be called for each field of 200 tasks.
    """

    def __init__(self, default: Callable[[], Any]) -> None:
        self._default = default

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(
            handler(source), default_factory=self._default, on_error="default"
        )


class _NullIsEmpty:
    """Null reads as an empty list; anything else that is no such list is an error."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        empty = core_schema.with_default_schema(
            core_schema.list_schema(), default_factory=list, on_error="default"
        )
        null = core_schema.chain_schema([core_schema.none_schema(), empty])
        return core_schema.union_schema([handler(source), null], mode="left_to_right")


#: The most items of a list. CDF allows some hundred tasks in a workflow, and 1000 items on a page; 3 KB of
#: gzip can hold a million of anything.
MOST_ITEMS = 20_000


class _CountedFirst:
    """Counts the items of a list before any is left out of it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.chain_schema([core_schema.list_schema(max_length=MOST_ITEMS), handler(source)])


def _none() -> None:
    return None


#: In lower case, because it is compared.
_Uuid: TypeAlias = Annotated[str, StringConstraints(to_lower=True)]
_Text: TypeAlias = Annotated[str | None, _Else(_none)]
_Int: TypeAlias = Annotated[int | None, _Else(_none)]
#: Milliseconds since the epoch. What is no time, such as 10**400, does not fit a float either.
_Time: TypeAlias = Annotated[
    Annotated[int, Field(ge=-(10**15), le=10**15)] | None,
    _Else(_none),
]
_Object: TypeAlias = Annotated[dict[str, Any], _Else(dict)]
_ItemT = TypeVar("_ItemT")
#: The first item that is wrong is told of: an error for each of a million takes gigabytes.
_List: TypeAlias = Annotated[list[_ItemT], FailFast(), Field(max_length=MOST_ITEMS)]
_ListOrNull: TypeAlias = Annotated[_List[_ItemT], _NullIsEmpty()]


class _Answer(BaseModel):
    # Built at first use: DAG files import this module at every parse and seldom need it.
    model_config = ConfigDict(alias_generator=to_camel, extra="allow", frozen=True, defer_build=True)


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
    name: _Text = None
    description: _Text = None
    parameters: _Object = Field(default_factory=dict)
    retries: Annotated[int, _Else(lambda: 3)] = 3
    timeout: Annotated[float, _Else(lambda: 3600)] = 3600
    on_failure: Annotated[OnFailure, _Else(lambda: OnFailure.ABORT_WORKFLOW)] = OnFailure.ABORT_WORKFLOW
    depends_on: Annotated[_List[TaskReference], _Else(list)] = Field(default_factory=list)


class WorkflowDefinition(_Answer):
    """The definition that an execution was started with; later changes to the version do not touch it."""

    hash: _Text = None
    description: _Text = None
    # Whole or unreadable: that a task is not in it has consequences.
    tasks: _ListOrNull[TaskDefinition] = Field(default_factory=list)


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

    id: _Uuid
    external_id: str
    status: TaskStatus
    task_type: Annotated[TaskType | None, _Else(_none)] = None
    parent_task_external_id: str | None = None
    input: _Object = Field(default_factory=dict)
    output: _Object = Field(default_factory=dict)
    start_time: _Time = None
    end_time: _Time = None
    reason_for_incompletion: _Text = None

    @property
    def has_ended(self) -> bool:
        """
        Whether this attempt has ended. An unknown status goes on until there is an end time.

        SCHEDULED and IN_PROGRESS go on whatever else is said.
        """
        return self.status in _ENDED_TASK or (bool(self.end_time) and self.status not in _GOES_ON)

    def has_become(self, wanted: str) -> bool:
        """Whether this attempt is as a report wants it to be."""
        # What a reported failure becomes where the task's onFailure is skipTask.
        is_skipped = wanted != TaskStatus.COMPLETED and self.status == TaskStatus.COMPLETED_WITH_ERRORS
        return self.status == wanted or is_skipped

    @property
    def is_async_complete(self) -> bool | None:
        """
        Whether this task's end is reported from outside CDF; ``None`` if its input does not say.

        Executions from before 2024 say ``asyncComplete``. See
        :meth:`WorkflowExecutionDetails.is_async_complete`.
        """
        said = self.input.get("isAsyncComplete", self.input.get("asyncComplete"))
        if self.task_type is not None and self.task_type != TaskType.FUNCTION:
            return False
        return None if said is None else bool(said)


class WorkflowExecution(_Answer):
    """
    A workflow execution as lists and ``run`` answer it, without its tasks.

    :param id: UUID of the execution.
    :param engine_execution_id: UUID in the engine underneath; of use to Cognite's support only.
    :param created_time: milliseconds since the epoch, like ``start_time`` and ``end_time``.
    :param start_time: absent while the execution queues behind ``maxConcurrentExecutions``.
    :param metadata: strings by the specification; recorded executions hold numbers too.
    """

    id: _Uuid
    workflow_external_id: str
    status: WorkflowStatus
    version: _Text = None
    engine_execution_id: _Text = None
    created_time: _Time = None
    start_time: _Time = None
    end_time: _Time = None
    reason_for_incompletion: _Text = None
    metadata: _Object = Field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """
        Whether the execution has ended. An unknown status goes on until there is an end time.

        RUNNING goes on whatever else is said: CDF may leave the end time of before a retry.
        """
        return self.status in _ENDED_WORKFLOW or (bool(self.end_time) and self.status not in _GOES_ON)


class WorkflowExecutionDetails(WorkflowExecution):
    """
    A workflow execution with its input, its tasks and the definition it runs.

    :param executed_tasks: every attempt at every task that has been scheduled so far. A task that is not
        listed has not started; the order carries no meaning.
    """

    executed_tasks: _ListOrNull[TaskExecution] = Field(default_factory=list)
    input: _Object = Field(default_factory=dict)

    @cached_property
    def workflow_definition(self) -> WorkflowDefinition | None:
        """The definition it runs, read when it is asked for; ``None`` also if it cannot be read."""
        said = (self.model_extra or {}).get("workflowDefinition")
        try:
            return None if said is None else WorkflowDefinition.model_validate(said)
        except ValidationError:
            return None

    @property
    def says_it_ended(self) -> bool:
        """
        Whether it is RUNNING and has an end time, and no task has begun since.

        One that has begun since shows that the end time is of before a retry.
        """
        ended = self.end_time or 0
        has_begun_since = any((task.start_time or 0) > ended for task in self.executed_tasks)
        return ended > 0 and not self.has_ended and not has_begun_since


class ExecutionPage(_Answer):
    """One page of ``POST /workflows/executions/list``."""

    #: One that cannot be read is left out: it is not what is looked for by id, status or metadata.
    items: Annotated[_List[OnErrorOmit[WorkflowExecution]], _CountedFirst()]
    next_cursor: str | None = None


class UnreadableExecution(_Answer):
    """An item of a list that is no execution that can be read. It may be the one that is looked for."""

    id: Annotated[str, _Else(str)] = ""
    metadata: _Object = Field(default_factory=dict)


class WholePage(ExecutionPage):
    """One page of executions for those who conclude something from what is not in it."""

    items: Annotated[  # type: ignore[assignment]  # more than the base's items: none is left out
        _List[WorkflowExecution | UnreadableExecution], _CountedFirst()
    ]


class SessionType(StrEnum):
    """
    How CDF acts for a client while a workflow runs: https://api-docs.cognite.com/20230101/tag/Sessions.

    A one-shot session is not refreshed: it ends with its token, most often within the hour.
    """

    CLIENT_CREDENTIALS = "CLIENT_CREDENTIALS"
    TOKEN_EXCHANGE = "TOKEN_EXCHANGE"  # noqa: S105 - no password
    ONESHOT_TOKEN_EXCHANGE = "ONESHOT_TOKEN_EXCHANGE"  # noqa: S105 - no password


class Session(_Answer):
    """
    A session that a run acts under.

    :param nonce: proves the session to ``run`` and ``retry``; it works once and lives about a minute.
    """

    nonce: str = Field(repr=False)
    id: _Int = None
    status: _Text = None
    type: _Text = None


class SessionList(_Answer):
    """The answer to ``POST /sessions``: always exactly one session."""

    items: _List[Session] = Field(min_length=1)


class SessionState(_Answer):
    """What ``POST /sessions/byids`` says of a session: READY until its nonce is used, then ACTIVE."""

    status: str | None = None


class SessionStates(_Answer):
    """The answer about sessions by their ids."""

    items: _List[SessionState] = Field(default_factory=list)


class Workflow(_Answer):
    """A workflow; of interest is only that there is one."""


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

    subject: _Text = None
    projects: _List[TokenProject]
    capabilities: Annotated[_List[dict[str, Any]], _Else(list)] = Field(default_factory=list)

    def reaches(self, project: str) -> bool:
        """Whether the token has any access to a project."""
        return any(one.project_url_name == project for one in self.projects)

    def missing_in(self, project: str, *wanted: str) -> list[str]:
        """
        Return which capabilities the token lacks in a project; all of them if it does not reach the project.

        :param wanted: such as ``workflowOrchestrationAcl:READ``.
        """
        granted: set[str] = set()
        for capability in self.capabilities if self.reaches(project) else ():
            scope = capability.get("projectScope")
            if isinstance(scope, dict) and ("allProjects" in scope or project in _list_in(scope, "projects")):
                for acl, grant in capability.items():
                    if acl.endswith("Acl"):
                        granted |= {f"{acl}:{action}" for action in _list_in(grant, "actions")}
        return [capability for capability in wanted if capability not in granted]


def _list_in(said: Any, name: str) -> list[Any]:
    """Return a list from an object; an empty one if anything is not what it should be."""
    value = said.get(name) if isinstance(said, dict) else None
    return value if isinstance(value, list) else []
