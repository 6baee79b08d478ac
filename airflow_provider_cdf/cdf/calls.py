"""
Each call to CDF as a value: what to send, what comes back, and what it may be repeated for.

A call is checked when it is made, so that bad input is refused before anything is sent. The two clients in
``client.py`` send the same values.

API reference: https://api-docs.cognite.com/20230101/tag/Workflows
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from airflow_provider_cdf.cdf import reading
from airflow_provider_cdf.cdf.checks import (
    MAX_CANCEL_REASON,
    check_metadata,
    check_output,
    check_reportable,
    check_segment,
    check_uuid,
    checked_object,
    encode,
    is_uuid,
    one_of,
)
from airflow_provider_cdf.cdf.errors import CdfInputError
from airflow_provider_cdf.cdf.foreign import one_line
from airflow_provider_cdf.cdf.models import (
    ExecutionPage,
    SessionList,
    SessionStates,
    SessionType,
    TaskExecution,
    TokenInspection,
    Workflow,
    WorkflowExecution,
    WorkflowExecutionDetails,
    WorkflowStatus,
    WorkflowVersion,
)

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.settings import Settings

AnswerT = TypeVar("AnswerT", bound=BaseModel)


#: Metadata key by which the execution of one submission is found when its answer was lost.
SUBMIT_ID = "airflow_submit_id"
#: The most that a list answers at once.
PAGE_SIZE = 1000
#: What a client needs to run workflows, and to wait for their ends.
TO_RUN = ("workflowOrchestrationAcl:READ", "workflowOrchestrationAcl:WRITE", "sessionsAcl:CREATE")


class Repeat(Enum):
    """When the sender may repeat a call by itself."""

    #: Whenever it fails: a second execution does no harm.
    ALWAYS = "always"
    #: While CDF certainly has not executed it. Otherwise it has to be looked up what became of it.
    IF_NOT_EXECUTED = "if not executed"
    #: The sender never repeats it: a run's caller looks first what became of it, and the others are not worth
    #: a wait.
    NEVER = "never"


@dataclass(frozen=True)
class Call(Generic[AnswerT]):
    """
    One request to CDF.

    :param purpose: completes "CDF refused to ..." in error messages; in few words, and without an id.
    :param which: names what it is about, for the end of error messages.
    :param path: below the base URL; external ids in it are percent-encoded.
    :param answer: the model that reads a successful answer.
    :param content: the JSON body, to the byte; hidden from ``repr`` because a session request holds a secret.
    :param repeat: when the sender may repeat it.
    :param changes_nothing: whether it changes nothing in CDF.
    :param capability: the CDF capability that the client needs, for the message of a 403.
    :param also_needed: what the same work needs beside it, so that one message names all that is missing.
    :param secrets: what is in the body and must not come back in a message.
    :param other_subject: returns what an answer is about, in words, if that is not what was asked for. A
        gateway may mix up answers, and another execution's end must not count as the end of this one.
    :param is_carried_out: whether an answer that is about something else shows that CDF has done it.
    :param parse: reads a successful answer instead of the model, for those who need a part of it only.
    :param anew: makes the call by the settings of the one who sends it, at each try: a secret in it may have
        been renewed since it was made.
    """

    purpose: str
    method: Literal["GET", "POST"]
    path: str
    answer: type[AnswerT]
    which: str = ""
    content: bytes | None = field(default=None, repr=False)
    repeat: Repeat = Repeat.IF_NOT_EXECUTED
    changes_nothing: bool = False
    capability: str = "workflowOrchestrationAcl:WRITE"
    also_needed: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    other_subject: Callable[[AnswerT], str | None] = field(default=lambda _: None, repr=False, compare=False)
    is_carried_out: Callable[[AnswerT], bool] = field(default=lambda _: False, repr=False, compare=False)
    parse: Callable[[bytes], AnswerT] | None = field(default=None, repr=False, compare=False)
    anew: Callable[[Settings], Call[AnswerT]] | None = field(default=None, repr=False, compare=False)


def inspect_token() -> Call[TokenInspection]:
    """Ask whose token this is, and what it may do in which projects."""
    return Call(
        purpose="inspect the access token",
        method="GET",
        path="/api/v1/token/inspect",
        answer=TokenInspection,
        repeat=Repeat.NEVER,
        changes_nothing=True,
        capability="",
    )


def create_session(
    project: str,
    *,
    what_for: str,
    session_type: SessionType = SessionType.CLIENT_CREDENTIALS,
    client_id: str = "",
    client_secret: str = "",
) -> Call[SessionList]:
    """
    Open a session; its nonce works once and lives about a minute, so make it just before its use.

    :param what_for: completes "a session to ..." in error messages.
    :param session_type: how CDF is to act for the client.
    :param client_id: with its secret, for client credentials. The others exchange the request's own token.
    """
    items: dict[SessionType, dict[str, Any]] = {
        SessionType.CLIENT_CREDENTIALS: {"clientId": client_id, "clientSecret": client_secret},
        SessionType.TOKEN_EXCHANGE: {"tokenExchange": True},
        SessionType.ONESHOT_TOKEN_EXCHANGE: {"oneshotTokenExchange": True},
    }
    return Call(
        purpose=f"create a session to {what_for}",
        method="POST",
        path=f"{_project(project)}/sessions",
        answer=SessionList,
        content=encode({"items": [items[session_type]]}, "session request"),
        repeat=Repeat.ALWAYS,
        capability="sessionsAcl:CREATE",
        also_needed=TO_RUN,  # sessions are made for runs and retries only
        secrets=(client_secret,) if session_type is SessionType.CLIENT_CREDENTIALS else (),
    )


def read_session(project: str, session_id: int) -> Call[SessionStates]:
    """Ask whether a session's nonce has been used: it is READY before, and ACTIVE after."""
    return _of_session(
        "byids", "read", project, session_id, changes_nothing=True, capability="sessionsAcl:LIST"
    )


