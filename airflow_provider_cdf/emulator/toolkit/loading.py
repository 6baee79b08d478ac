"""
Workflows from YAML files in the format of the Cognite Toolkit.

https://docs.cognite.com/cdf/deploy/cdf_toolkit/references/resource_library
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from airflow_provider_cdf.emulator.api.schemas import TriggerFields, UnknownRule, VersionItem, WorkflowItem
from airflow_provider_cdf.emulator.rules.definitions import unknown_tasks, unknown_type_warning
from airflow_provider_cdf.emulator.rules.engine import Engine
from airflow_provider_cdf.emulator.rules.errors import CdfError, UnknownSubworkflowError, describe
from airflow_provider_cdf.emulator.rules.fields import Absent, Model
from airflow_provider_cdf.emulator.toolkit.reading import FieldPath, Item, Location, read_items
from airflow_provider_cdf.emulator.toolkit.variables import ToolkitError, fill, sets_for

log = logging.getLogger("airflow_provider_cdf.emulator.toolkit")

#: What is in a file, by the end of its name in lower case: ``my.WorkflowVersion.yaml``.
_WORKFLOW, _VERSION, _TRIGGER = "workflow", "workflowversion", "workflowtrigger"

_ENDS = ".Workflow.yaml, .WorkflowVersion.yaml or .WorkflowTrigger.yaml"
_FILES_NAMED = 5

#: The fields that are versions: a version is what the file says, and 1.10 is not 1.1. None: any index.
_VERSIONS: dict[str, list[FieldPath]] = {
    _WORKFLOW: [],
    _VERSION: [
        ("version",),
        ("workflowDefinition", "tasks", None, "parameters", "subworkflow", "version"),
    ],
    _TRIGGER: [("workflowVersion",)],
}


#: What only the Toolkit understands: it replaces names by ids, and logs in.
_TOOLKIT_ONLY = frozenset({"dataSetExternalId", "authentication"})


class _TriggerFile(TriggerFields):
    is_paused: Absent[bool] = None


def load(
    paths: Iterable[str | os.PathLike[str]], engine: Engine, variables: Mapping[str, Any] | None = None
) -> None:
    """
    Create the workflows, versions and triggers that are described in files.

    :param paths: files, and directories to search for ``*.Workflow.yaml``, ``*.WorkflowVersion.yaml`` and
        ``*.WorkflowTrigger.yaml``
    :param engine: where to create them
    :param variables: for the ``{{ variables }}`` in the files: values, and by the name of a directory those
        that hold in it only, as under ``variables:`` in a Toolkit config file
    :raises ToolkitError: naming the file, the line and what is wrong in it
    """
    # One path would else be read letter by letter, from "/" on.
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    files = [file for path in paths for file in _files(Path(path))]
    for item in _items(files, _WORKFLOW, variables or {}):
        _create(item, lambda item: _create_workflow(item, engine))
    versions = list(_items(files, _VERSION, variables or {}))
    # A subworkflow must exist before the version that refers to it, whatever the files are called.
    while versions:
        later: list[Item] = []
        problem = None
        for item in versions:
            try:
                _create(item, lambda item: _create_version(item, engine))
            except ToolkitError as error:
                if not isinstance(error.__cause__, UnknownSubworkflowError):
                    raise
                later.append(item)
                problem = problem or error
        if problem is not None and len(later) == len(versions):
            raise problem
        versions = later
    for item in _items(files, _TRIGGER, variables or {}):
        _create(item, lambda item: _create_trigger(item, engine))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = (file for pattern in ("*.yaml", "*.yml") for file in path.rglob(pattern))
        files = sorted(file for file in found if file.is_file())
        if not any(_kind(file) in _VERSIONS for file in files):
            log.warning("%s: no workflow was read from it. %s", path, _why_none(path, files))
        return files
    if not path.exists():
        raise ToolkitError(f"{path}: there is no such file or directory")
    if _kind(path) not in _VERSIONS:
        raise ToolkitError(f"{path}: its name does not say what is in it; it must end with {_ENDS}")
    return [path]


def _why_none(directory: Path, files: list[Path]) -> str:
    """Only where nothing was read: else a Toolkit module's files of other kinds would each be a warning."""
    if not files:
        return "It has no .yaml files."
    names = ", ".join(str(file.relative_to(directory)) for file in files[:_FILES_NAMED])
    more = f" and {len(files) - _FILES_NAMED} more" if len(files) > _FILES_NAMED else ""
    return f"The name of a file must end with {_ENDS}. Left alone: {names}{more}."


