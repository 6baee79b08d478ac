"""What is read of an answer: all of it, or what decides a wait. By either way it means the same."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from airflow_provider_cdf.cdf import reading
from airflow_provider_cdf.cdf.attempts import is_async_complete
from airflow_provider_cdf.cdf.models import (
    MOST_ITEMS,
    ExecutionPage,
    SessionStates,
    TokenInspection,
    WorkflowExecutionDetails,
)
from airflow_provider_cdf.progress import Progress, table, waiting_for_a_report
from airflow_provider_cdf.waiting import contradiction, describe_bad_end, wait_for_end, wait_for_task

EXECUTION = "11111111-2222-4333-8444-555555555555"
REFUSALS = (ValidationError, reading.UnreadableError)
#: What a server may say instead of anything.
ODD = [
    None,
    5,
    1.5,
    True,
    "",
    "text",
    [],
    {},
    [1],
    {"a": 1},
    [None],
    [{}],
    10**30,
    -1,
    "COMPLETED",
    "dynamic",
]


def task(external_id: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"id-of-{external_id}",
        "externalId": external_id,
        "status": "IN_PROGRESS",
        "taskType": "function",
        "input": {"function": {"data": [1, 2]}, "isAsyncComplete": True},
        "output": {"large": ["x"] * 5},
        "startTime": 1_700_000_000_000,
        **more,
    }


WHOLE: dict[str, Any] = {
    "id": EXECUTION,
    "workflowExternalId": "pumps",
    "version": "1",
    "status": "RUNNING",
    "createdTime": 1_700_000_000_000,
    "startTime": 1_700_000_000_000,
    "metadata": {"a": "b"},
    "input": {"pump": "P-101"},
    "workflowDefinition": {
        "hash": "h",
        "tasks": [
            {"externalId": "approve", "type": "function", "parameters": {"isAsyncComplete": True}},
            {"externalId": "fan", "type": "dynamic", "parameters": {"dynamic": {"tasks": "${x}"}}},
            {
                "externalId": "north",
                "type": "subworkflow",
                "parameters": {
                    "subworkflow": {
                        "tasks": [{"externalId": "child", "parameters": {"isAsyncComplete": True}}]
                    }
                },
            },
            {
                "externalId": "south",
                "type": "subworkflow",
                "parameters": {"subworkflow": {"workflowExternalId": "w", "version": "1"}},
            },
        ],
    },
    "executedTasks": [
        task("approve", input={"asyncComplete": True}),
        task(
            "fan", taskType="dynamic", output={"dynamicTasks": [{"externalId": "child", "type": "function"}]}
        ),
        task("child", parentTaskExternalId="north", input={}),
        task("grandchild", parentTaskExternalId="south", status="FAILED", reasonForIncompletion="no pump"),
        task("load", status="COMPLETED", endTime=1_700_000_001_000),
    ],
}


def meaning(read: Callable[[bytes], WorkflowExecutionDetails], content: bytes) -> Any:
    """All that is decided by an execution, and all that is told of it."""
    try:
        execution = read(content)
    except REFUSALS:
        return "refused"
    names = [("approve", None), ("child", None), ("child", "north"), ("child", "fan"), ("missing", None)]
    return repr(
        [
            wait_for_end(execution),
            describe_bad_end(execution),
            contradiction(execution),
            [
                _plain(wait_for_task(execution, name, ["COMPLETED"], parent_task_external_id=of))
                for name, of in names
            ],
            [is_async_complete(execution, one) for one in execution.executed_tasks],
            [one.id for one in waiting_for_a_report(execution)],
            Progress().lines(execution, "x", now=1e9),
            table(execution),
        ]
    )


def _plain(verdict: Any) -> Any:
    found = getattr(verdict, "task", None)
    return (type(verdict).__name__, found.id if found else None, getattr(verdict, "reason", None))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in an answer where something else may stand."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    execution = copy.deepcopy(WHOLE)
    inside = execution
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return execution


def a_poll(content: bytes) -> WorkflowExecutionDetails:
    return reading.ExecutionPolls().read(content)


def a_later_poll(content: bytes) -> WorkflowExecutionDetails:
    polls = reading.ExecutionPolls()
    polls.read(json.dumps(WHOLE).encode())
    return polls.read(content)


def a_page(content: bytes) -> ExecutionPage:
    return reading.ListPoll().read(content)


def full(content: bytes) -> WorkflowExecutionDetails:
    return WorkflowExecutionDetails.model_validate_json(content)


def whole(content: bytes) -> WorkflowExecutionDetails:
    return reading.whole(content, WorkflowExecutionDetails)


@pytest.mark.parametrize(
    "path", [path for path in places(WHOLE) if path], ids=lambda path: ".".join(map(str, path))
)
@pytest.mark.parametrize(
    "read", [a_poll, a_later_poll, whole], ids=["for a poll", "for a later poll", "whole"]
)
def test_whatever_stands_anywhere_means_the_same_as_to_the_models_alone(
    read: Callable[[bytes], WorkflowExecutionDetails], path: tuple[Any, ...]
) -> None:
    for odd in ODD:
        content = json.dumps(changed(path, odd)).encode()
        assert meaning(read, content) == meaning(full, content), odd


@pytest.mark.parametrize("read", [a_poll, whole], ids=["for a poll", "whole"])
def test_many_changes_at_once_mean_the_same_too(read: Callable[[bytes], WorkflowExecutionDetails]) -> None:
    dice = random.Random(7)
    for _ in range(500):
        execution = copy.deepcopy(WHOLE)
        for _ in range(3):
            inside: Any = execution
            while isinstance(inside, dict | list) and inside:
                key = dice.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
                if dice.random() < 0.3 or not isinstance(inside[key], dict | list):
                    inside[key] = copy.deepcopy(dice.choice(ODD))
                    break
                inside = inside[key]
        content = json.dumps(execution).encode()
        assert meaning(read, content) == meaning(full, content), execution


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'"\xff"',
        b"[" * 100_000,
        b'{"id": NaN}',
        b'{"id": 1e999}',
        b'{"id": "\\ud800"}',
    ],
    ids=lambda content: repr(content[:12]),
)
@pytest.mark.parametrize("read", [a_poll, whole], ids=["for a poll", "whole"])
def test_what_is_no_execution_is_refused(
    read: Callable[[bytes], WorkflowExecutionDetails], content: bytes
) -> None:
    with pytest.raises(REFUSALS):
        read(content)


BY_MSGSPEC = pytest.mark.skipif(not reading._HAS_MSGSPEC, reason="Airflow 3 brings msgspec")


@BY_MSGSPEC
def test_an_execution_that_has_not_changed_keeps_its_model() -> None:
    polls = reading.ExecutionPolls()
    first = polls.read(json.dumps(WHOLE).encode())
    assert polls.read(json.dumps(WHOLE, indent=1).encode()) is first
    assert polls.read(json.dumps({**WHOLE, "input": {"not": "looked at"}}).encode()) is first
    ended = polls.read(json.dumps({**WHOLE, "status": "COMPLETED"}).encode())
    assert ended.status == "COMPLETED"
    assert polls.read(json.dumps(WHOLE).encode()).status == "RUNNING"


@BY_MSGSPEC
def test_an_answer_that_cannot_be_read_does_not_count_as_one_that_has_not_changed() -> None:
    polls = reading.ExecutionPolls()
    polls.read(json.dumps(WHOLE).encode())
    with pytest.raises(ValidationError):
        polls.read(b'{"id": 5}')
    assert polls.read(odd(b'"\xff"')).status == "COMPLETED"


@BY_MSGSPEC
def test_a_listed_execution_that_has_not_changed_keeps_its_model() -> None:
    def listed(name: str, **more: Any) -> dict[str, Any]:
        return {"id": name, "workflowExternalId": "pumps", "status": "RUNNING", **more}

    def said(*items: dict[str, Any]) -> bytes:
        return json.dumps({"items": items}).encode()

    before = reading.ListPoll()
    a, b = before.read(said(listed("a"), listed("b"))).items
    now = reading.ListPoll(before)
    assert now.read(said(listed("c"), listed("a"))).items[1] is a
    (changed,) = now.read(said(listed("b", endTime=1))).items
    assert (changed.id, changed.end_time) == ("b", 1)
    # What was not in the list has been forgotten.
    (again,) = reading.ListPoll(now).read(said(listed("b"))).items
    assert again is not b
    assert again == b


@BY_MSGSPEC
def test_a_poll_keeps_no_inputs_and_outputs() -> None:
    read = a_poll(json.dumps(WHOLE).encode())
    assert (read.input, read.metadata) == ({}, {})
    assert {repr(one.output) for one in read.executed_tasks} <= {
        "{}",
        "{'dynamicTasks': [{'externalId': 'child'}]}",
    }
    assert all("function" not in one.input for one in read.executed_tasks)


def test_all_is_read_where_all_is_wanted() -> None:
    read = whole(json.dumps({**WHOLE, "new": {"field": [1]}}).encode())
    assert read.model_dump(by_alias=True)["new"] == {"field": [1]}
    assert read.executed_tasks[0].output == {"large": ["x"] * 5}
    assert read.model_dump(by_alias=True)["workflowDefinition"] == WHOLE["workflowDefinition"]


def test_a_page_keeps_what_tells_whether_executions_go_on() -> None:
    items = [{**WHOLE, "id": "a"}, {"id": 5}, "odd", {**WHOLE, "id": "b", "endTime": 1}]
    content = json.dumps({"items": items, "nextCursor": "c"}).encode()
    page = a_page(content)
    assert [one.id for one in page.items] == ["a", "b"]
    assert page.next_cursor == "c"
    proper = a_page(json.dumps({"items": [items[0], items[3]]}).encode())
    assert [(one.id, one.status, one.end_time) for one in proper.items] == [
        ("a", "RUNNING", None),
        ("b", "RUNNING", 1),
    ]
    if reading._HAS_MSGSPEC:
        assert [one.metadata for one in proper.items] == [{}, {}]


def test_without_msgspec_the_models_read_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow below 3.0 does not bring it."""
    monkeypatch.setattr(reading, "_HAS_MSGSPEC", False)
    content = json.dumps(WHOLE).encode()
    assert meaning(a_poll, content) == meaning(full, content)
    assert isinstance(a_page(json.dumps({"items": [WHOLE]}).encode()), ExecutionPage)


