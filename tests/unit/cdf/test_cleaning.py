"""What CDF says about executions is cleaned: once for each text, in little time and memory."""

from __future__ import annotations

import json
import tracemalloc
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from cdf_support import EXECUTION, EXECUTION_ID, SECRET, TASK, settings

from airflow_provider_cdf.cdf import calls, foreign, sender
from airflow_provider_cdf.cdf.client import CdfClient
from airflow_provider_cdf.cdf.transport import Answer

READ = calls.get_execution("my project", EXECUTION_ID)


def execution_with(*reasons: str) -> Answer:
    """The answer about an execution of as many failed attempts."""
    failed = {**TASK, "status": "FAILED"}
    tasks = [{**failed, "id": str(uuid.uuid4()), "reasonForIncompletion": reason} for reason in reasons]
    return Answer(200, {}, json.dumps({**EXECUTION, "executedTasks": tasks}).encode())


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The texts that were searched for secrets."""
    texts: list[str] = []
    search = sender.without_secrets

    def watched(text: Any, secrets: Any) -> str:
        texts.append(text)
        return search(text, secrets)

    monkeypatch.setattr(sender, "without_secrets", watched)
    return texts


@pytest.mark.parametrize("attempts", [150, 600, 2200])
def test_the_reason_of_each_attempt_is_searched_once_for_all_polls(
    looked_at: list[str], attempts: int
) -> None:
    """It takes a part of a millisecond, in which an event loop does nothing else."""
    reasons = [f"attempt {number} has failed with {SECRET}" for number in range(attempts)]
    client = CdfClient(settings())
    for _ in range(3):
        read = client._read(READ, execution_with(*reasons))
        assert {task.reason_for_incompletion for task in read.executed_tasks} == {
            f"attempt {number} has failed with ***" for number in range(attempts)
        }
    assert [text for text in looked_at if text.startswith("attempt")] == reasons


def test_a_secret_or_a_control_character_in_an_external_id_is_not_told() -> None:
    tasks = [
        {**TASK, "externalId": f"score {SECRET}", "parentTaskExternalId": f"\x1b[31m{SECRET}"},
        {**TASK, "id": str(uuid.uuid4()), "externalId": "two  blanks"},
    ]
    answer = Answer(200, {}, json.dumps({**EXECUTION, "executedTasks": tasks}).encode())
    cleaned, same = CdfClient(settings())._read(READ, answer).executed_tasks
    assert cleaned.external_id == "score ***"
    assert "\x1b" not in str(cleaned.parent_task_external_id)
    assert SECRET not in repr(cleaned)
    assert same.external_id == "two  blanks"


def test_of_a_long_reason_only_the_part_that_is_looked_at_is_kept() -> None:
    client = CdfClient(settings())
    tracemalloc.start()
    try:
        for number in range(40):
            client.clean(f"{number} " + "x" * 500_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2_000_000


def test_the_parts_of_a_token_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are thousands: to make them for each text took twenty times as long as to look for them."""
    made: list[str] = []
    forms = foreign._forms

    def watched(secret: str) -> Iterator[str]:
        made.append(secret)
        return forms(secret)

    monkeypatch.setattr(foreign, "_forms", watched)
    token = str(uuid.uuid4()) * 30
    for number in range(100):
        foreign.without_secrets(f"text {number}", [token])
    assert made == [token]
