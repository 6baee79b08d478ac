"""CdfHook and its twins for coroutines against the emulator: they do the same."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from operators.clear_errors import assert_clear
from support import Project, function_task

from airflow_provider_cdf.cdf.errors import CdfApiError, CdfError, CdfLoginError, CdfUnreachableError
from airflow_provider_cdf.cdf.retry import RETRY_FOR
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.emulator.api import routes_sessions
from airflow_provider_cdf.hooks.cdf import CdfHook

UNKNOWN = "11111111-2222-4333-8444-555555555555"
NOBODY = "http://127.0.0.1:9"
WRONG_SECRET = "wr0ng-s3cr3t"

Call = Callable[..., Any]


@pytest.fixture(params=["for threads", "for coroutines"])
def call(request: pytest.FixtureRequest, cdf_default: CdfEmulator) -> Call:
    """Call a method of the hook, or its twin, by the method's name."""

    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        hook = CdfHook(retry_for=0)
        try:
            result = getattr(hook, name)(*args, **kwargs)
            return list(result) if isinstance(result, Iterator) else result
        finally:
            hook.close()

    async def acall(name: str, *args: Any, **kwargs: Any) -> Any:
        hook = CdfHook(retry_for=0)
        try:
            result = getattr(hook, f"a{name}")(*args, **kwargs)
            if isinstance(result, AsyncIterator):
                return [item async for item in result]
            return await result
        finally:
            await hook.aclose()

    if request.param == "for threads":
        return call
    return lambda name, *args, **kwargs: asyncio.run(acall(name, *args, **kwargs))


@pytest.fixture
def execution_id(project: Project) -> str:
    """An execution whose task ``approve`` is IN_PROGRESS."""
    execution_id = project.run(project.define(function_task("approve", waits=True)))
    project.task(execution_id, "approve")
    return execution_id


class TestSignatures:
    NAMES = (
        "run_workflow",
        "get_execution",
        "list_executions",
        "cancel_execution",
        "retry_execution",
        "update_task",
        "test_connection",
    )

    @pytest.mark.parametrize("name", NAMES)
    def test_each_method_has_a_twin_with_the_same_parameters(self, name: str) -> None:
        method, twin = getattr(CdfHook, name), getattr(CdfHook, f"a{name}")

        assert inspect.signature(method).parameters == inspect.signature(twin).parameters

    def test_the_default_connection_is_cdf_default(self) -> None:
        assert CdfHook.conn_type == "cdf"
        assert CdfHook().cdf_conn_id == "cdf_default"

    def test_a_sibling_has_another_patience_and_does_not_ask_for_the_connection_again(
        self, cdf_default: CdfEmulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hook = CdfHook()
        assert not hook.is_connected
        assert hook.client.settings.retry_for == RETRY_FOR
        assert hook.is_connected
        monkeypatch.delenv("AIRFLOW_CONN_CDF_DEFAULT")

        settings = hook.sibling(retry_for=0, request_timeout=3).client.settings

        assert (settings.retry_for, settings.request_timeout) == (0, 3)
        assert settings.base_url == cdf_default.url

    def test_making_a_hook_looks_for_no_connection(self) -> None:
        CdfHook("no_such_connection")


class TestRunWorkflow:
    def test_starts_an_execution(self, call: Call, project: Project) -> None:
        workflow = project.define(function_task("approve", waits=True), version="v 2/ø")

        execution = call(
            "run_workflow", workflow, "v 2/ø", input={"pump": "P-77"}, metadata={"site": "Aukra"}
        )

        (started,) = project.executions(workflow)
        assert execution.id == started["id"]
        assert execution.status == "RUNNING"
        assert execution.workflow_external_id == workflow
        assert execution.version == "v 2/ø"
        assert execution.metadata == {"site": "Aukra", "airflow_submit_id": ANY}
        assert project.execution(execution.id)["input"]["pump"] == "P-77"

    @pytest.mark.parametrize(
        "arguments",
        [
            {"metadata": {f"key{number}": "value" for number in range(11)}},
            {"input": {"a": "x" * 100_000}},
        ],
        ids=["metadata", "input"],
    )
    def test_refuses_what_cdf_would_not_take_before_anything_is_sent(
        self, arguments: Any, call: Call, project: Project
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))

        with pytest.raises(AirflowFailException) as error:
            call("run_workflow", workflow, "1", **arguments)

        assert_clear(error.value, workflow)
        assert project.executions(workflow) == []

    def test_runs_two_in_a_row_each_under_a_session_of_its_own(self, call: Call, project: Project) -> None:
        workflow = project.define(function_task("approve", waits=True))

        ids = {call("run_workflow", workflow, "1").id for _ in range(2)}

        assert ids == {execution["id"] for execution in project.executions(workflow)}


