"""YAML files in the Toolkit's format as JSON, with the lines that its parts come from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from airflow_provider_cdf.emulator.toolkit.variables import Filled, ToolkitError

#: Keys and indices that lead to a part of a resource.
Location = tuple[int | str, ...]
#: The same for parts of all resources of a kind; None is any index.
FieldPath = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One resource of a file, and where in the file its parts are."""

    filled: Filled
    value: Any
    node: yaml.Node

    def error(self, message: str, location: Location = ()) -> ToolkitError:
        """What to raise: the message, after the place that it is about."""
        return ToolkitError(f"{self.place(location)}: {message}")

    def place(self, location: Location) -> str:
        """The file and the line of a part of the resource."""
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


def read_items(filled: Filled, versions: Iterable[FieldPath]) -> Iterator[Item]:
    """
    The resources of a file: one, or a list of them.

    :param filled: the file
    :param versions: the ways to the fields that are versions
    :raises ToolkitError: naming the line and what is wrong there
    """
    try:
        loader = _Loader(filled.text)
        node = loader.get_single_node()
        filled.check(node)
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if item is not None:
                for path in versions:
                    _keep_as_written(loader, item, path)
                value = loader.construct_document(item)
                yield _checked(Item(filled, value, item))
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


def _keep_as_written(loader: _Loader, node: yaml.Node, path: FieldPath) -> None:
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


def _checked(item: Item) -> Item:
    """
    The item, which is JSON.

    :raises ToolkitError: if it is not, saying where
    """

    def check(value: Any, location: Location, around: tuple[int, ...]) -> None:
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
