"""The hook: an Airflow connection's CDF, for tasks and for triggers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_cdf.cdf.errors import CdfError
from airflow_provider_cdf.hooks.legacy_form import form_widgets, ui_field_behaviour

# What talks to CDF is imported where it is used: DAG files name the hook at each parse, and seldom call it.
if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.client import AsyncCdfClient, CdfClient, PageAt
    from airflow_provider_cdf.cdf.models import TaskExecution, WorkflowExecution, WorkflowExecutionDetails
    from airflow_provider_cdf.cdf.settings import Settings


class CdfHook(BaseHook):
    """
    Authenticated calls to CDF Data Workflows.

    Each method that talks to CDF has a twin for coroutines, with the prefix ``a``. They raise
    :class:`~airflow_provider_cdf.cdf.errors.CdfError` and its subclasses, whose messages name what was asked
    for and hold no secret. Input that CDF would refuse is refused before anything is sent.

    One hook may be used from several threads, event loops and forked processes. It may be copied and pickled;
    a copy reads the Airflow connection again.

    :param cdf_conn_id: id of an Airflow connection of type ``cdf``.
    :param retry_for: seconds within which a failed request is repeated, where that does no harm. 0 for never:
        for those who have a patience of their own. By default what the connection says.
    """

    conn_name_attr = "cdf_conn_id"
    default_conn_name = "cdf_default"
    conn_type = "cdf"
    hook_name = "Cognite Data Fusion"

    def __init__(
        self,
        cdf_conn_id: str = default_conn_name,
        *,
        retry_for: float | None = None,
    ) -> None:
        super().__init__()
        self.cdf_conn_id = cdf_conn_id
        self.retry_for = retry_for
        self._async_client: AsyncCdfClient | None = None

    # -- clients ----------------------------------------------------------------------------------------

    @cached_property
    def client(self) -> CdfClient:
        """The client for threads, made at first use."""
        from airflow_provider_cdf.cdf.client import CdfClient

        # Of several that are made at once the first one stays. The others have opened nothing.
        client: CdfClient = self.__dict__.setdefault("client", CdfClient(self.read_settings()))
        return client

    def read_settings(self) -> Settings:
        """
        Read the Airflow connection, now.

        :raises CdfError: if Airflow cannot give it, or it cannot be used.
        """
        from airflow_provider_cdf.hooks import lookup

        try:
            settings = self._own(lookup.read_settings(self, self.cdf_conn_id))
        except Exception as error:
            failed = lookup.error_of(self.cdf_conn_id, error)
        else:
            if self.is_connected:  # what only a sibling of this hook has found out
                self.client.renew(settings)
            return settings
        raise failed

    def sibling(
        self, *, retry_for: float, request_timeout: float | None = None, in_signal_handler: bool = False
    ) -> CdfHook:
        """
        Return a hook with another patience and connections of its own to the same CDF.

        It does not ask Airflow for the connection to begin with.

        :param retry_for: seconds within which a failed request is repeated, where that does no harm.
        :param request_timeout: seconds for one request as a whole; by default what this hook has.
        :param in_signal_handler: whether it must do without all that the interrupted code may be holding: the
            login that a process shares, and the line to Airflow, which takes connections and secrets to mask.
        """
        from airflow_provider_cdf.cdf.auth import separate_login
        from airflow_provider_cdf.cdf.client import CdfClient

        other = CdfHook(self.cdf_conn_id, retry_for=retry_for)
        settings = replace(self.client.settings, retry_for=retry_for)
        if request_timeout is not None:
            settings = replace(settings, request_timeout=request_timeout)
        if in_signal_handler:
            settings = replace(settings, on_token=None)
        other.client = CdfClient(settings, login=separate_login(settings) if in_signal_handler else None)
        return other

    @property
    def is_connected(self) -> bool:
        """Whether :attr:`client` has been made, so that its use does not ask Airflow for anything."""
        return "client" in self.__dict__

    async def aclient(self) -> AsyncCdfClient:
        """Return the client for coroutines, made at first use."""
        from airflow_provider_cdf.cdf.client import AsyncCdfClient

        if self._async_client is None:
            made = AsyncCdfClient(await self.aread_settings())
            # In a thread, because the first one of a process reads the CA certificates.
            await asyncio.to_thread(made.tls)
            # Of several that are made at once the first one stays. The others have opened nothing.
            self._async_client = self._async_client or made
        return self._async_client

    async def aread_settings(self) -> Settings:
        """Do what :meth:`read_settings` does, for coroutines."""
        from airflow_provider_cdf.hooks import lookup

        try:
            return self._own(await lookup.aread_settings(self, self.cdf_conn_id))
        except Exception as error:
            failed = lookup.error_of(self.cdf_conn_id, error)
        raise failed

    def _own(self, settings: Settings) -> Settings:
        settings = replace(settings, source=self)
        return settings if self.retry_for is None else replace(settings, retry_for=self.retry_for)

    def __getstate__(self) -> dict[str, Any]:
        # Locks and sockets can be neither copied nor pickled, and a secret should not be.
        state = {**self.__dict__, "_async_client": None}
        state.pop("client", None)
        return state

    def close(self) -> None:
        """Close the connections of :attr:`client`, if there are any."""
        if self.is_connected:
            self.client.close()
            del self.client

    async def aclose(self) -> None:
        """Close the connections of :meth:`aclient`, if there are any."""
        if self._async_client is not None:
            client, self._async_client = self._async_client, None
            await client.close()

    # -- runs -------------------------------------------------------------------------------------------

    def run_workflow(
        self,
        workflow_external_id: str,
        version: str,
        *,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's own name
        metadata: Mapping[str, str] | None = None,
    ) -> WorkflowExecution:
        """
        Start an execution exactly once, under a session made just before.

        An execution whose answer was lost is found by one more pair of metadata, ``airflow_submit_id``. At
        worst that takes five minutes.

        :param workflow_external_id: external id of the workflow.
        :param version: its version.
        :param input: JSON object of at most 100 000 bytes; tasks read it as ``${workflow.input...}``.
        :param metadata: at most 10 pairs of strings, keys of 32 and values of 255 characters.
        :return: the execution as CDF accepted it, without its tasks.
        :raises CdfInputError: if input or metadata break these limits.
        :raises CdfUnreachableError: with ``sent`` if it did not become known whether CDF has started it. 10
            pairs of metadata leave no room for another one, so there a lost answer is never cleared up.
        """
        from airflow_provider_cdf.cdf import conversations

        return self.client.perform(
            conversations.run_workflow(
                self.client.settings, workflow_external_id, version, input=input, metadata=metadata
            )
        )

    async def arun_workflow(
        self,
        workflow_external_id: str,
        version: str,
        *,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's own name
        metadata: Mapping[str, str] | None = None,
    ) -> WorkflowExecution:
        """Do what :meth:`run_workflow` does, for coroutines."""
        from airflow_provider_cdf.cdf import conversations

        client = await self.aclient()
        return await client.perform(
            conversations.run_workflow(
                client.settings, workflow_external_id, version, input=input, metadata=metadata
            )
        )

    def get_execution(self, execution_id: str, *, within: float | None = None) -> WorkflowExecutionDetails:
        """
        Read an execution with its tasks.

        :param execution_id: UUID of the execution.
        :param within: seconds for all of it, repetitions included, such as what is left of a wait.
        :return: the execution; its ``executed_tasks`` are all attempts at tasks so far.
        :raises CdfInputError: if the id is no UUID.
        :raises CdfApiError: with ``code`` 400 or 404 if there is no such execution.
        """
        from airflow_provider_cdf.cdf import calls

        call = calls.get_execution(self.client.settings.project, execution_id)
        return self.client.send(call, within=within)

    async def aget_execution(
        self, execution_id: str, *, within: float | None = None
    ) -> WorkflowExecutionDetails:
        """Do what :meth:`get_execution` does, for coroutines."""
        from airflow_provider_cdf.cdf import calls

        client = await self.aclient()
        return await client.send(calls.get_execution(client.settings.project, execution_id), within=within)

    def list_executions(
        self,
        *,
        workflow_external_id: str | None = None,
        version: str | None = None,
        status: str | Sequence[str] | None = None,
        created_after: datetime | None = None,
    ) -> Iterator[WorkflowExecution]:
        """
        Iterate over executions, without their tasks, page by page.

        :param workflow_external_id: only those of this workflow.
        :param version: only those of this version of it.
        :param status: only those in this status or these statuses, in any case.
        :param created_after: only those created since; whether CDF counts that very moment is undocumented.
        :raises CdfInputError: if a status is none of CDF's, or a version is given without its workflow.
        :raises CdfAnswerError: if CDF's list has no end.
        """
        page_at = _page_at(self.client.settings, workflow_external_id, version, status, created_after)
        return self.client.executions(page_at)

    async def alist_executions(
        self,
        *,
        workflow_external_id: str | None = None,
        version: str | None = None,
        status: str | Sequence[str] | None = None,
        created_after: datetime | None = None,
    ) -> AsyncIterator[WorkflowExecution]:
        """Do what :meth:`list_executions` does, for coroutines."""
        client = await self.aclient()
        page_at = _page_at(client.settings, workflow_external_id, version, status, created_after)
        async for execution in client.executions(page_at):
            yield execution

    def cancel_execution(self, execution_id: str, reason: str | None = None) -> WorkflowExecution:
        """
        End a running execution as TERMINATED; what its tasks started outside the workflow goes on.

        :param execution_id: UUID of the execution.
        :param reason: becomes the execution's reason; cut at 500 characters.
        :return: the execution as it is then. One that had ended before is left alone, and has that status.
        :raises CdfApiError: if there is no such execution.
        :raises CdfUnreachableError: with ``sent`` if it did not become known whether it was cancelled.
        """
        from airflow_provider_cdf.cdf import conversations

        return self.client.perform(conversations.cancel_execution(self.client.settings, execution_id, reason))

    async def acancel_execution(self, execution_id: str, reason: str | None = None) -> WorkflowExecution:
        """Do what :meth:`cancel_execution` does, for coroutines."""
        from airflow_provider_cdf.cdf import conversations

        client = await self.aclient()
        return await client.perform(conversations.cancel_execution(client.settings, execution_id, reason))

    def retry_execution(self, execution_id: str) -> WorkflowExecution:
        """
        Run the failed tasks of an execution that ended badly once more, under the same id.

        :param execution_id: UUID of the execution.
        :return: the execution, RUNNING again.
        :raises CdfApiError: if the execution is in no state to be retried, or there is none.
        """
        from airflow_provider_cdf.cdf import conversations

        return self.client.perform(conversations.retry_execution(self.client.settings, execution_id))

    async def aretry_execution(self, execution_id: str) -> WorkflowExecution:
        """Do what :meth:`retry_execution` does, for coroutines."""
        from airflow_provider_cdf.cdf import conversations

        client = await self.aclient()
        return await client.perform(conversations.retry_execution(client.settings, execution_id))

    # -- tasks ------------------------------------------------------------------------------------------

    def update_task(
        self,
        cdf_task_id: str,
        status: str,
        output: Mapping[str, Any] | None = None,
        *,
        execution_id: str | None = None,
    ) -> TaskExecution:
        """
        Report the end of a task that waits for it (``isAsyncComplete``).

        :param cdf_task_id: UUID of the attempt, from ``executed_tasks``; a retried task has another.
        :param status: COMPLETED, FAILED (CDF retries the task as its definition says) or
            FAILED_WITH_TERMINAL_ERROR (it does not), in any case.
        :param output: JSON object of at most 100 000 bytes, merged into the task's output at the top level.
        :param execution_id: with it, an unclear answer is cleared up by reading the task's state.
        :return: the task, in its new status.
        :raises CdfInputError: if status or output are not what CDF takes.
        :raises CdfNothingToReportToError: if the task has already ended in another status (only noticed with
            ``execution_id``; otherwise ``CdfApiError``).
        """
        from airflow_provider_cdf.cdf import reports

        return self.client.perform(
            reports.update_task(self.client.settings, cdf_task_id, status, output, execution_id=execution_id)
        )

    async def aupdate_task(
        self,
        cdf_task_id: str,
        status: str,
        output: Mapping[str, Any] | None = None,
        *,
        execution_id: str | None = None,
    ) -> TaskExecution:
        """Do what :meth:`update_task` does, for coroutines."""
        from airflow_provider_cdf.cdf import reports

        client = await self.aclient()
        return await client.perform(
            reports.update_task(client.settings, cdf_task_id, status, output, execution_id=execution_id)
        )

    # -- the connection's form, below Airflow 3.2, which asks for them in this very class ----------------

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Say how the form shows the fields that every connection has (Airflow below 3.2)."""
        return ui_field_behaviour()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Make the fields of ``extra`` for the form (Airflow below 3.2)."""
        return form_widgets()

    # -- connection test --------------------------------------------------------------------------------

    def test_connection(self) -> tuple[bool, str]:
        """
        Log in, and look whether the client may use workflows in the project. For Airflow's Test button.

        :return: whether it may; and one sentence on who is logged in, to which project, and what it lacks. It
            does not name the connection.
        """
        from airflow_provider_cdf.cdf import calls
        from airflow_provider_cdf.cdf.client import CdfClient
        from airflow_provider_cdf.hooks.access import TEST_WITHIN, judge, login_anew, without_id

        try:
            settings = self.read_settings()
            with CdfClient(settings, login=login_anew(settings)) as client:
                return judge(client, client.send(calls.inspect_token(), within=TEST_WITHIN))
        except CdfError as error:
            return False, without_id(error, self.cdf_conn_id)

    async def atest_connection(self) -> tuple[bool, str]:
        """Do what :meth:`test_connection` does, for coroutines."""
        from airflow_provider_cdf.cdf import calls
        from airflow_provider_cdf.cdf.client import AsyncCdfClient
        from airflow_provider_cdf.hooks.access import TEST_WITHIN, judge, login_anew, without_id

        try:
            settings = await self.aread_settings()
            async with AsyncCdfClient(settings, login=login_anew(settings)) as client:
                return judge(client, await client.send(calls.inspect_token(), within=TEST_WITHIN))
        except CdfError as error:
            return False, without_id(error, self.cdf_conn_id)


def _page_at(
    settings: Settings,
    workflow_external_id: str | None,
    version: str | None,
    status: str | Sequence[str] | None,
    created_after: datetime | None,
) -> PageAt:
    from airflow_provider_cdf.cdf import calls

    def page_at(cursor: str | None) -> Any:
        return calls.list_executions(
            settings.project,
            workflow_external_id=workflow_external_id,
            version=version,
            status=status,
            created_after=created_after,
            cursor=cursor,
        )

    page_at(None)  # refuses bad input now, not at the first iteration
    return page_at
