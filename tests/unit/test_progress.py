"""What a long wait tells meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdf.cdf.models import WorkflowExecutionDetails
from airflow_provider_cdf.progress import (
    MAX_NAMED,
    SILENCE,
    Progress,
    span,
    standstill,
    table,
    waiting_for_a_report,
)

ID = "059edaa4-a17a-4102-910e-2c3591500cce"
NOW = 1_700_000_000.0


def task(name: str, status: str, start: float | None = None, end: float | None = None, **more: Any) -> Any:
    """A task that started and ended so many seconds after NOW."""
    return {
        "id": more.pop("id", f"id of {name}"),
        "externalId": name,
        "status": status,
        "taskType": "function",
        "startTime": None if start is None else (NOW + start) * 1000,
        "endTime": None if end is None else (NOW + end) * 1000,
        **more,
    }


def execution(*tasks: Any) -> WorkflowExecutionDetails:
    return WorkflowExecutionDetails.model_validate(
        {"id": ID, "workflowExternalId": "pump", "status": "RUNNING", "executedTasks": list(tasks)}
    )


def tell(*looks: tuple[float, WorkflowExecutionDetails], observed: str = "RUNNING") -> list[list[str]]:
    progress = Progress()
    return [progress.lines(seen, observed, now=NOW + at) for at, seen in looks]


def test_the_first_look_says_what_runs_and_for_how_long() -> None:
    seen = execution(
        task("load", "COMPLETED", 0, 5), task("score", "IN_PROGRESS", 5), task("judge", "SCHEDULED")
    )
    assert tell((30, seen)) == [
        [
            "Waiting: RUNNING. CDF is at 'score' (IN_PROGRESS for 25 s), 'judge' (SCHEDULED); "
            f"1 ended. [execution {ID}]"
        ]
    ]
    assert tell((0, execution())) == [[f"Waiting: RUNNING. CDF is at no task; 0 ended. [execution {ID}]"]]


def test_each_change_of_a_task_is_told_with_the_time_it_took() -> None:
    looks = (
        (0, execution(task("load", "SCHEDULED"))),
        (10, execution(task("load", "IN_PROGRESS", 5))),
        (20, execution(task("load", "IN_PROGRESS", 5))),
        (
            90,
            execution(task("load", "FAILED", 5, 77, reasonForIncompletion="no\nwind."), task("b", "SKIPPED")),
        ),
        (99, execution(task("load", "FAILED", 5, 77), task("load", "IN_PROGRESS", 95, id="second"))),
    )
    assert tell(*looks)[1:] == [
        ["Task 'load' is IN_PROGRESS."],
        [],
        ["Task 'load' is FAILED after 1 min 12 s: no wind.", "Task 'b' is SKIPPED."],
        ["Task 'load' is IN_PROGRESS."],
    ]


def test_children_are_told_apart() -> None:
    parents = [
        task("approve", "IN_PROGRESS", parentTaskExternalId=name, id=name) for name in ("north", "south")
    ]
    assert tell((0, execution()), (1, execution(*parents)))[1] == [
        "Task 'approve' of 'north' is IN_PROGRESS.",
        "Task 'approve' of 'south' is IN_PROGRESS.",
    ]


def test_a_wait_in_which_nothing_happens_says_so_every_ten_minutes() -> None:
    seen = execution(task("score", "IN_PROGRESS", 0))
    told = tell(*((at, seen) for at in range(0, 3600, 10)))
    lines = [line for lines in told for line in lines]
    assert len(lines) == 6
    assert "'score' (IN_PROGRESS for 50 min 0 s)" in lines[-1]
    quiet = SILENCE - 1
    assert tell((0, seen), (quiet, seen), (quiet + 1, seen)) == [[lines[0]], [], [lines[1]]]


def test_what_is_waited_for_is_told_when_it_changes() -> None:
    progress = Progress()
    first, second = (
        progress.lines(execution(), observed, now=NOW) for observed in ("not started", "SCHEDULED")
    )
    assert first[0].startswith("Waiting: not started. ")
    assert second[0].startswith("Waiting: SCHEDULED. ")


def test_one_look_does_not_tell_of_200_tasks() -> None:
    tasks = [task(f"t{i}", "IN_PROGRESS", 0) for i in range(200)]
    _, second = tell((0, execution()), (1, execution(*tasks)))
    assert len(second) == MAX_NAMED + 1
    assert second[-1] == "180 more tasks have changed."
    (summary,) = tell((1, execution(*tasks)))[0]
    assert summary.count("IN_PROGRESS") == MAX_NAMED
    assert "180 more;" in summary
    few = execution(*tasks[:MAX_NAMED])
    told = tell((0, execution()), (1, few))[1] + tell((1, few))[0]
    assert len(told) == MAX_NAMED + 1
    assert "more" not in "".join(told)


def test_text_from_outside_stays_on_its_line() -> None:
    odd = execution(task("a\nb", "odd\x1b[31m", 0, 1, reasonForIncompletion="c\u202ed\n" + "x" * 9999))
    for line in (*tell((0, execution()), (1, odd))[1], *table(odd).splitlines()):
        assert line.isprintable()
        assert len(line) < 700


def test_the_table_of_the_tasks() -> None:
    seen = execution(
        task("load", "FAILED", 0, 2, id="first"),
        task("load", "COMPLETED", 10, 22),
        task("score", "FAILED", 22, 100, reasonForIncompletion="out of memory"),
        task("left out", "SKIPPED"),
    )
    assert table(seen).splitlines() == [
        "task        status     took        reason",
        "'load'      COMPLETED  12 s",
        "'score'     FAILED     1 min 18 s  out of memory",
        "'left out'  SKIPPED",
    ]
    assert table(execution()) == "task  status  took  reason"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0.0 s"),
        (0.34, "0.3 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3599.7, "1 h 0 min"),
        (4830, "1 h 20 min"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_what_waits_for_a_report_is_asynchronous_and_in_progress() -> None:
    asynchronous = {"input": {"isAsyncComplete": True}}
    seen = execution(
        task("approve", "IN_PROGRESS", **asynchronous),
        task("later", "SCHEDULED", **asynchronous),
        task("done", "COMPLETED", **asynchronous),
        task("load", "IN_PROGRESS", input={"isAsyncComplete": False}),
        task("who knows", "IN_PROGRESS"),
    )
    waiting = waiting_for_a_report(seen)
    assert [one.external_id for one in waiting] == ["approve"]
    told = standstill(seen)
    assert told is not None
    assert told.startswith("CDF waits for a report on 'approve'. This Airflow task waits for the end of the ")
    assert "wait_for_completion=False" in told
    assert told.endswith(f"[execution {ID}]")


def test_a_standstill_names_twenty_tasks_at_most() -> None:
    waits = {"input": {"isAsyncComplete": True}}
    tasks = (task(f"task {number}", "IN_PROGRESS", **waits) for number in range(200))
    assert "'task 19' and 180 more." in str(standstill(execution(*tasks)))


def test_where_nothing_waits_for_a_report_there_is_no_standstill() -> None:
    assert standstill(execution(task("load", "IN_PROGRESS"))) is None


def test_a_time_that_is_none_is_no_error() -> None:
    seen = execution(task("load", "IN_PROGRESS", 0) | {"startTime": 10**400})
    assert tell((30, seen))[0][0].startswith("Waiting: RUNNING. CDF is at 'load' (IN_PROGRESS);")