def without_msgspec(content: bytes) -> WorkflowExecutionDetails:
    return WorkflowExecutionDetails.model_validate_json(content)


READERS = pytest.mark.parametrize(
    "read", [a_poll, whole, without_msgspec], ids=["for a poll", "whole", "by the models alone"]
)


def test_of_a_list_that_is_wrong_only_the_first_item_is_told_of() -> None:
    """An error for each of a million items takes gigabytes."""
    wrong = [{}] * (MOST_ITEMS - 1)
    executions = json.dumps({**WHOLE, "executedTasks": wrong}).encode()
    projects = json.dumps({"projects": wrong}).encode()
    for read in (a_poll, whole, without_msgspec):
        with pytest.raises(ValidationError) as told:
            read(executions)
        assert told.value.error_count() < 10
    with pytest.raises(ValidationError) as told:
        reading.whole(projects, TokenInspection)
    assert told.value.error_count() == 1


@READERS
def test_an_execution_with_more_tasks_than_any_has_is_unreadable(
    read: Callable[[bytes], WorkflowExecutionDetails],
) -> None:
    tasks = [task("load")] * MOST_ITEMS
    assert len(read(json.dumps({**WHOLE, "executedTasks": tasks}).encode()).executed_tasks) == MOST_ITEMS
    with pytest.raises(ValidationError, match=f"at most {MOST_ITEMS} items"):
        read(json.dumps({**WHOLE, "executedTasks": [*tasks, task("load")]}).encode())


