"""Variables of config files, as the Toolkit (0.9.28) fills them in."""

from __future__ import annotations

import random
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from emulator_helpers import World

from airflow_provider_cdf.emulator import CdfEmulator, __main__
from airflow_provider_cdf.emulator.toolkit import ToolkitError, load
from airflow_provider_cdf.emulator.toolkit.variables import fill, override, read_config, sets_for

FILE = Path("x.Workflow.yaml")


@pytest.mark.parametrize(
    ("value", "text", "read"),
    [
        ("0042", "{{ v }}", "0042"),
        ("0042", "'{{ v }}'", "0042"),
        ("0042", '"{{v}}"', "0042"),
        ("0042", "pump_{{ v }}", 'pump_"0042"'),  # seen in the Toolkit's build, too
        ("7", "[{{ v }}]", ["7"]),
        ("note:", "{{ v }}", "note:"),
        ("1.10", "{{ v }}", 1.1),  # not of digits alone: YAML decides
        (42, "{{ v }}", 42),
        (True, "{{ v }}", True),
        (True, "is {{ v }}", "is True"),
        (date(2024, 1, 1), "'{{ v }}'", "2024-01-01"),
        (["a", "b c"], "{{ v }}", ["a", "b c"]),
        ([1, "2", "yes", True], "\n  {{ v }}", [1, "2", "yes", True]),
        (["c"], "\n  - a\n  {{ v }}\n  - d", ["a", "c", "d"]),
        ("{{ inner }}", "{{ v }}", "deep"),
        ("plain", "{{ v }}{{v}}", "plainplain"),
    ],
)
def test_type_of_a_variable(value: Any, text: str, read: Any) -> None:
    filled = fill(FILE, f"x: {text}\n", {"v": value, "inner": "deep"})
    assert yaml.safe_load(filled.text) == {"x": read}


def test_unknown_variable_is_named_wherever_it_stands_but_in_a_comment(tmp_path: Path) -> None:
    text = """\
# {{ a }}
externalId: wf  # {{ b }}
description: |
  # {{ c }} in a query
  of {{ known }}
"""
    file = tmp_path / "x.Workflow.yaml"
    file.write_text(text)
    world = World()
    load([file], world.engine, {"known": ["two", "lines"]})
    assert world.engine.catalog.workflow("wf").description == "# {{ c }} in a query\nof ['two', 'lines']\n"
    for before, after in (
        ("  of", "  {{ unknown }} of"),
        ("wf ", '"{{unknown}} # wf"'),
        ("ext", "? {{ unknown }}\next"),
    ):
        file.write_text(text.replace(before, after, 1))
        line = 1 + file.read_text().partition("unknown")[0].count("\n")
        with pytest.raises(ToolkitError, match=rf"x\.Workflow\.yaml:{line}: unknown variable 'unknown'"):
            load([file], world.engine, {"known": 1})


def test_line_of_a_mistake_after_a_list_that_took_several_lines(tmp_path: Path) -> None:
    file = tmp_path / "x.Workflow.yaml"
    file.write_text("externalId: wf\nmetadata:\n  {{ many }}\ndescribtion: d\n")
    with pytest.raises(ToolkitError, match=r"x\.Workflow\.yaml:2: 'metadata' is not a field"):
        load([file], World().engine, {"many": list("abc")})
    file.write_text("externalId: wf\n{{ many }}\ndescribtion: d\n")
    with pytest.raises(ToolkitError, match=r"x\.Workflow\.yaml:3: 'describtion' is not a field"):
        load([file], World().engine, {"many": "# several\n# lines"})


def test_variables_of_the_innermost_directory_win() -> None:
    file = Path("/plant/modules/common/pumps/workflows/x.Workflow.yaml")
    tree = {
        "common/pumps": {"a": "path in one key"},
        "a": "all",
        "b": "all",
        "modules": {"a": "modules", "pumps": {"a": "not directly below"}, "common": {"b": "common"}},
        "other": {"a": "elsewhere"},
        "empty": None,
    }
    assert sets_for(file, tree) == [{"a": "path in one key", "b": "common"}]
    assert sets_for(file, {}) == [{}]