def revoke_session(project: str, session_id: int) -> Call[SessionStates]:
    """End a session. What runs under it loses its access, within an hour."""
    return _of_session(
        "revoke", "revoke", project, session_id, changes_nothing=False, capability="sessionsAcl:DELETE"
    )


def _of_session(
    path: str, verb: str, project: str, session_id: int, *, changes_nothing: bool, capability: str
) -> Call[SessionStates]:
    return Call(
        purpose=f"{verb} the session",
        which=f"session {session_id}",
        method="POST",
        path=f"{_project(project)}/sessions/{path}",
        answer=SessionStates,
        content=encode({"items": [{"id": session_id}]}, "session request"),
        # Nothing depends on it: it saves time, or room in CDF.
        repeat=Repeat.NEVER,
        changes_nothing=changes_nothing,
        capability=capability,
    )


def run(
    project: str,
    workflow_external_id: str,
    version: str,
    *,
    nonce: str,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's own name
    metadata: Mapping[str, str] | None = None,
) -> Call[WorkflowExecution]:
    """Start an execution. The same nonce a second time is refused; another nonce starts another execution."""
    what = f"workflow {workflow_external_id!r} version {version!r}"
    body: dict[str, Any] = {"authentication": {"nonce": nonce}}
    if input is not None:
        body["input"] = checked_object(input, "input", what)
    if metadata is not None:
        body["metadata"] = check_metadata(metadata, what)
    submit_id = (metadata or {}).get(SUBMIT_ID)

    def is_of_the_workflow(started: WorkflowExecution) -> bool:
        return started.workflow_external_id == workflow_external_id and started.version in (None, version)

    def other_subject(started: WorkflowExecution) -> str | None:
        if not is_of_the_workflow(started):
            return f"version {started.version!r} of workflow {started.workflow_external_id!r}"
        if not is_uuid(started.id):
            return f"a run whose id is no UUID, {one_line(started.id, 60)!r}"
        has_its_id = started.metadata.get(SUBMIT_ID) == submit_id
        if submit_id is None or has_its_id or _is_what_is_left_of(started.metadata, metadata or {}):
            return None
        return f"another run, {started.id}"

    return Call(
        purpose="run the workflow",
        which=what,
        method="POST",
        path=f"{_workflows(project)}/{_segment(workflow_external_id, 'workflow_external_id')}"
        f"/versions/{_segment(version, 'version')}/run",
        answer=WorkflowExecution,
        content=encode(body, f"request to run {what}"),
        repeat=Repeat.NEVER,
        also_needed=TO_RUN,
        secrets=(nonce,),
        other_subject=other_subject,
        is_carried_out=is_of_the_workflow,  # an execution has taken the nonce
    )