@READERS
@pytest.mark.parametrize("defined", [{}, {"externalId": "load", "type": "function"}], ids=["wrong", "right"])
def test_a_definition_with_more_tasks_than_any_has_is_not_read(
    read: Callable[[bytes], WorkflowExecutionDetails], defined: dict[str, str]
) -> None:
    definition = {"tasks": [defined] * (MOST_ITEMS + 1)}
    execution = read(json.dumps({**WHOLE, "workflowDefinition": definition}).encode())
    assert execution.workflow_definition is None


@pytest.mark.parametrize("item", [{}, WHOLE], ids=["wrong", "right"])
def test_a_page_with_more_items_than_any_has_is_unreadable(item: dict[str, Any]) -> None:
    slim = {name: value for name, value in item.items() if not isinstance(value, dict | list)}
    content = json.dumps({"items": [slim] * (MOST_ITEMS + 1)}).encode()
    for read in (a_page, lambda content: reading.whole(content, ExecutionPage)):
        with pytest.raises(ValidationError, match=f"at most {MOST_ITEMS} items"):
            read(content)
    with pytest.raises(ValidationError, match=f"at most {MOST_ITEMS} items"):
        reading.whole(content, SessionStates)


#: 32 MB of the smallest items, in the answers that a triggerer reads at every poll.
CROWDED = {
    "executedTasks": (reading.ExecutionPolls, {**WHOLE, "executedTasks": "HERE"}),
    "definition": (reading.ExecutionPolls, {**WHOLE, "workflowDefinition": {"tasks": "HERE"}}),
    "dynamicTasks": (
        reading.ExecutionPolls,
        {**WHOLE, "executedTasks": [task("fan", taskType="dynamic", output={"dynamicTasks": "HERE"})]},
    ),
    "items": (reading.ListPoll, {"items": "HERE"}),
}


