"""Workflows from files in the Cognite Toolkit's format."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulator_helpers import World, statuses

from airflow_provider_cdf.emulator import CdfEmulator, __main__
from airflow_provider_cdf.emulator.testing import cdf_emulator  # noqa: F401
from airflow_provider_cdf.emulator.toolkit import ToolkitError, load
from airflow_provider_cdf.emulator.toolkit.variables import override, read_config

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


def test_one_path_may_come_without_a_list(tmp_path: Path) -> None:
    file = tmp_path / "pumps.Workflow.yaml"
    file.write_text("externalId: pumps")
    for path in (file, str(file)):
        cdf = CdfEmulator(path)  # type: ignore[arg-type] - as in a first try
        assert [one.external_id for one in cdf.engine.store.workflows] == ["pumps"]


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
            "kind: function\n      parameters: {",
            "yaml:11: workflowDefinition.tasks[1]: a task has a type: function, ",
        ),
        ("text: ", "2: x, text: ", "yaml:10: the key '2' is no text"),
        (
            "text: ",
            "day: 2024-05-06, text: ",
            "yaml:10: '2024-05-06' is a date in YAML, and JSON has none",
        ),
        ("text: ", "day: 2024-13-01, text: ", "yaml:10: '2024-13-01' is a date in YAML"),
        ("text: ", "2024-05-06: x, text: ", "yaml:10: '2024-05-06' is a date in YAML"),
        ("text: ", "limit: .inf, text: ", "yaml:10: '.inf' is no number of JSON"),
        ("text: ", "limit: 0x_, text: ", "yaml:10: '0x_' is no number: put it into quotes"),
        ("text: ", "bytes: !!binary aGk=, text: ", "yaml:10: JSON has no bytes"),
        ("text: ", "some: !!set {a, b}, text: ", "yaml:10: JSON has no set"),
        ("text: ", "some: !mine x, text: ", "yaml:10: could not determine a constructor for the tag '!mine'"),
        ("data: {", "data: &me {me: *me, ", "yaml:10: it contains itself"),
        ("tasks:\n", "tasks: *nobody\n", "yaml:4: found undefined alias"),
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
    config.write_text("variables: nothing")
    assert __main__.main(["--config", str(config)]) == 1
    assert "`variables` is a mapping" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["workflow.Group", "Workflow", "my.workflow.Function", "x.Workflows"])
def test_kind_of_a_file_is_the_end_of_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "auth").mkdir()
    (tmp_path / "auth" / f"{name}.yaml").write_text("name: a group, or something else that is no workflow")
    (tmp_path / "my.group.workflow.yml").write_text("externalId: found")
    (tmp_path / "directory.Workflow.yaml").mkdir()
    world = World()
    load([tmp_path], world.engine)
    assert [workflow.external_id for workflow in world.engine.store.workflows] == ["found"]
    with pytest.raises(ToolkitError, match="its name does not say what is in it"):
        load([tmp_path / "auth" / f"{name}.yaml"], world.engine)


@pytest.mark.parametrize("version", ["1.10", "1_0", "007", "on", "1e3", "2024-05-06", "12:30", "0x1F", "v1"])
def test_version_is_what_the_file_says(tmp_path: Path, version: str) -> None:
    child = "workflowExternalId: child\nversion: @\nworkflowDefinition: {tasks: []}"
    parent = (
        "- {workflowExternalId: parent, version: @, workflowDefinition: {tasks: [{externalId: s,"
        " type: subworkflow, parameters: {subworkflow: {workflowExternalId: child, version: @}}}]}}\n"
        "- {<<: {version: @}, workflowExternalId: merged, workflowDefinition: {tasks: []}}"
    )
    trigger = (
        "externalId: t\nworkflowExternalId: parent\nworkflowVersion: @\n"
        "triggerRule: {triggerType: schedule, cronExpression: 0 3 * * *}"
    )
    files = {"a.WorkflowVersion": parent, "b.WorkflowVersion": child, "c.WorkflowTrigger": trigger}
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text.replace("@", version))
    world = World()
    load([tmp_path], world.engine)
    assert {record.version for record in world.engine.store.versions} == {version}
    assert {record.workflow_external_id for record in world.engine.store.versions} == {
        "parent",
        "child",
        "merged",
    }
    assert world.engine.triggers.get("t").workflow_version == version


def test_version_without_a_value_is_missing(tmp_path: Path) -> None:
    write(tmp_path, WorkflowVersion="workflowExternalId: w\nversion:\nworkflowDefinition: {tasks: []}")
    with pytest.raises(ToolkitError, match="version: Field required"):
        load([tmp_path], World().engine)


@pytest.mark.parametrize(
    "field", ["retries", "timeout", "onFailure", "dependsOn", "name", "description", "misspelled"]
)
def test_key_without_a_value_is_a_key_that_is_not_there(tmp_path: Path, field: str) -> None:
    task = "  - externalId: t\n    type: function\n    parameters: {function: {externalId: f}}\n"
    text = f"workflowExternalId: w\nversion: '1'\nworkflowDefinition:\n  tasks:\n{task}    {field}:"
    write(tmp_path, WorkflowVersion=text)
    world = World()
    load([tmp_path], world.engine)
    (shown,) = world.engine.catalog.version("w", "1").shown["tasks"]
    assert shown == {
        "externalId": "t",
        "type": "function",
        "parameters": {"function": {"externalId": "f"}},
        "retries": 3,
        "timeout": 3600,
        "onFailure": "abortWorkflow",
        "dependsOn": [],
    }


def test_what_the_emulator_does_not_know_is_kept_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inner = "{externalId: b, type: functionApp, parameters: {functionApp: {externalId: f, path: /}}}"
    version = f"""\