def test_several_sets_of_variables_make_several_resources(tmp_path: Path) -> None:
    module = tmp_path / "modules" / "site"
    module.mkdir(parents=True)
    (module / "x.Workflow.yaml").write_text("externalId: '{{ site }}_{{ kind }}'\n")
    tree = {"modules": {"kind": "pump", "site": [{"site": "north"}, {"site": "south", "kind": "fan"}]}}
    world = World()
    load([tmp_path], world.engine, tree)
    names = [workflow.external_id for workflow in world.engine.store.workflows]
    assert names == ["north_pump", "south_fan"]
    assert override(tree, "kind", "valve") == {
        "modules": {"site": [{"site": "north"}, {"site": "south"}]},
        "kind": "valve",
    }


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("", {}),
        ("environment: {name: dev}", {}),
        ("variables:", {}),
        (
            "variables: {a: 2024-01-01, modules:, b: '0042'}",
            {"a": date(2024, 1, 1), "modules": None, "b": "0042"},
        ),
    ],
)
def test_config_file(tmp_path: Path, text: str, variables: dict[str, Any]) -> None:
    file = tmp_path / "config.dev.yaml"
    file.write_text(text)
    assert read_config(file) == variables
    assert sets_for(FILE, variables)


@pytest.mark.parametrize(
    "text", ["[]", "text", "variables: [1]", "variables: 1", "a: 2024-13-01", "a: ]", "\0"]
)
def test_config_file_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.dev.yaml"
    file.write_text(text)
    with pytest.raises(ToolkitError, match=r"config\.dev\.yaml: "):
        read_config(file)
    with pytest.raises(ToolkitError, match="nobody"):
        read_config(tmp_path / "nobody.yaml")


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("7", 7),
        ("-1", -1),
        ("0", 0),
        ("0042", "0042"),
        ("'7'", "7"),
        ('"7"', "7"),
        ("true", "true"),
        ("'", "'"),
    ],
)
def test_variable_of_the_command_line(monkeypatch: pytest.MonkeyPatch, given: str, value: Any) -> None:
    def take(self: CdfEmulator, *arguments: Any, variables: dict[str, Any], **others: Any) -> None:
        assert (variables, type(variables["v"])) == ({"v": value}, type(value))
        raise OSError("enough")

    monkeypatch.setattr(CdfEmulator, "__init__", take)
    assert __main__.main(["--var", f"v={given}"]) == 1


SNIPPETS = (
    "externalId: wf",
    "version: 1.10",
    "workflowDefinition:",
    "  tasks:",
    "  - externalId: a",
    "    type: function",
    "    parameters: {function: {externalId: f, data: {a: 2024-01-01, b: .nan}}}",
    "- externalId: b",
    "{{ known }}",
    "{{ unknown }}",
    "? [a]",
    ": {",
    "&a [*a]",
    "<<: *a",
    "<<: [1]",
    "!!set {a}",
    "!!python/object:x y",
    "!!binary '===='",
    "!!int x",
    "!!float []",
    "!!timestamp x",
    "--- ",
    "...",
    "\t- x",
    "key: 'open",
    "key: |",
    "0x_: 1",
    "null: 1",
    "- 5",
    "\u2028",
    "\x07",
)


@pytest.mark.parametrize("kind", ["Workflow", "WorkflowVersion", "WorkflowTrigger"])
def test_whatever_is_in_a_file_there_is_no_stack_trace(tmp_path: Path, kind: str) -> None:
    chance = random.Random(kind)
    file = tmp_path / f"x.{kind}.yaml"
    refusals = []
    for _ in range(150):
        lines = chance.choices(SNIPPETS, k=chance.randint(0, 9))
        file.write_text("\n".join(lines), encoding="utf-8")
        variables = {"known": chance.choice(["x", "07", ["a", 1], 2.5, True, date(2024, 1, 1), "a\nb"])}
        try:
            load([file], World().engine, variables)
        except ToolkitError as error:
            refusals.append(str(error))
    assert len(refusals) > 50
    assert all(refusal.startswith(str(file)) for refusal in refusals)
    file.write_text("externalId: " + "[" * 800 + "]" * 800)
    with pytest.raises(ToolkitError, match="nested too deeply"):
        load([file], World().engine)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ToolkitError):
        load([file], World().engine)