def _kind(file: Path) -> str:
    """What the Toolkit takes a file for: ``workflow.Group.yaml`` is a group, ``workflow.yaml`` is nothing."""
    return file.stem.rpartition(".")[2].lower() if "." in file.stem else ""


def _items(files: Iterable[Path], kind: str, variables: Mapping[str, Any]) -> Iterator[Item]:
    for file in files:
        if _kind(file) != kind:
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ToolkitError(f"{file}: {error}") from None
        for chosen in sets_for(file, variables):
            yield from read_items(fill(file, text, chosen), _VERSIONS[kind])


def _create(item: Item, create: Callable[[Item], None]) -> None:
    try:
        create(item)
    except ValidationError as error:
        first = error.errors()[0]
        raise item.error(describe(first, item.value), first["loc"]) from None
    except CdfError as error:
        raise item.error(error.message, error.location) from error
    except RecursionError:
        raise item.error("it is nested too deeply") from None


_M = TypeVar("_M", bound=Model)


def _read(item: Item, model: type[_M]) -> _M:
    if not isinstance(item.value, dict):
        raise item.error("this is not a mapping, with keys and values")
    found = model.model_validate(item.value)
    known = found.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for location in _unknown_keys({k: v for k, v in item.value.items() if k not in _TOOLKIT_ONLY}, known):
        raise item.error(f"'{location[-1]}' is not a field of it", location)
    return found


def _unknown_keys(given: Any, known: Any, location: Location = ()) -> Iterator[Location]:
    """Where there are keys that were dropped when the value was read: misspelled ones, most of the time."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, item in given.items():
            if key not in known and item is not None:
                yield (*location, key)
            elif key in known:
                yield from _unknown_keys(item, known[key], (*location, key))
    elif isinstance(given, list) and isinstance(known, list):
        for index, pair in enumerate(zip(given, known, strict=False)):
            yield from _unknown_keys(*pair, (*location, index))


def _create_workflow(item: Item, engine: Engine) -> None:
    workflow = _read(item, WorkflowItem)
    engine.catalog.upsert_workflow(
        workflow.external_id,
        description=workflow.description,
        data_set_id=workflow.data_set_id,
        data_domain_external_id=workflow.data_domain_external_id,
        max_concurrent_executions=workflow.max_concurrent_executions,
    )


def _create_version(item: Item, engine: Engine) -> None:
    version = _read(item, VersionItem)
    engine.catalog.upsert_version(version.workflow_external_id, version.version, version.workflow_definition)
    for location, task in unknown_tasks(version.workflow_definition):
        log.warning("%s: %s", item.place((*location, "type")), unknown_type_warning(task))


def _create_trigger(item: Item, engine: Engine) -> None:
    trigger = _read(item, _TriggerFile)
    engine.triggers.upsert(
        trigger.external_id,
        trigger.trigger_rule.model_dump(mode="json", by_alias=True, exclude_unset=True),
        trigger.workflow_external_id,
        trigger.workflow_version,
        input=trigger.input,
        metadata=trigger.metadata,
    )
    if trigger.is_paused is not None:
        (engine.triggers.pause if trigger.is_paused else engine.triggers.resume)(trigger.external_id)
    if isinstance(trigger.trigger_rule, UnknownRule):
        log.warning(
            "%s: trigger '%s' has the triggerType '%s', which the emulator does not know: it fires only when"
            " it is told to",
            item.place(("triggerRule",)),
            trigger.external_id,
            trigger.trigger_rule.trigger_type,
        )
