"""
Workflows from YAML files in the format of the Cognite Toolkit.

https://docs.cognite.com/cdf/deploy/cdf_toolkit/references/resource_library
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from airflow_provider_cdf.emulator.catalog import Catalog
from airflow_provider_cdf.emulator.definitions import describe
from airflow_provider_cdf.emulator.errors import CdfError
from airflow_provider_cdf.emulator.schemas import VersionItem, WorkflowItem


class ToolkitError(ValueError):
    """A file that cannot be read as what its name says it is."""


def load(paths: Iterable[str | os.PathLike[str]], catalog: Catalog) -> None:
    """
    Create the workflows and versions that are described in files.

    :param paths: files, and directories to search for ``*.Workflow.yaml`` and ``*.WorkflowVersion.yaml``
    :param catalog: where to create them
    :raises ToolkitError: naming the file and what is wrong in it
    """
    files = [file for path in paths for file in _files(Path(path))]
    for file, item in _items(files, ".workflow."):
        _create(file, item, lambda item: _create_workflow(item, catalog))
    versions = list(_items(files, ".workflowversion."))
    # A subworkflow must exist before the version that refers to it, whatever the files are called.
    while versions:
        later = []
        for file, item in versions:
            try:
                _create(file, item, lambda item: _create_version(item, catalog))
            except ToolkitError:
                later.append((file, item))
        if len(later) == len(versions):
            _create(*versions[0], lambda item: _create_version(item, catalog))
        versions = later


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for pattern in ("*.yaml", "*.yml") for file in path.rglob(pattern))
    if not path.exists():
        raise ToolkitError(f"{path}: there is no such file or directory")
    return [path]


def _items(files: Iterable[Path], kind: str) -> Iterator[tuple[Path, Any]]:
    for file in files:
        if kind not in f".{file.name.lower()}":
            continue
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ToolkitError(f"{file}: {error}") from None
        for item in content if isinstance(content, list) else [content]:
            yield file, item


def _create(file: Path, item: Any, create: Callable[[Any], None]) -> None:
    try:
        create(item)
    except ValidationError as error:
        raise ToolkitError(f"{file}: {describe(error.errors()[0], item)}") from None
    except CdfError as error:
        raise ToolkitError(f"{file}: {error.message}") from None


def _create_workflow(item: Any, catalog: Catalog) -> None:
    workflow = WorkflowItem.model_validate(item)
    catalog.upsert_workflow(
        workflow.external_id,
        description=workflow.description,
        data_set_id=workflow.data_set_id,
        max_concurrent_executions=workflow.max_concurrent_executions,
    )


def _create_version(item: Any, catalog: Catalog) -> None:
    # YAML reads an unquoted version such as 1 as a number.
    if isinstance(item, dict) and isinstance(item.get("version"), int | float):
        item = {**item, "version": str(item["version"])}
    version = VersionItem.model_validate(item)
    catalog.upsert_version(version.workflow_external_id, version.version, version.workflow_definition)
