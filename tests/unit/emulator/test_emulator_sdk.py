"""Cognite's official SDK against the emulator, as its own documentation and integration tests use it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest
from cognite.client import ClientConfig, CogniteClient, global_config
from cognite.client.credentials import OAuthClientCredentials
from cognite.client.data_classes import (
    CDFTaskParameters,
    DynamicTaskParameters,
    FunctionTaskParameters,
    SimulationTaskParameters,
    SubworkflowTaskParameters,
    TransformationTaskParameters,
    WorkflowDefinitionUpsert,
    WorkflowExecution,
    WorkflowTask,
    WorkflowTriggerUpsert,
    WorkflowUpsert,
    WorkflowVersionUpsert,
)
from cognite.client.data_classes.workflows import SubworkflowReferenceParameters, WorkflowScheduledTriggerRule
from cognite.client.exceptions import CogniteAPIError, CogniteNotFoundError, CogniteOAuthError

from airflow_provider_cdf.emulator import CdfEmulator


def sdk_client(cdf: CdfEmulator, **changes: str) -> CogniteClient:
    # Else the SDK asks PyPI for its newest version at each start.
    global_config.disable_pypi_version_check = True
    login = {"client_id": cdf.client_id, "client_secret": cdf.client_secret, **changes}
    credentials = OAuthClientCredentials(token_url=cdf.token_url, scopes=[], **login)
    return CogniteClient(
        ClientConfig(client_name="tests", project=cdf.project, base_url=cdf.url, credentials=credentials)
    )


@pytest.fixture(scope="module")
def client(cdf: CdfEmulator) -> Iterator[CogniteClient]:
    return sdk_client(cdf)


def upsert(client: CogniteClient, name: str, *tasks: WorkflowTask) -> WorkflowVersionUpsert:
    version = WorkflowVersionUpsert(name, "1", WorkflowDefinitionUpsert(list(tasks), description="d"))
    client.workflows.versions.upsert(version)
    return version


def async_task(external_id: str, **keys: object) -> WorkflowTask:
    return WorkflowTask(external_id, FunctionTaskParameters("f", data={}, is_async_complete=True), **keys)


def ended(client: CogniteClient, execution_id: str) -> WorkflowExecution:
    for _ in range(500):
        details = client.workflows.executions.retrieve_detailed(execution_id)
        if details.status != "running":
            return details
        time.sleep(0.01)
    raise AssertionError(f"Execution {execution_id} is still {details.status}")


def test_workflow_upsert_equals_what_is_read(client: CogniteClient) -> None:
    workflow = WorkflowUpsert(external_id="sdk", description="d", max_concurrent_executions=5)
    upserted = client.workflows.upsert(workflow)
    assert upserted.as_write().dump() == workflow.dump()
    assert client.workflows.retrieve("sdk").dump() == upserted.dump()
    assert upserted.dump() in [listed.dump() for listed in client.workflows.list(limit=None)]
    assert client.workflows.retrieve("nobody") is None


def test_version_upsert_equals_what_is_read(client: CogniteClient) -> None:
    tasks = [async_task("a"), async_task("b", depends_on=["a"], retries=0, timeout=120)]
    version = WorkflowVersionUpsert("sdk-version", "1", WorkflowDefinitionUpsert(tasks, description="d"))
    upserted = client.workflows.versions.upsert(version)
    assert upserted.as_write().dump() == version.dump()
    assert client.workflows.versions.retrieve(("sdk-version", "1")).dump() == upserted.dump()
    for ids in ("sdk-version", ("sdk-version", "1"), [("sdk-version", "1")]):
        (listed,) = client.workflows.versions.list(ids)
        assert listed.dump() == upserted.dump()
    assert client.workflows.versions.retrieve(("sdk-version", "2")) is None


def test_cognites_own_example_of_a_task_update(client: CogniteClient) -> None:
    upsert(client, "sdk-update", async_task("first"), async_task("second", retries=0))
    started = client.workflows.executions.run("sdk-update", "1", input={"x": 1}, metadata={"k": "v"})
    details = client.workflows.executions.retrieve_detailed(started.id)
    assert details.as_execution().dump() == started.dump()
    first, second = details.executed_tasks
    assert client.workflows.tasks.update(first.id, "completed").status == "completed"
    failed = client.workflows.tasks.update(second.id, "failed", output={"a": 1, "b": 2})
    assert failed.status == "failed"
    done = client.workflows.executions.retrieve_detailed(started.id)
    assert done.status == "failed"
    with pytest.raises(CogniteAPIError, match=f"Task with id {first.id} is already in a terminal state"):
        client.workflows.tasks.update(first.id, "completed")


def test_cdf_task_completes_and_can_be_cancelled_before(client: CogniteClient) -> None:
    parameters = CDFTaskParameters(resource_path="/timeseries", method="GET")
    upsert(client, "sdk-cdf", WorkflowTask("list", parameters))
    first = client.workflows.executions.run("sdk-cdf", "1")
    second = client.workflows.executions.run("sdk-cdf", "1")
    cancelled = client.workflows.executions.cancel(second.id, reason="test")
    assert (cancelled.status, cancelled.reason_for_incompletion) == ("terminated", "test")
    retried = client.workflows.executions.retry(second.id)
    assert (retried.status, retried.id) == ("running", second.id)
    done = ended(client, first.id)
    assert done.status == "completed"
    assert done.executed_tasks[0].output.response == {"items": []}
    (listed,) = client.workflows.executions.list([("sdk-cdf", "1")], statuses="completed", limit=1)
    assert listed.dump() == done.as_execution().dump()


def test_delete_of_unknown_workflows(client: CogniteClient) -> None:
    upsert(client, "sdk-delete", async_task("a"))
    with pytest.raises(CogniteNotFoundError, match="workflows were not found"):
        client.workflows.delete(["sdk-delete", "nobody"])
    client.workflows.versions.delete(("sdk-delete", "1"))
    client.workflows.delete(["sdk-delete", "nobody"], ignore_unknown_ids=True)
    assert client.workflows.retrieve("sdk-delete") is None


def test_id_that_is_no_uuid_is_none(client: CogniteClient) -> None:
    assert client.workflows.executions.retrieve_detailed("not-a-uuid") is None


def test_sessions(client: CogniteClient) -> None:
    created = client.iam.sessions.create()
    assert created.nonce
    assert created.id in [session.id for session in client.iam.sessions.list(limit=None)]
    assert client.iam.sessions.retrieve(created.id).status == "READY"
    assert client.iam.sessions.revoke(created.id).status == "REVOKED"


def test_wrong_secret(cdf: CdfEmulator) -> None:
    with pytest.raises(CogniteOAuthError, match="invalid_client"):
        sdk_client(cdf, client_secret="guess").workflows.list()


def test_triggers(client: CogniteClient) -> None:
    upsert(client, "sdk-trigger", async_task("a"))
    rule = WorkflowScheduledTriggerRule(cron_expression="*/15 * * * *", timezone=ZoneInfo("Europe/Oslo"))
    trigger = WorkflowTriggerUpsert("sdk-t", rule, "sdk-trigger", "1", input={"x": 1}, metadata={"k": "v"})
    upserted = client.workflows.triggers.upsert(trigger)
    assert upserted.trigger_rule == rule
    assert upserted.dump() in [listed.dump() for listed in client.workflows.triggers.list(limit=None)]
    client.workflows.triggers.pause("sdk-t")
    assert client.workflows.triggers.list(limit=None)[0].is_paused
    client.workflows.triggers.resume("sdk-t")
    assert client.workflows.triggers.list_runs("sdk-t") == []
    with pytest.raises(CogniteAPIError, match=r"Workflow trigger not found\."):
        client.workflows.triggers.list_runs("nobody")
    client.workflows.triggers.delete("sdk-t")
    assert client.workflows.triggers.list(limit=None) == []


def test_every_type_of_task(cdf: CdfEmulator, client: CogniteClient) -> None:
    upsert(client, "sdk-inner", WorkflowTask("inner", CDFTaskParameters("/timeseries/list", "POST", body={})))
    generated = WorkflowTask("generated", FunctionTaskParameters("f", data={})).dump()
    cdf.engine.functions.set("generate", {"tasks": [generated]})
    reference = "${generate.output.response.tasks}"
    upsert(
        client,
        "sdk-types",
        WorkflowTask("generate", FunctionTaskParameters("generate", data={})),
        WorkflowTask("t", TransformationTaskParameters("non-existing-transformation")),
        WorkflowTask("d", DynamicTaskParameters(reference), depends_on=["generate"]),
        WorkflowTask("inline", SubworkflowTaskParameters([WorkflowTask("x", FunctionTaskParameters("f"))])),
        WorkflowTask("reference", SubworkflowReferenceParameters("sdk-inner", "1")),
        WorkflowTask("s", SimulationTaskParameters("routine")),
    )
    started = client.workflows.executions.run("sdk-types", "1")
    done = ended(client, started.id)
    assert done.status == "completed"
    assert {attempt.external_id: attempt.task_type for attempt in done.executed_tasks} == {
        "generate": "function",
        "t": "transformation",
        "d": "dynamic",
        "inline": "subworkflow",
        "reference": "subworkflow",
        "s": "simulation",
        "inner": "cdf",
        "generated": "function",
        "x": "function",
    }
    listed = client.workflows.versions.list([("sdk-types", "1")])[0]
    assert listed.dump() == client.workflows.versions.retrieve(("sdk-types", "1")).dump()


def test_what_the_sdk_needs_around_workflows(client: CogniteClient) -> None:
    (data_set,) = client.data_sets.list(limit=1)
    assert client.data_sets.retrieve(data_set.id).dump() == data_set.dump()
    assert client.time_series.list(limit=5) == []
    assert client.functions.retrieve(external_id="nobody") is None
    created = client.functions.create(name="made", external_id="made", function_handle=handle)
    assert client.functions.retrieve(external_id="made").status == "Ready"
    assert client.functions.retrieve(id=created.id).external_id == "made"
    client.functions.delete(external_id="made")
    assert client.functions.retrieve(external_id="made") is None


def handle(data: dict) -> dict:
    return data