def get_version(project: str, workflow_external_id: str, version: str) -> Call[WorkflowVersion]:
    """Ask whether a version of a workflow exists."""
    return Call(
        purpose="read the version of the workflow",
        which=f"workflow {workflow_external_id!r} version {version!r}",
        method="GET",
        path=f"{_workflows(project)}/{_segment(workflow_external_id, 'workflow_external_id')}"
        f"/versions/{_segment(version, 'version')}",
        answer=WorkflowVersion,
        repeat=Repeat.ALWAYS,
        changes_nothing=True,
        capability="workflowOrchestrationAcl:READ",
    )


def get_workflow(project: str, workflow_external_id: str) -> Call[Workflow]:
    """Ask whether a workflow exists."""
    return Call(
        purpose="read the workflow",
        which=f"workflow {workflow_external_id!r}",
        method="GET",
        path=f"{_workflows(project)}/{_segment(workflow_external_id, 'workflow_external_id')}",
        answer=Workflow,
        repeat=Repeat.ALWAYS,
        changes_nothing=True,
        capability="workflowOrchestrationAcl:READ",
    )


def get_execution(project: str, execution_id: str) -> Call[WorkflowExecutionDetails]:
    """Read an execution with its tasks."""
    return Call(
        purpose="read the execution",
        which=f"execution {execution_id}",
        method="GET",
        path=f"{_workflows(project)}/executions/{check_uuid(execution_id, 'execution_id')}",
        answer=WorkflowExecutionDetails,
        repeat=Repeat.ALWAYS,
        changes_nothing=True,
        other_subject=_another("execution", execution_id),
        capability="workflowOrchestrationAcl:READ",
    )


def list_executions(
    project: str,
    *,
    workflow_external_id: str | None = None,
    version: str | None = None,
    status: str | Sequence[str] | None = None,
    created_after: datetime | None = None,
    cursor: str | None = None,
) -> Call[ExecutionPage]:
    """Read one page of executions, without their tasks."""
    if version is not None and workflow_external_id is None:
        raise CdfInputError("A version narrows down a workflow: give workflow_external_id with it.")
    what: dict[str, Any] = {}
    if workflow_external_id is not None:
        workflow = {"externalId": workflow_external_id}
        what["workflowFilters"] = [workflow | ({"version": version} if version is not None else {})]
    if status is not None:
        statuses = [status] if isinstance(status, str) else list(status)
        known = (one_of(WorkflowStatus, one, tuple(WorkflowStatus)) for one in statuses)
        what["status"] = list(dict.fromkeys(known))
    if created_after is not None:
        if created_after.tzinfo is None:
            raise CdfInputError(f"created_after needs a time zone: {created_after.isoformat()} has none.")
        what["createdTimeStart"] = int(created_after.timestamp() * 1000)
    body: dict[str, Any] = {"limit": PAGE_SIZE}
    if what:
        body["filter"] = what
    if cursor is not None:
        body["cursor"] = cursor
    return Call(
        purpose="list executions",
        which=f"workflow {workflow_external_id!r}" if workflow_external_id else "",
        method="POST",
        path=f"{_workflows(project)}/executions/list",
        answer=ExecutionPage,
        content=encode(body, "list request"),
        repeat=Repeat.ALWAYS,
        changes_nothing=True,
        capability="workflowOrchestrationAcl:READ",
    )