@BY_MSGSPEC
@pytest.mark.slow
@pytest.mark.parametrize("item", ["{}", "[]", "1"])
@pytest.mark.parametrize("where", CROWDED)
def test_millions_of_items_are_not_made_for_a_poll(where: str, item: str) -> None:
    """3 KB of gzip can hold them. A triggerer that has no memory left takes all its triggers with it."""
    reader, answer = CROWDED[where]
    before, after = json.dumps(answer).split('"HERE"')
    program = (
        "import resource, sys\n"
        "from airflow_provider_cdf.cdf import reading\n"
        "before, item, after = sys.argv[1:]\n"
        "many = (item + ',') * (2 ** 25 // (len(item) + 1))\n"
        "content = f'{before}[{many}{item}]{after}'.encode()\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "at_first = used()\n"
        "try:\n"
        f"    reading.{reader.__name__}().read(content)\n"
        "except reading.UnreadableError as error:\n"
        "    print(used() - at_first, error)\n"
    )
    command = [sys.executable, "-c", program, before, item, after]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    megabytes, _, words = done.stdout.partition(" ")
    assert "it has too many values" in words
    assert int(megabytes) < 200


def odd(what: bytes, status: str = "COMPLETED") -> bytes:
    """An execution with something in an output, a parameter and its input."""
    marked = task("load", status=status, output={"is": "ODD"}, endTime=1_700_000_001_000)
    execution = {**WHOLE, "status": status, "input": {"is": "ODD"}, "executedTasks": [marked]}
    return json.dumps(execution).encode().replace(b'"ODD"', what)


@READERS
@pytest.mark.parametrize(
    ("what", "read_as"),
    [
        (b'"\\ud83d"', "?"),
        (b'"a \\ude00 b"', "a ? b"),
        (b'"\\ud83d\\ude00 \\ud83d"', "\N{GRINNING FACE} ?"),
        (b'"\\\\ud83d \xff"', "\\ud83d \N{REPLACEMENT CHARACTER}"),
        (b'"\xff"', "\N{REPLACEMENT CHARACTER}"),
        (b'"one\nline"', "one\nline"),
        (b"1" * 5000, "1" * 5000),
        (b"-" + b"1" * 5000, "-" + "1" * 5000),
        (b"[" * 300 + b"]" * 300, None),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else "",
)
def test_one_odd_character_makes_no_execution_unreadable(
    read: Callable[[bytes], WorkflowExecutionDetails], what: bytes, read_as: str | None
) -> None:
    execution = (tolerant if read is without_msgspec else read)(odd(what))
    assert execution.has_ended
    assert execution.executed_tasks[0].end_time == 1_700_000_001_000
    if read is not a_poll and read_as is not None:
        assert execution.input == execution.executed_tasks[0].output == {"is": read_as}
        json.dumps(execution.model_dump(mode="json"), ensure_ascii=False).encode()


@READERS
def test_a_byte_order_mark_is_passed_over(read: Callable[[bytes], WorkflowExecutionDetails]) -> None:
    content = b"\xef\xbb\xbf" + json.dumps(WHOLE).encode()
    assert (tolerant if read is without_msgspec else read)(content).id == EXECUTION


def tolerant(content: bytes) -> WorkflowExecutionDetails:
    """Read as without msgspec."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_HAS_MSGSPEC", False)
        return whole(content)


@READERS
def test_an_odd_character_does_not_hide_what_is_wrong(
    read: Callable[[bytes], WorkflowExecutionDetails],
) -> None:
    read = tolerant if read is without_msgspec else read
    for content in (odd(b'"\xff"')[:-5], odd(b'"\xff"') + b"{", odd(b'"\xff"').replace(b'"id"', b'"di"')):
        with pytest.raises(REFUSALS):
            read(content)
