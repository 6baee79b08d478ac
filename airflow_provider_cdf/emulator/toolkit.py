"""
Workflows from YAML files in the format of the Cognite Toolkit.

https://docs.cognite.com/cdf/deploy/cdf_toolkit/references/resource_library
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from airflow_provider_cdf.emulator.api.schemas import TriggerFields, VersionItem, WorkflowItem
from airflow_provider_cdf.emulator.rules.definitions import Model
from airflow_provider_cdf.emulator.rules.engine import Engine
from airflow_provider_cdf.emulator.rules.errors import CdfError, UnknownSubworkflowError, describe

_Location = tuple[int | str, ...]

_VARIABLE = re.compile(r"\{\{\s*([\w.\-]+)\s*\}\}")

#: In the names of files, in lower case: what is in them.
_WORKFLOW, _VERSION, _TRIGGER = ".workflow.", ".workflowversion.", ".workflowtrigger."

#: What only the Toolkit understands: it replaces names by ids, and logs in.
_TOOLKIT_ONLY = frozenset({"dataSetExternalId", "authentication"})


class ToolkitError(ValueError):
    """A file that cannot be read as what its name says it is."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One resource of a file, and where in the file its parts are."""

    file: Path
    value: Any
    node: yaml.Node

    def error(self, message: str, location: Iterable[int | str] = ()) -> ToolkitError:
        return ToolkitError(f"{self.file}:{self._line(location)}: {message}")

    def _line(self, location: Iterable[int | str]) -> int:
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
        return int(line) + 1


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


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """
    The variables of a Toolkit config file.

    :param path: such as ``config.dev.yaml``
    :raises ToolkitError: if it cannot be read
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ToolkitError(f"{path}: {error}") from None
    variables = content.get("variables") if isinstance(content, dict) else None
    if not isinstance(variables, dict):
        raise ToolkitError(f"{path}: a config file has a mapping `variables`")
    return variables


def override(variables: Mapping[str, Any], name: str, value: str) -> dict[str, Any]:
    """
    Variables in which one has a certain value everywhere.

    :param variables: as in :func:`load`
    :param name: of the variable
    :param value: for it
    """

    def without(tree: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: item for key, item in tree.items() if key != name}
        return {key: without(item) if isinstance(item, dict) else item for key, item in kept.items()}

    return {**without(variables), name: value}


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for pattern in ("*.yaml", "*.yml") for file in path.rglob(pattern))
    if not path.exists():
        raise ToolkitError(f"{path}: there is no such file or directory")
    if not any(_is(path, kind) for kind in (_WORKFLOW, _VERSION, _TRIGGER)):
        raise ToolkitError(
            f"{path}: its name does not say what is in it; it must end with .Workflow.yaml,"
            " .WorkflowVersion.yaml or .WorkflowTrigger.yaml"
        )
    return [path]


def _is(file: Path, kind: str) -> bool:
    return kind in f".{file.name.lower()}"


def _items(files: Iterable[Path], kind: str, variables: Mapping[str, Any]) -> Iterator[_Item]:
    for file in files:
        if not _is(file, kind):
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ToolkitError(f"{file}: {error}") from None
        text = _fill(file, text, _variables_of(file, variables))
        try:
            value, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ToolkitError(f"{file}:{line}: {error.problem}") from None
        except yaml.YAMLError as error:
            raise ToolkitError(f"{file}: {error}") from None
        if isinstance(node, yaml.SequenceNode):
            yield from (_Item(file, *pair) for pair in zip(value, node.value, strict=True))
        elif node is not None:
            yield _Item(file, value, node)


def _variables_of(file: Path, tree: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that hold for a file; those of a directory further down win."""
    directories = file.absolute().parent.parts
    found = {name: value for name, value in tree.items() if not isinstance(value, dict)}
    for name, subtree in tree.items():
        if isinstance(subtree, dict) and name in directories:
            found |= _variables_of(file, subtree)
    return found


def _fill(file: Path, text: str, variables: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in variables:
            line = text.count("\n", 0, match.start()) + 1
            raise ToolkitError(
                f"{file}:{line}: unknown variable '{match[1]}'; give it with --var {match[1]}=..., in the"
                " config file, or in CdfEmulator(variables=...)"
            )
        found = variables[match[1]]
        return found if isinstance(found, str) else json.dumps(found)

    # Comments keep theirs: nobody has to give a variable that is used nowhere else.
    lines = text.split("\n")
    commented = {number for number, line in enumerate(lines) if line.lstrip().startswith("#")}
    return _VARIABLE.sub(
        lambda match: match[0] if text.count("\n", 0, match.start()) in commented else value(match), text
    )


def _create(item: _Item, create: Callable[[_Item], None]) -> None:
    try:
        create(item)
    except ValidationError as error:
        first = error.errors()[0]
        raise item.error(describe(first, item.value), first["loc"]) from None
    except CdfError as error:
        raise item.error(error.message, error.location) from error


_M = TypeVar("_M", bound=Model)


def _read(item: _Item, model: type[_M], *versions: str) -> _M:
    value = item.value
    # YAML reads an unquoted version such as 1 as a number.
    for key in versions:
        if isinstance(value, dict) and isinstance(value.get(key), int | float):
            value = {**value, key: str(value[key])}
    found = model.model_validate(value)
    known = found.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for location in _unknown_keys({k: v for k, v in value.items() if k not in _TOOLKIT_ONLY}, known):
        raise item.error(f"'{location[-1]}' is not a field of it", location)
    return found


def _unknown_keys(given: Any, known: Any, location: _Location = ()) -> Iterator[_Location]:
    """Where there are keys that were dropped when the value was read: misspelled ones, most of the time."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, item in given.items():
            if key not in known:
                yield (*location, key)
            else:
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
        max_concurrent_executions=workflow.max_concurrent_executions,
    )


def _create_version(item: _Item, engine: Engine) -> None:
    version = _read(item, VersionItem, "version")
    engine.catalog.upsert_version(version.workflow_external_id, version.version, version.workflow_definition)


def _create_trigger(item: _Item, engine: Engine) -> None:
    trigger = _read(item, TriggerFields, "workflowVersion")
    engine.triggers.upsert(
        trigger.external_id,
        trigger.trigger_rule.model_dump(mode="json", by_alias=True, exclude_unset=True),
        trigger.workflow_external_id,
        trigger.workflow_version,
        input=trigger.input,
        metadata=trigger.metadata,
    )