def poll_execution(
    project: str, execution_id: str, polls: reading.ExecutionPolls
) -> Call[WorkflowExecutionDetails]:
    """
    Read of an execution what decides a wait: no inputs and outputs.

    :param polls: who has read the polls before this one.
    """
    return replace(get_execution(project, execution_id), parse=polls.read)


def poll_executions(project: str, poll: reading.ListPoll, cursor: str | None = None) -> Call[ExecutionPage]:
    """
    Read one page of the executions that are RUNNING: no metadata.

    :param poll: who reads all pages of it.
    """
    return replace(
        list_executions(project, status=WorkflowStatus.RUNNING, cursor=cursor),
        purpose="list the executions that are RUNNING",
        parse=poll.read,
    )


def cancel(project: str, execution_id: str, reason: str | None = None) -> Call[WorkflowExecution]:
    """
    End an execution as TERMINATED.

    Its running tasks become CANCELED; a function call or transformation job that one of them has started
    goes on by itself. A reason longer than CDF's 500 characters is cut: to leave the execution running
    because of it would be worse.
    """
    body = {} if not reason else {"reason": reason[:MAX_CANCEL_REASON]}
    return Call(
        purpose="cancel the execution",
        which=f"execution {execution_id}",
        method="POST",
        path=f"{_workflows(project)}/executions/{check_uuid(execution_id, 'execution_id')}/cancel",
        answer=WorkflowExecution,
        content=encode(body, "cancel request"),
        other_subject=_another("execution", execution_id),
    )


def retry(project: str, execution_id: str, *, nonce: str) -> Call[WorkflowExecution]:
    """Run the failed tasks of an execution that ended badly once more, under the same execution id."""
    return Call(
        purpose="retry the execution",
        which=f"execution {execution_id}",
        method="POST",
        path=f"{_workflows(project)}/executions/{check_uuid(execution_id, 'execution_id')}/retry",
        answer=WorkflowExecution,
        content=encode({"authentication": {"nonce": nonce}}, "retry request"),
        repeat=Repeat.NEVER,
        secrets=(nonce,),
        other_subject=_another("execution", execution_id),
    )


def update_task(
    project: str, cdf_task_id: str, status: str, output: Mapping[str, Any] | None = None
) -> Call[TaskExecution]:
    """Report the end of a task that waits for it (``isAsyncComplete``)."""
    wanted = check_reportable(status)
    body: dict[str, Any] = {"status": wanted}
    if output is not None:
        body["output"] = check_output(output, f"task {cdf_task_id}")
    is_another = _another("task", cdf_task_id)

    def other_subject(answer: TaskExecution) -> str | None:
        other = is_another(answer)
        return other or (None if answer.has_become(wanted) else f"a task that is {answer.status}")

    return Call(
        purpose=f"set the task to {wanted}",
        which=f"task {cdf_task_id}",
        method="POST",
        path=f"{_workflows(project)}/tasks/{check_uuid(cdf_task_id, 'cdf_task_id')}/update",
        answer=TaskExecution,
        content=encode(body, "task update"),
        other_subject=other_subject,
    )


def _another(kind: str, asked_for: str) -> Callable[[WorkflowExecution | TaskExecution], str | None]:
    """Return what says so if an answer is about another id than the one that was asked for."""

    def other_subject(answer: WorkflowExecution | TaskExecution) -> str | None:
        return None if answer.id == asked_for.lower() else f"another {kind}, {one_line(answer.id, 40)}"

    return other_subject


def _is_what_is_left_of(answered: Mapping[str, Any], sent: Mapping[str, str]) -> bool:
    """Whether metadata is all that was sent, or some of it, or is cut."""
    return all(key in sent and sent[key].startswith(str(value)) for key, value in answered.items())


def _project(project: str) -> str:
    return f"/api/v1/projects/{_segment(project, 'project')}"


def _workflows(project: str) -> str:
    return f"{_project(project)}/workflows"


def _segment(value: object, name: str) -> str:
    try:
        return quote(check_segment(value, name), safe="")
    except UnicodeEncodeError:
        raise CdfInputError(f"{name} is not text that can be sent: {value!r}.") from None
