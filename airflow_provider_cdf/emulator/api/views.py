"""Records as the API shows them: camelCase, and keys without a value absent."""

from __future__ import annotations

from typing import Any

from airflow_provider_cdf.emulator.rules.sessions import Session, Sessions
from airflow_provider_cdf.emulator.rules.store import Execution, TaskExecution, Trigger, Version, Workflow

Json = dict[str, Any]


def workflow(record: Workflow) -> Json:
    return _present(
        externalId=record.external_id,
        description=record.description,
        dataSetId=record.data_set_id,
        dataDomainExternalId=record.data_domain_external_id,
        maxConcurrentExecutions=record.max_concurrent_executions,
        createdTime=record.created_time,
        lastUpdatedTime=record.last_updated_time,
    )


def version(record: Version) -> Json:
    return {
        "workflowExternalId": record.workflow_external_id,
        "version": record.version,
        "workflowDefinition": record.shown,
        "createdTime": record.created_time,
        "lastUpdatedTime": record.last_updated_time,
    }


def execution(record: Execution) -> Json:
    return _present(
        id=record.id,
        workflowExternalId=record.workflow_external_id,
        version=record.version.version,
        status=record.status,
        engineExecutionId=record.engine_execution_id,
        createdTime=record.created_time,
        startTime=record.start_time,
        endTime=record.end_time,
        reasonForIncompletion=record.reason,
        metadata=record.metadata,
    )


def execution_details(record: Execution) -> Json:
    return {
        **execution(record),
        "workflowDefinition": record.version.shown,
        "input": record.input,
        "executedTasks": [task(attempt) for attempt in record.tasks()],
    }


def task(record: TaskExecution) -> Json:
    return _present(
        id=record.id,
        externalId=record.external_id,
        parentTaskExternalId=record.planned.parent,
        status=record.status,
        taskType=record.definition.type,
        startTime=record.start_time,
        endTime=record.end_time,
        input=record.input,
        output=record.output,
        reasonForIncompletion=record.reason,
    )


def trigger(record: Trigger) -> Json:
    return _present(
        externalId=record.external_id,
        triggerRule=record.rule,
        input=record.input,
        metadata=record.metadata,
        workflowExternalId=record.workflow_external_id,
        workflowVersion=record.workflow_version,
        createdTime=record.created_time,
        lastUpdatedTime=record.last_updated_time,
        isPaused=record.is_paused,
    )


def new_session(sessions: Sessions, record: Session) -> Json:
    return _present(
        id=record.id,
        type=record.type,
        status=sessions.status(record),
        nonce=record.nonce,
        clientId=record.client_id,
    )


def session(sessions: Sessions, record: Session) -> Json:
    return _present(
        id=record.id,
        type=record.type,
        status=sessions.status(record),
        creationTime=record.creation_time,
        expirationTime=record.expiration_time,
        clientId=record.client_id,
    )


def _present(**keys: Any) -> Json:
    return {key: value for key, value in keys.items() if value is not None}