class TestExecutions:
    def test_get_reads_an_execution_with_its_tasks(
        self, call: Call, project: Project, execution_id: str
    ) -> None:
        execution = call("get_execution", execution_id)

        (task,) = execution.executed_tasks
        known = project.task(execution_id, "approve")
        assert (execution.id, execution.status) == (execution_id, "RUNNING")
        assert (task.id, task.external_id, task.status) == (known["id"], "approve", "IN_PROGRESS")
        assert task.input == known["input"]
        assert task.start_time == known["startTime"]

    def test_list_finds_the_executions_of_a_workflow_and_version(self, call: Call, project: Project) -> None:
        workflow = project.define(function_task("approve", waits=True))
        first, second = project.run(workflow), project.run(workflow)
        project.run(project.define(function_task("approve", waits=True)))

        assert [found.id for found in call("list_executions", workflow_external_id=workflow)] == [
            first,
            second,
        ]
        assert call("list_executions", workflow_external_id=workflow, version="2") == []

    def test_list_filters_by_status_in_any_case(self, call: Call, project: Project) -> None:
        workflow = project.define(function_task("approve", waits=True))
        cancelled, _ = project.run(workflow), project.run(workflow)
        project.cancel(cancelled)

        found = call("list_executions", workflow_external_id=workflow, status=["Terminated", "failed"])

        assert [execution.id for execution in found] == [cancelled]

    def test_list_filters_by_time(self, call: Call, project: Project, execution_id: str) -> None:
        workflow = project.execution(execution_id)["workflowExternalId"]
        hour = timedelta(hours=1)
        now = datetime.now(UTC)

        assert call("list_executions", workflow_external_id=workflow, created_after=now - hour)
        assert not call("list_executions", workflow_external_id=workflow, created_after=now + hour)

    def test_list_goes_through_all_pages(self, call: Call, cdf: CdfEmulator, project: Project) -> None:
        workflow = project.define()
        with cdf.turn() as engine:
            ids = [engine.run(workflow, "1").id for _ in range(1001)]

        found = [execution.id for execution in call("list_executions", workflow_external_id=workflow)]

        assert found == ids

    def test_cancel_ends_an_execution_with_a_reason(
        self, call: Call, project: Project, execution_id: str
    ) -> None:
        execution = call("cancel_execution", execution_id, "Anna stopped it")

        assert execution.status == "TERMINATED"
        assert project.execution(execution_id)["reasonForIncompletion"] == "Anna stopped it"

    def test_cancel_works_without_a_reason(self, call: Call, project: Project, execution_id: str) -> None:
        call("cancel_execution", execution_id)

        assert project.execution(execution_id)["status"] == "TERMINATED"

    def test_retry_runs_the_failed_tasks_again_under_the_same_id(
        self, call: Call, project: Project, execution_id: str
    ) -> None:
        project.update(project.task(execution_id, "approve")["id"], "FAILED")

        execution = call("retry_execution", execution_id)

        assert (execution.id, execution.status) == (execution_id, "RUNNING")
        assert project.task(execution_id, "approve", "IN_PROGRESS")

    @pytest.mark.parametrize("name", ["get_execution", "cancel_execution", "retry_execution"])
    def test_an_execution_that_does_not_exist_is_named(self, name: str, call: Call, cdf: CdfEmulator) -> None:
        with pytest.raises(CdfApiError) as error:
            call(name, UNKNOWN)

        assert_clear(error.value, UNKNOWN, cdf.project, secrets=[cdf.client_secret])
        assert error.value.code == 404

    @pytest.mark.parametrize("name", ["get_execution", "cancel_execution", "retry_execution"])
    def test_an_id_that_is_no_uuid_is_not_sent(self, name: str, call: Call) -> None:
        with pytest.raises(AirflowFailException) as error:
            call(name, "../../sessions")

        assert_clear(error.value, "execution_id", "UUID", "../../sessions")


