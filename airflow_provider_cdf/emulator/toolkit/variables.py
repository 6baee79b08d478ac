"""
Variables of Toolkit config files, and what the Toolkit makes of them in a file.

https://docs.cognite.com/cdf/deploy/cdf_toolkit/guides/configure_deploy_modules
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

_UNKNOWN = re.compile(r"\{\{\s*([\w.\-]+)\s*\}\}")
_MARK = "unknownvariable"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_YAML_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off"})


class ToolkitError(ValueError):
    """A file that cannot be read as what its name says it is."""


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """
    The variables of a Toolkit config file; none if it has no ``variables``.

    :param path: such as ``config.dev.yaml``
    :raises ToolkitError: if it cannot be read
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (
        OSError,
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: 2024-13-01 is no date
        raise ToolkitError(f"{path}: {error}") from None
    if not isinstance(content, dict | None):
        raise ToolkitError(f"{path}: a config file is a mapping, with the variables under `variables`")
    variables = (content or {}).get("variables")
    if not isinstance(variables, dict | None):
        raise ToolkitError(f"{path}: `variables` is a mapping")
    return variables or {}


def override(variables: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """
    Variables in which one has a certain value everywhere.

    :param variables: as in :func:`sets_for`
    :param name: of the variable
    :param value: for it
    """

    def without(tree: Any) -> Any:
        if isinstance(tree, list):
            return [without(item) for item in tree]
        if not isinstance(tree, Mapping):
            return tree
        return {key: without(item) for key, item in tree.items() if key != name}

    return {**without(variables), name: value}


def sets_for(file: Path, tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    The sets of variables that a file is read with: one, or as many as the config lists for its module.

    :param file: the file
    :param tree: values by name, and by the name of a directory those that hold in it only, or a list of them,
        as under ``variables:`` in a config file
    :return: of each set the variables of the innermost directory first
    """
    parts = file.absolute().parent.parts
    #: By the number of the set, None for what all of them share: (depth, name, value).
    found: dict[int | None, list[tuple[int, str, Any]]] = {None: []}
    open_trees: list[tuple[Mapping[str, Any], int | None, int | None]] = [(tree, None, None)]
    while open_trees:
        subtree, end, number = open_trees.pop()
        for name, value in subtree.items():
            if isinstance(value, Mapping):
                open_trees += [(value, inner, number) for inner in _ends(parts, str(name), end)]
            elif _is_list_of_sets(value):
                for inner in _ends(parts, str(name), end):
                    open_trees += [(item, inner, index) for index, item in enumerate(value)]
            elif value is not None:
                found.setdefault(number, []).append((end or 0, str(name), value))
    for variables in found.values():
        variables.sort(key=lambda entry: -entry[0])
    shared = found.pop(None)
    sets = [found[number] + shared for number in sorted(found, key=str)] or [shared]
    return [_first_of_each(variables) for variables in sets]


def _ends(parts: tuple[str, ...], name: str, start: int | None) -> Iterator[int]:
    """Where in a path the directory ``name`` ends, directly below ``start``, or anywhere if that is None."""
    wanted = Path(name).parts
    for first in range(len(parts)) if start is None else (start,):
        if wanted and parts[first : first + len(wanted)] == wanted:
            yield first + len(wanted)


def _is_list_of_sets(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _first_of_each(variables: list[tuple[int, str, Any]]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for _, name, value in variables:
        chosen.setdefault(name, value)
    return chosen


@dataclass(frozen=True, slots=True)
class Filled:
    """The text of a file with its variables filled in."""

    file: Path
    text: str
    #: For each line of the text the number of the line in the file that it comes from.
    numbers: list[int]
    #: Variables without a value, by what stands in the text in their place, with their lines.
    unknown: dict[str, tuple[str, int]]

    def check(self, node: yaml.Node | None) -> None:
        """
        Refuse a variable without a value, unless it stands in a comment.

        :param node: the text, read
        :raises ToolkitError: naming the variable and its line
        """
        if not self.unknown or node is None:
            return
        texts = "\n".join(_texts(node, set()))
        for mark, (name, number) in self.unknown.items():
            if mark in texts:
                raise ToolkitError(
                    f"{self.file}:{number}: unknown variable '{name}'; give it with --var {name}=..., in the"
                    " config file, or in CdfEmulator(variables=...)"
                )


def _texts(node: yaml.Node, seen: set[int]) -> Iterator[str]:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield node.value
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _texts(item, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            yield from _texts(key, seen)
            yield from _texts(item, seen)


def fill(file: Path, text: str, variables: Mapping[str, Any]) -> Filled:
    """
    Fill variables in as the Toolkit does: as text, before YAML is read, one after the other.

    :param file: where the text is from
    :param text: of the file
    :param variables: values by name
    """
    lines = list(enumerate(text.split("\n"), start=1))
    for name, value in variables.items():
        lines = [
            (number, part)
            for number, line in lines
            for part in (_replace(line, name, value).split("\n") if "{{" in line else (line,))
        ]
    unknown: dict[str, tuple[str, int]] = {}
    for index, (number, line) in enumerate(lines):
        # A line that begins with # is a comment, or one of a query within a text: it stays as it is.
        if "{{" not in line or line.lstrip().startswith("#"):
            continue

        def mark(match: re.Match[str], number: int = number) -> str:
            made = f"{_MARK}{len(unknown)}x"
            unknown[made] = (match[1], number)
            return made

        lines[index] = (number, _UNKNOWN.sub(mark, line))
    return Filled(file, "\n".join(line for _, line in lines), [number for number, _ in lines], unknown)


def _replace(line: str, name: str, value: Any) -> str:
    """What the Toolkit (0.9.28) makes of a line: text of digits, and before a colon, is put into quotes."""
    token = rf"\{{\{{\s*{re.escape(name)}\s*\}}\}}"
    if isinstance(value, str) and (value.isdigit() or value.endswith(":")):
        return re.sub(f"'{token}'|{token}|\"{token}\"", lambda _: f'"{value}"', line)
    if isinstance(value, list) and (alone := re.fullmatch(rf"(\s*){token}\s*", line)):
        return "\n".join(f"{alone[1]}- {_item(item)}" for item in value)
    if isinstance(value, list):
        value = [str(item) if isinstance(item, date) else item for item in value]
    return re.sub(token, lambda _: str(value), line)


def _item(value: Any) -> str:
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return value if _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS else json.dumps(value)