workflowExternalId: wf
version: '1'
workflowDefinition:
  tasks:
    - externalId: a
      type: jsonMapping
      parameters: {{mapping: {{}}}}
    - externalId: s
      type: subworkflow
      parameters:
        subworkflow:
          tasks:
            - {inner}
"""
    trigger = "externalId: t\nworkflowExternalId: wf\nworkflowVersion: '1'\nisPaused: true\ntriggerRule:\n"
    write(
        tmp_path,
        Workflow="externalId: wf\ndataDomainExternalId: pumps\ndataSetExternalId: d",
        WorkflowVersion=version,
        WorkflowTrigger=f"{trigger}  triggerType: recordStream\n  streamExternalId: s",
    )
    world = World()
    load([tmp_path], world.engine)
    places = [record.getMessage().removeprefix(f"{tmp_path}/x.").partition(": ") for record in caplog.records]
    assert [(place, text[:30]) for place, _, text in places] == [
        ("WorkflowVersion.yaml:6", "Task 'a' has the type 'jsonMap"),
        ("WorkflowVersion.yaml:13", "Task 'b' has the type 'functio"),
        ("WorkflowTrigger.yaml:5", "trigger 't' has the triggerTyp"),
    ]
    assert world.engine.catalog.workflow("wf").data_domain_external_id == "pumps"
    assert world.engine.triggers.get("t").is_paused
    execution = world.engine.run("wf", "1")
    world.advance(10)
    assert (execution.status, statuses(execution)) == (
        "COMPLETED",
        {"a": "COMPLETED", "s": "COMPLETED", "b": "COMPLETED"},
    )


def test_file_whose_name_does_not_say_what_is_in_it_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(VERSION)
    with pytest.raises(ToolkitError, match=r"other\.yaml: its name does not say .* \.WorkflowVersion\.yaml"):
        load([other], World().engine)
    load([tmp_path], World().engine)  # a directory may hold whatever it likes


def test_directory_of_which_nothing_was_read_names_what_was_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load([tmp_path], World().engine)
    assert f"{tmp_path}: no workflow was read from it. It has no .yaml files." in caplog.text
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.Group.yml").write_text("name: a")
    (tmp_path / "pump_health.yaml").write_text(VERSION)
    load([tmp_path], World().engine)
    assert "must end with .Workflow.yaml, .WorkflowVersion.yaml or .WorkflowTrigger.yaml" in caplog.text
    assert f"Left alone: {Path('in/a.Group.yml')}, pump_health.yaml." in caplog.text
    for number in range(9):
        (tmp_path / f"{number}.yaml").touch()
    load([tmp_path], World().engine)
    assert "Left alone: 0.yaml, 1.yaml, 2.yaml, 3.yaml, 4.yaml and 6 more." in caplog.text


def test_files_of_other_kinds_are_no_matter_where_there_is_a_workflow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, WorkflowVersion=VERSION, Group="name: a")
    (tmp_path / "b.yaml").touch()
    load([tmp_path], World().engine, VARIABLES)
    assert caplog.text == ""


def test_fixture_sets_the_default_connection(cdf_emulator: CdfEmulator, tmp_path: Path) -> None:  # noqa: F811
    import os

    assert os.environ["AIRFLOW_CONN_CDF_DEFAULT"] == cdf_emulator.airflow_connection_uri()
    write(tmp_path, Workflow="externalId: '{{ name }}'")
    cdf_emulator.load(tmp_path, variables={"name": "loaded"})
    with cdf_emulator.turn() as engine:
        assert engine.catalog.workflow("loaded").external_id == "loaded"
