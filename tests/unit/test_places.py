"""What is refused where a DAG file is read names the task and the line, also in Airflow's list of errors."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskGroup
from moved import DagBag
from wording import assert_well_said

from airflow_provider_cdf.cdf.errors import CdfInputError
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.task_group import CdfTaskGroup
from airflow_provider_cdf.versions import HAS_TASK_API

BEGIN = """\
from airflow.providers.common.compat.sdk import DAG, task
from airflow_provider_cdf.inbox import cdf_inbox
from airflow_provider_cdf.notifications.task import CdfTaskNotifier
from airflow_provider_cdf.operators.task import CdfTaskOperator, CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowCancelOperator, CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor
RUN = {"task_id": "run", "workflow_external_id": "w", "version": "1"}
OF = {"execution_id": "{{ x }}", "task_external_id": "score"}
with DAG("plant"):
    fine = CdfWorkflowRunOperator(**{**RUN, "task_id": "fine"})
"""
#: What stands in a DAG file: in the line that begins so, its mistake; and what Airflow then shows last.
MISTAKES = [
    ("CdfWorkflowRunOperator(**RUN, poll_interval='5')", r"poll_interval must .* It is '5'\. \[task 'run', "),
    ("CdfWorkflowRunOperator(**RUN, poll_intervall=5)", r"task 'run', "),
    ("CdfWorkflowRunOperator(**{**RUN, 'task_id': 'fine'})", r"already been added.* \[task 'fine', "),
    ("CdfWorkflowRunOperator(**{**RUN, 'version': 1.1})", r"version must be .* \[task 'run', "),
    (
        "CdfWorkflowRunOperator.partial(**RUN, metadata={'a': 1.5}, input=fine).expand(version=['1'])",
        r"input is the task 'fine' itself: .* \[task 'run', ",
    ),
    (
        "CdfWorkflowRunOperator.partial(**RUN).expand(input=[{'a': float('nan')}])",
        r"The input\.a is not JSON: it is nan\. \[task 'run', ",
    ),
    (
        "CdfWorkflowRunOperator.partial(**RUN).expand_kwargs([{'input': {'a': float('nan')}}])",
        r"The input\.a is not JSON: it is nan\. \[task 'run', ",
    ),
    ("CdfWorkflowCancelOperator(task_id='stop', execution_id='x')", r"must be a UUID.* \[task 'stop', "),
    (
        "CdfTaskSensor(task_id='waits', **OF, target_status='DONE')",
        r"CDF has no status 'DONE' here\..* CANCELED[^.]*\. \[task 'waits', ",
    ),
    ("CdfTaskSensor(task_id='waits', **OF, poke_interval=0)", r"poke_interval .* \[task 'waits', "),
    ("CdfWorkflowSensor(task_id='ended', execution_id='x')", r"must be a UUID.* \[task 'ended', "),
    ("CdfTaskUpdateOperator(task_id='report')", r"Give either .* \[task 'report', "),
    (
        "CdfTaskOperator(task_id='work', python_callable=print, **OF, deferrable='no')",
        r"deferrable must .* \[task 'work', ",
    ),
    ("CdfTaskNotifier(status='DONE', **OF)", r"CDF has no status 'DONE'.* \["),
    (
        "cdf_inbox('box', trigger_dag_id='box', workflow_external_id='w', task_external_id='t')",
        r"its own dag_id\. \[",
    ),
    (
        "cdf_inbox('i', trigger_dag_id='d', workflow_external_id='w', task_external_id='t', poll_interval=0)",
        r"poll_interval .* \[",
    ),
    (
        "task.cdf_task(**OF, failure_status='DONE')(lambda: None).override(task_id='judge')()",
        r"\[task 'judge', ",
    ),
    ("task.cdf_task(**OF)(lambda: None).override(task_id='judge')(cdf_task=1)", r"\[task 'judge', "),
    (
        "task.cdf_task(execution_id='x', task_external_id='s')(lambda a: None).override(task_id='judge')"
        ".expand(a=['a'])",
        r"must be a UUID.*\[task 'judge', ",
    ),
]


@pytest.mark.parametrize("depth", [2, 0])
@pytest.mark.parametrize(("mistake", "words"), MISTAKES, ids=[one for one, _ in MISTAKES])
def test_an_import_error_names_the_task_and_the_line(
    depth: int, mistake: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACKS", str(bool(depth)))
    file = tmp_path / "plant.py"
    file.write_text(BEGIN + textwrap.indent(mistake, "    ") + "\n")
    bag = DagBag(str(file))
    (shown,) = bag.import_errors.values()
    line = len(BEGIN.splitlines()) + 1
    assert re.search(rf"{words}line {line} of plant\.py\]$", shown.strip()), shown
    assert "Nothing was sent" not in shown
    assert shown.count("plant.py]") == 1


def test_the_whole_id_is_named_in_a_group() -> None:
    with DAG("plant"), TaskGroup("north"), pytest.raises(ValueError, match="poll_interval") as caught:
        CdfWorkflowRunOperator(task_id="run", workflow_external_id="w", version="1", poll_interval="5")
    assert f"[task '{'north.' * HAS_TASK_API}run', line " in str(caught.value)
    assert_well_said(str(caught.value))


def test_a_group_of_a_cdf_task_names_itself() -> None:
    with (
        DAG("plant"),
        pytest.raises(ValueError, match="execution_id must be a UUID") as caught,
        CdfTaskGroup("score", execution_id="x", task_external_id="score"),
    ):
        pass
    assert f"[task '{'score.' * HAS_TASK_API}waits', line " in str(caught.value)


def test_what_a_file_calls_names_its_own_line() -> None:
    """A plant's own function that makes tasks is where the mistake is to be mended, mostly."""

    def waits_for(name: str) -> Any:
        return CdfTaskSensor(task_id=name, execution_id="x", task_external_id=name)

    with DAG("plant"), pytest.raises(ValueError, match="execution_id") as caught:
        waits_for("score")
    line = waits_for.__code__.co_firstlineno + 1
    assert str(caught.value).endswith(f" [task 'score', line {line} of test_places.py]")


def test_an_error_of_another_kind_gets_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **more: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr("airflow_provider_cdf.operators.workflow._refuse_mistakes", broken)
    with DAG("plant"), pytest.raises(KeyError) as caught:
        CdfWorkflowRunOperator(task_id="run", workflow_external_id="w", version="1")
    assert caught.value.args == ("x",)
    assert [note.partition(",")[0] for note in caught.value.__notes__] == ["[task 'run'"]


def test_what_a_mapped_task_becomes_when_it_runs_names_no_line() -> None:
    with DAG("plant"):
        mapped = CdfTaskSensor.partial(
            task_id="waits", execution_id="{{ x }}", task_external_id="score"
        ).expand(target_status=["COMPLETED"])
    with pytest.raises(CdfInputError) as caught:
        mapped.unmap({"target_status": "DONE"})
    assert str(caught.value).endswith("Nothing was sent to CDF.")
