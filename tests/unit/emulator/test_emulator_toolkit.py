"""Workflows from files in the Cognite Toolkit's format."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulator_helpers import World

from airflow_provider_cdf.emulator import CdfEmulator, __main__
from airflow_provider_cdf.emulator.testing import cdf_emulator  # noqa: F401
from airflow_provider_cdf.emulator.toolkit import ToolkitError, load, override, read_config

VERSION = """\
workflowExternalId: wf
version: {{ version }}
workflowDefinition:
  tasks:
    - externalId: a
      type: function
      parameters:
        function:
          externalId: {{ prefix }}_f
          data: {limits: {{ limits }}, text: "${workflow.input.x}"}
    - externalId: b   # {{ only_in_a_comment }}
      type: function
      parameters: {function: {externalId: f}}
      dependsOn:
        - externalId: a
"""

TRIGGER = """\
- externalId: nightly
  workflowExternalId: wf
  workflowVersion: 1
  triggerRule: {triggerType: schedule, cronExpression: "0 3 * * *"}
  input: {x: 1}
  authentication: {clientId: "{{ id }}", clientSecret: "{{ secret }}"}
"""

VARIABLES = {"version": 1, "prefix": "p", "limits": [1, 2], "only_in_a_comment": "", "id": "i", "secret": "s"}


def write(directory: Path, **files: str) -> None:
    for name, content in files.items():
        (directory / f"x.{name}.yaml").write_text(content)


def test_variables_and_triggers(tmp_path: Path) -> None:
    workflow = "externalId: wf\ndataSetExternalId: d"
    write(tmp_path, WorkflowVersion=VERSION, WorkflowTrigger=TRIGGER, Workflow=workflow)
    world = World()
    load([tmp_path], world.engine, VARIABLES)
    (first, _) = world.engine.catalog.version("wf", "1").shown["tasks"]
    function = {"externalId": "p_f", "data": {"limits": [1, 2], "text": "${workflow.input.x}"}}
    assert first["parameters"] == {"function": function}
    world.advance(24 * 3600)
    (execution,) = world.engine.store.executions.values()
    assert execution.input == {"x": 1, "version": "1"}


def test_variables_of_a_directory_win_in_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, Workflow="externalId: '{{ prefix }}_" + name + "'")
    world = World()
    load([tmp_path], world.engine, {"prefix": "all", "two": {"prefix": "own"}})
    assert [workflow.external_id for workflow in world.engine.store.workflows] == ["all_one", "own_two"]


def test_variable_of_the_command_line_wins_everywhere() -> None:
    assert override({"a": 1, "m": {"a": 2, "b": 3}}, "a", "x") == {"a": "x", "m": {"b": 3}}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("{{ prefix }}", "{{ nobody }}", "yaml:9: unknown variable 'nobody'; give it with --var nobody="),
        ("externalId: a\n", "externalId: 5\n", "yaml:5: workflowDefinition.tasks[0].externalId: "),
        (
            "type: function\n      parameters: {",
            "type: magic\n      parameters: {",
            "yaml:11: workflowDefinition.tasks[1]: ",
        ),
        ("dependsOn", "dependOn", "yaml:14: 'dependOn' is not a field of it"),
        (
            "- externalId: a\n",
            "- externalId: nobody\n",
            "yaml:14: workflowDefinition.tasks: task 'b' dependsOn 'a'",
        ),
        (
            "        - externalId: a\n",
            "        - externalId: b\n",
            "yaml:14: workflowDefinition.tasks: dependsOn has a",
        ),
        (
            "- externalId: b ",
            "- externalId: a ",
            "yaml:11: workflowDefinition.tasks: there are two tasks with the externalId 'a'",
        ),
        ("workflowDefinition:", "definition:", "yaml:1: workflowDefinition: Field required"),
        ("tasks:\n", "tasks: ]\n", "yaml:4: "),
    ],
)
def test_mistake_is_named_with_file_and_line(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in VERSION
    write(tmp_path, WorkflowVersion=VERSION.replace(before, after, 1))
    with pytest.raises(ToolkitError) as raised:
        load([tmp_path], World().engine, VARIABLES)
    assert f"x.WorkflowVersion.{message}" in str(raised.value)


def test_command_line_reads_the_config_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, WorkflowVersion=VERSION)
    config = tmp_path / "config.dev.yaml"
    config.write_text("environment: {project: p}\nvariables: {version: 1, prefix: p}")
    assert read_config(config) == {"version": 1, "prefix": "p"}
    assert __main__.main(["--workflows", str(tmp_path), "--config", str(config)]) == 1
    assert "x.WorkflowVersion.yaml:10: unknown variable 'limits'" in capsys.readouterr().err
    config.write_text("nothing: here")
    assert __main__.main(["--config", str(config)]) == 1
    assert "has a mapping `variables`" in capsys.readouterr().err


def test_file_whose_name_does_not_say_what_is_in_it_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(VERSION)
    with pytest.raises(ToolkitError, match=r"other\.yaml: its name does not say .* \.WorkflowVersion\.yaml"):
        load([other], World().engine)
    load([tmp_path], World().engine)  # a directory may hold whatever it likes


def test_fixture_sets_the_default_connection(cdf_emulator: CdfEmulator, tmp_path: Path) -> None:  # noqa: F811
    import os

    assert os.environ["AIRFLOW_CONN_CDF_DEFAULT"] == cdf_emulator.airflow_connection_uri()
    write(tmp_path, Workflow="externalId: '{{ name }}'")
    cdf_emulator.load(tmp_path, variables={"name": "loaded"})
    with cdf_emulator.turn() as engine:
        assert engine.catalog.workflow("loaded").external_id == "loaded"
