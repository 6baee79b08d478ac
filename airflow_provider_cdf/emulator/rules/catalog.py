"""Workflows and their versions: create, change, find, delete."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from airflow_provider_cdf.emulator.rules.definitions import (
    AnyTask,
    InlineSubworkflow,
    SubworkflowTask,
    WorkflowDefinition,
)
from airflow_provider_cdf.emulator.rules.errors import (
    InvalidRequestError,
    NotFoundError,
    UnknownSubworkflowError,
)
from airflow_provider_cdf.emulator.rules.graphs import check_definition, check_not_nested
from airflow_provider_cdf.emulator.rules.store import Store, Version, Workflow


class Catalog:
    """
    The workflows and versions of the project.

    :param store: where they are kept
    :param now: the time, in milliseconds since 1970
    """

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store = store
        self._now = now

    def upsert_workflow(
        self,
        external_id: str,
        *,
        description: str | None = None,
        data_set_id: int | None = None,
        data_domain_external_id: str | None = None,
        max_concurrent_executions: int | None = None,
    ) -> Workflow:
        """Create a workflow, or replace what is known about it: what is not given is cleared."""
        old = self._store.workflows.get(external_id)
        workflow = Workflow(
            external_id,
            created_time=old.created_time if old else self._now(),
            last_updated_time=self._updated(old),
            description=description,
            data_set_id=data_set_id,
            data_domain_external_id=data_domain_external_id,
            max_concurrent_executions=max_concurrent_executions,
        )
        self._store.workflows.put(external_id, workflow)
        return workflow

    def workflow(self, external_id: str) -> Workflow:
        workflow = self._store.workflows.get(external_id)
        if workflow is None:
            raise NotFoundError(
                f"Workflow '{external_id}' was not found.", missing=[{"externalId": external_id}]
            )
        return workflow

    def delete_workflows(self, external_ids: Iterable[str], *, ignore_unknown: bool) -> None:
        """Delete workflows with all their versions, or none of them if one cannot be deleted."""
        wanted = list(dict.fromkeys(external_ids))
        unknown = [external_id for external_id in wanted if self._store.workflows.get(external_id) is None]
        if unknown and not ignore_unknown:
            raise NotFoundError(
                f"The following workflows were not found: {', '.join(unknown)}",
                missing=[{"externalId": external_id} for external_id in unknown],
            )
        busy = {execution.workflow_external_id for execution in self._store.running.values()}
        if refused := [external_id for external_id in wanted if external_id in busy]:
            raise InvalidRequestError(
                f"Cannot delete workflows with running executions: {', '.join(refused)}. Cancel them first."
            )
        for external_id in wanted:
            self._store.workflows.remove(external_id)
        for version in [v for v in self._store.versions if v.workflow_external_id in wanted]:
            self._store.versions.remove((version.workflow_external_id, version.version))

    def upsert_version(
        self, workflow_external_id: str, version: str, definition: WorkflowDefinition
    ) -> Version:
        """
        Create a version, or replace its definition. An unknown workflow is created along with it.

        :raises InvalidRequestError: if no engine could run the definition
        """
        check_definition(definition)
        self._check_subworkflows(definition, (workflow_external_id, version))
        if self._store.workflows.get(workflow_external_id) is None:
            self.upsert_workflow(workflow_external_id)
        old = self._store.versions.get((workflow_external_id, version))
        record = Version(
            workflow_external_id,
            version,
            definition,
            created_time=old.created_time if old else self._now(),
            last_updated_time=self._updated(old),
        )
        self._store.versions.put((workflow_external_id, version), record)
        return record

    def version(self, workflow_external_id: str, version: str) -> Version:
        record = self._store.versions.get((workflow_external_id, version))
        if record is None:
            raise NotFoundError(
                f"Version '{version}' of workflow '{workflow_external_id}' was not found.",
                missing=[{"workflowExternalId": workflow_external_id, "version": version}],
            )
        return record

    def delete_versions(self, ids: Iterable[tuple[str, str]], *, ignore_unknown: bool) -> None:
        """Delete versions, or none of them if one does not exist. Running executions go on."""
        wanted = list(dict.fromkeys(ids))
        unknown = [key for key in wanted if self._store.versions.get(key) is None]
        if unknown and not ignore_unknown:
            named = ", ".join(f"{workflow}/{version}" for workflow, version in unknown)
            raise NotFoundError(
                f"The following workflow versions were not found: {named}",
                missing=[
                    {"workflowExternalId": workflow, "version": version} for workflow, version in unknown
                ],
            )
        for key in wanted:
            self._store.versions.remove(key)

    def subworkflow_of(self, task: AnyTask) -> WorkflowDefinition | None:
        """
        The definition that a subworkflow task has now, its own or the one that it refers to.

        :param task: of any type
        :return: None if it is no subworkflow task, or if there is no such version
        """
        if not isinstance(task, SubworkflowTask):
            return None
        subworkflow = task.parameters.subworkflow
        if isinstance(subworkflow, InlineSubworkflow):
            return WorkflowDefinition(tasks=subworkflow.tasks)
        record = self._store.versions.get((subworkflow.workflow_external_id, subworkflow.version))
        return record.definition if record else None

    def _check_subworkflows(self, definition: WorkflowDefinition, own: tuple[str, str]) -> None:
        for index, task in enumerate(definition.tasks):
            if not isinstance(task, SubworkflowTask):
                continue
            reference = task.parameters.subworkflow
            if isinstance(reference, InlineSubworkflow):
                continue
            key = (reference.workflow_external_id, reference.version)
            location = ("workflowDefinition", "tasks", index, "parameters", "subworkflow")
            found = self.subworkflow_of(task)
            if key == own or found is None:
                why = "is the version itself" if key == own else "does not exist"
                error = InvalidRequestError if key == own else UnknownSubworkflowError
                raise error(
                    f"The subworkflow task '{task.external_id}' refers to version '{key[1]}' of workflow"
                    f" '{key[0]}', which {why}.",
                    location=location,
                )
            check_not_nested(found.tasks, f"subworkflow task '{task.external_id}'", location)

    def _updated(self, old: Workflow | Version | None) -> int:
        # Every upsert counts as an update, even one that changes nothing, or that comes within a millisecond.
        return max(self._now(), old.last_updated_time + 1) if old else self._now()