class TestUpdateTask:
    @pytest.mark.parametrize(
        ("status", "with_execution"),
        [("completed", True), ("FAILED", False), ("Failed_With_Terminal_Error", True)],
    )
    def test_ends_a_task_with_an_output(
        self, status: str, with_execution: bool, call: Call, project: Project, execution_id: str
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        more = {"execution_id": execution_id} if with_execution else {}

        task = call("update_task", cdf_task_id, status, {"risk": 0.72}, **more)

        assert (task.id, task.status) == (cdf_task_id, status.upper())
        assert task.output["risk"] == 0.72
        assert project.task(execution_id, "approve", status.upper())["output"]["risk"] == 0.72

    def test_a_task_that_has_the_status_already_is_fine_with_its_execution(
        self, call: Call, project: Project, execution_id: str
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        project.update(cdf_task_id, "COMPLETED")

        task = call("update_task", cdf_task_id, "completed", execution_id=execution_id)

        assert (task.id, task.status) == (cdf_task_id, "COMPLETED")

    @pytest.mark.parametrize("with_execution", [True, False])
    def test_a_task_that_has_ended_in_another_status_is_an_error(
        self, with_execution: bool, call: Call, project: Project, execution_id: str
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        project.update(cdf_task_id, "FAILED")
        more = {"execution_id": execution_id} if with_execution else {}

        with pytest.raises(AirflowException) as error:
            call("update_task", cdf_task_id, "completed", **more)

        assert_clear(error.value, cdf_task_id, "COMPLETED", "FAILED")

    @pytest.mark.parametrize(
        ("status", "output"),
        [
            ("IN_PROGRESS", {}),
            ("completed", {"a": "x" * 100_000}),
        ],
        ids=["status", "output"],
    )
    def test_refuses_what_cdf_would_not_take_with_nothing_sent(
        self, status: str, output: Any, call: Call, project: Project, execution_id: str
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]

        with pytest.raises(AirflowFailException) as error:
            call("update_task", cdf_task_id, status, output)

        assert_clear(error.value)
        assert project.task(execution_id, "approve", "IN_PROGRESS")

    def test_a_task_that_does_not_exist_is_named(self, call: Call) -> None:
        with pytest.raises(CdfApiError) as error:
            call("update_task", UNKNOWN, "completed")

        assert_clear(error.value, UNKNOWN)

    def test_an_id_that_is_no_uuid_is_not_sent(self, call: Call) -> None:
        with pytest.raises(AirflowFailException) as error:
            call("update_task", "../../sessions", "completed")

        assert_clear(error.value, "UUID", "../../sessions")


class TestTestConnection:
    def check(self, call: Call, *secrets: str) -> tuple[bool, str]:
        ok, message = call("test_connection")
        assert type(ok) is bool
        assert message
        assert "\n" not in message
        assert "cdf_default" not in message, "Airflow's Test button gives a hook a made-up id"
        for secret in secrets:
            assert secret not in message
        return ok, message

    def test_says_where_it_is_logged_in(self, call: Call, cdf: CdfEmulator) -> None:
        ok, message = self.check(call, cdf.client_secret)

        assert ok
        assert cdf.project in message
        assert cdf.client_id in message

    def test_says_whose_a_token_is(self, call: Call, connect: Any, cdf: CdfEmulator) -> None:
        token = cdf.tokens.issue()
        connect({"token_url": None, "token": token}, login=None, password=None)

        ok, message = self.check(call, token)

        assert ok
        assert f" as the access token of '{cdf.client_id}', which may run workflows there." in message

    def test_wrong_secret(self, call: Call, connect: Any, cdf: CdfEmulator) -> None:
        connect(password=WRONG_SECRET)

        ok, message = self.check(call, WRONG_SECRET, cdf.client_secret)

        assert not ok
        assert cdf.client_id in message
        assert "Look at this connection." in message

    def test_unknown_project(self, call: Call, connect: Any) -> None:
        connect({"project": "no-such-project"})

        ok, message = self.check(call)

        assert not ok
        assert "no-such-project" in message

    def test_unreachable_host(self, call: Call, connect: Any) -> None:
        connect(host=NOBODY)

        ok, message = self.check(call)

        assert not ok
        assert "127.0.0.1:9" in message

    def test_all_that_is_missing_is_named(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(routes_sessions, "_CAPABILITIES", {"workflowOrchestrationAcl": ["READ"]})

        ok, message = self.check(call)

        assert not ok
        assert "lacks workflowOrchestrationAcl:WRITE, sessionsAcl:CREATE there." in message

    @pytest.mark.parametrize("acl", ["workflowOrchestrationAcl", "sessionsAcl"])
    def test_missing_capability(self, acl: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(routes_sessions._CAPABILITIES, acl)

        ok, message = self.check(call)

        assert not ok
        assert acl in message

    @pytest.mark.parametrize(
        ("acl", "actions"), [("workflowOrchestrationAcl", ["READ"]), ("sessionsAcl", ["LIST"])]
    )
    def test_missing_action(
        self, acl: str, actions: list[str], call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(routes_sessions._CAPABILITIES, acl, actions)

        ok, message = self.check(call)

        assert not ok
        assert acl in message
        assert "WRITE" in message or "CREATE" in message

    def test_a_connection_that_misses_fields(self, call: Call, connect: Any) -> None:
        connect({"project": None})

        ok, message = self.check(call)

        assert not ok
        assert message.startswith("This connection cannot be used: extra 'project' is missing")


class TestErrors:
    """Each names what was asked for, holds no secret and drags no other error behind it."""

    CALLS = pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("run_workflow", ("pumps", "1")),
            ("get_execution", (UNKNOWN,)),
            ("list_executions", ()),
            ("cancel_execution", (UNKNOWN,)),
            ("retry_execution", (UNKNOWN,)),
            ("update_task", (UNKNOWN, "completed")),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )

    @CALLS
    def test_wrong_secret(
        self, name: str, arguments: Any, call: Call, connect: Any, cdf: CdfEmulator
    ) -> None:
        connect(password=WRONG_SECRET)

        with pytest.raises(CdfLoginError) as error:
            call(name, *arguments)

        assert_clear(error.value, cdf.client_id, secrets=[WRONG_SECRET, cdf.client_secret])

    def test_unknown_client(self, call: Call, connect: Any) -> None:
        connect(login="no-such-client")

        with pytest.raises(CdfLoginError) as error:
            call("run_workflow", "pumps", "1")

        assert_clear(error.value, "no-such-client")

    def test_unknown_project(self, call: Call, connect: Any, cdf: CdfEmulator) -> None:
        connect({"project": "no-such-project"})

        with pytest.raises(CdfApiError) as error:
            call("run_workflow", "pumps", "1")

        assert_clear(error.value, "no-such-project", secrets=[cdf.client_secret])

    @CALLS
    def test_unreachable_host(
        self, name: str, arguments: Any, call: Call, connect: Any, cdf: CdfEmulator
    ) -> None:
        connect(host=NOBODY)

        with pytest.raises(CdfUnreachableError) as error:
            call(name, *arguments)

        assert_clear(error.value, "127.0.0.1:9", secrets=[cdf.client_secret])

    def test_unreachable_token_url(self, call: Call, connect: Any) -> None:
        connect({"token_url": f"{NOBODY}/oauth2/token"})

        with pytest.raises(AirflowException) as error:
            call("run_workflow", "pumps", "1")

        assert_clear(error.value, "127.0.0.1:9")

    def test_token_url_without_a_token_endpoint(self, call: Call, connect: Any, cdf: CdfEmulator) -> None:
        connect({"token_url": f"{cdf.url}/no/token/here"})

        with pytest.raises(CdfLoginError) as error:
            call("run_workflow", "pumps", "1")

        assert_clear(error.value, secrets=[cdf.client_secret])

    def test_unknown_workflow(self, call: Call) -> None:
        with pytest.raises(CdfApiError) as error:
            call("run_workflow", "no-such-workflow", "1")

        assert_clear(error.value, "no-such-workflow")

    def test_unknown_version(self, call: Call, project: Project) -> None:
        workflow = project.define(function_task("approve"))

        with pytest.raises(CdfApiError) as error:
            call("run_workflow", workflow, "no-such-version")

        assert_clear(error.value, workflow, "no-such-version")

    def test_a_token_that_cdf_has_forgotten_is_fetched_again(
        self, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with CdfEmulator() as cdf:
            monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection_uri())
            project = Project(cdf)
            execution_id = project.run(project.define(function_task("approve", waits=True)))
            assert call("get_execution", execution_id).id == execution_id
            cdf.tokens.expire_all()

            assert call("get_execution", execution_id).id == execution_id


@pytest.mark.parametrize(
    "wrong", [{"password": "not the secret"}, {"extra": {"project": "another"}}], ids=str
)
def test_an_error_of_login_or_access_names_the_connection_once_each_time(
    cdf: CdfEmulator, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    """A login that failed is shared for some seconds, and what is said of it must not grow."""
    connection: dict[str, Any] = {
        "conn_type": "cdf",
        "host": cdf.url,
        "login": cdf.client_id,
        "password": cdf.client_secret,
        "extra": {"project": cdf.project, "token_url": cdf.token_url},
    }
    for name, value in wrong.items():
        connection[name] = {**connection[name], **value} if name == "extra" else value
    monkeypatch.setenv("AIRFLOW_CONN_PLANT", json.dumps(connection))
    hook = CdfHook("plant", retry_for=0)
    for _ in range(2):
        with pytest.raises(CdfError) as caught:
            hook.run_workflow("pump_health", "1")
        assert str(caught.value).count("Airflow connection 'plant'") == 1
