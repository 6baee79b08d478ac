"""
Workflows from YAML files in the format of the Cognite Toolkit.

https://docs.cognite.com/cdf/deploy/cdf_toolkit/references/resource_library
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from airflow_provider_cdf.emulator.api.schemas import TriggerFields, UnknownRule, VersionItem, WorkflowItem
from airflow_provider_cdf.emulator.rules.definitions import unknown_tasks, unknown_type_warning
from airflow_provider_cdf.emulator.rules.engine import Engine
from airflow_provider_cdf.emulator.rules.errors import CdfError, UnknownSubworkflowError, describe
from airflow_provider_cdf.emulator.rules.fields import Absent, Model
from airflow_provider_cdf.emulator.variables import Filled, ToolkitError, fill, read_config, sets_for

__all__ = ["ToolkitError", "load", "read_config"]

log = logging.getLogger(__name__)

_Location = tuple[int | str, ...]

#: What is in a file, by the end of its name in lower case: ``my.WorkflowVersion.yaml``.
_WORKFLOW, _VERSION, _TRIGGER = "workflow", "workflowversion", "workflowtrigger"

#: What only the Toolkit understands: it replaces names by ids, and logs in.
_TOOLKIT_ONLY = frozenset({"dataSetExternalId", "authentication"})

#: The fields that are versions: a version is what the file says, and 1.10 is not 1.1. None: any index.
_VERSIONS: dict[str, list[tuple[str | None, ...]]] = {
    _WORKFLOW: [],
    _VERSION: [
        ("version",),
        ("workflowDefinition", "tasks", None, "parameters", "subworkflow", "version"),
    ],
    _TRIGGER: [("workflowVersion",)],
}


class _TriggerFile(TriggerFields):
    is_paused: Absent[bool] = None


@dataclass(frozen=True, slots=True)
class _Item:
    """One resource of a file, and where in the file its parts are."""

    filled: Filled
    value: Any
    node: yaml.Node

    def error(self, message: str, location: Iterable[int | str] = ()) -> ToolkitError:
        return ToolkitError(f"{self.place(location)}: {message}")

    def place(self, location: Iterable[int | str]) -> str:
        node, line = self.node, self.node.start_mark.line
        for step in location:
            if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line
            elif isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if key.value == step:
                        node, line = value, key.start_mark.line
            # Any other step is a key that is missing, or pydantic's name for a member of a union.
        return f"{self.filled.file}:{self.filled.numbers[line]}"


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
    files = [file for path in paths for file in _files(Path(path))]
    for item in _items(files, _WORKFLOW, variables or {}):
        _create(item, lambda item: _create_workflow(item, engine))
    versions = list(_items(files, _VERSION, variables or {}))
    # A subworkflow must exist before the version that refers to it, whatever the files are called.
    while versions:
        later: list[_Item] = []
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
        return sorted(file for file in found if file.is_file())
    if not path.exists():
        raise ToolkitError(f"{path}: there is no such file or directory")
    if _kind(path) not in _VERSIONS:
        raise ToolkitError(
            f"{path}: its name does not say what is in it; it must end with .Workflow.yaml,"
            " .WorkflowVersion.yaml or .WorkflowTrigger.yaml"
        )
    return [path]


def _kind(file: Path) -> str:
    """What the Toolkit takes a file for: ``workflow.Group.yaml`` is a group, ``workflow.yaml`` is nothing."""
    return file.stem.rpartition(".")[2].lower() if "." in file.stem else ""


def _items(files: Iterable[Path], kind: str, variables: Mapping[str, Any]) -> Iterator[_Item]:
    for file in files:
        if _kind(file) != kind:
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ToolkitError(f"{file}: {error}") from None
        for chosen in sets_for(file, variables):
            yield from _read_items(fill(file, text, chosen), kind)


def _read_items(filled: Filled, kind: str) -> Iterator[_Item]:
    try:
        loader = _Loader(filled.text)
        node = loader.get_single_node()
        filled.check(node)
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if item is not None:
                for path in _VERSIONS[kind]:
                    _keep_as_written(loader, item, path)
                value = loader.construct_document(item)
                yield _checked(_Item(filled, value, item))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        number = filled.numbers[min(line, len(filled.numbers) - 1)]
        raise ToolkitError(f"{filled.file}:{number}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ToolkitError(f"{filled.file}: {error}") from None
    except RecursionError:
        raise ToolkitError(f"{filled.file}: it is nested too deeply, or in itself") from None


class _Loader(yaml.SafeLoader):
    """Reads what has no place in JSON, and what looks like a number and is none, as what can be named."""


@dataclass(frozen=True, slots=True)
class _NoJson:
    what: str


def _date(loader: _Loader, node: yaml.ScalarNode) -> _NoJson:
    return _NoJson(f"'{node.value}' is a date in YAML, and JSON has none: put it into quotes")


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    read = loader.construct_yaml_int if node.tag.endswith(":int") else loader.construct_yaml_float
    try:
        value = read(node)
    except ValueError:  # 0x_, or more digits than Python reads
        return _NoJson(f"'{node.value[:20]}' is no number: put it into quotes")
    return value if math.isfinite(value) else _NoJson(f"'{node.value}' is no number of JSON")


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _date)
_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def _keep_as_written(loader: _Loader, node: yaml.Node, path: tuple[str | None, ...]) -> None:
    """Let a field be text whatever YAML takes it for: ``1.10``, ``1_0``, ``007`` and ``on``."""
    if not path:
        if isinstance(node, yaml.ScalarNode) and not node.tag.endswith(":null"):
            node.tag = "tag:yaml.org,2002:str"
    elif isinstance(node, yaml.SequenceNode) and path[0] is None:
        for item in node.value:
            _keep_as_written(loader, item, path[1:])
    elif isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)  # what `<<` brings in
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == path[0]:
                _keep_as_written(loader, value, path[1:])


def _checked(item: _Item) -> _Item:
    """
    The item, which is JSON.

    :raises ToolkitError: if it is not, saying where
    """

    def check(value: Any, location: _Location, around: tuple[int, ...]) -> None:
        problem = None
        if isinstance(value, _NoJson):
            problem = value.what
        elif id(value) in around:
            problem = "it contains itself"
        elif isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    what = key.what if isinstance(key, _NoJson) else f"the key '{key}' is no text"
                    raise item.error(what, location)
                check(inner, (*location, key), (*around, id(value)))
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                check(inner, (*location, index), (*around, id(value)))
        elif not isinstance(value, str | int | float | None):
            problem = f"JSON has no {type(value).__name__}"
        if problem:
            raise item.error(problem, location)

    check(item.value, (), ())
    return item


def _create(item: _Item, create: Callable[[_Item], None]) -> None:
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


def _read(item: _Item, model: type[_M]) -> _M:
    if not isinstance(item.value, dict):
        raise item.error("this is not a mapping, with keys and values")
    found = model.model_validate(item.value)
    known = found.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for location in _unknown_keys({k: v for k, v in item.value.items() if k not in _TOOLKIT_ONLY}, known):
        raise item.error(f"'{location[-1]}' is not a field of it", location)
    return found


def _unknown_keys(given: Any, known: Any, location: _Location = ()) -> Iterator[_Location]:
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


def _create_workflow(item: _Item, engine: Engine) -> None:
    workflow = _read(item, WorkflowItem)
    engine.catalog.upsert_workflow(
        workflow.external_id,
        description=workflow.description,
        data_set_id=workflow.data_set_id,
        data_domain_external_id=workflow.data_domain_external_id,
        max_concurrent_executions=workflow.max_concurrent_executions,
    )


def _create_version(item: _Item, engine: Engine) -> None:
    version = _read(item, VersionItem)
    engine.catalog.upsert_version(version.workflow_external_id, version.version, version.workflow_definition)
    for location, task in unknown_tasks(version.workflow_definition):
        log.warning("%s: %s", item.place((*location, "type")), unknown_type_warning(task))


def _create_trigger(item: _Item, engine: Engine) -> None:
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
