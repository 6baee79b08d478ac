"""How messages read: the rule itself, what puts messages together, and the messages that are only logged."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from wording import PACKAGE, flaws

from airflow_provider_cdf.cdf.errors import CdfError, CdfInputError
from airflow_provider_cdf.cdf.messages import ids, told

EXECUTION = "059edaa4-a17a-4102-910e-2c3591500cce"


@pytest.mark.parametrize(
    "message",
    [
        f"Execution {EXECUTION} of workflow 'pump' ended FAILED.",
        f"The workflow ended FAILED. Execution {EXECUTION}.",
        f"The workflow {'x' * 80} ended FAILED: no wind.",
        "The workflow ended FAILED. It was no wind. It was no wind.",
        "Somebody has to look.",
        "The workflow ended FAILED:\nno wind.",
    ],
)
def test_what_is_not_plain_is_noticed(message: str) -> None:
    assert flaws(message)


def test_what_is_plain_is_not() -> None:
    assert not flaws(f"The workflow ended FAILED: no wind. [workflow 'pump', execution {EXECUTION}]")


def test_a_message_says_each_sentence_once_and_names_each_id_once_at_its_end() -> None:
    error = CdfInputError(f"The output is not JSON. [task 'a', execution {EXECUTION}]")
    message = told("CDF is told.", error, "Nothing was sent to CDF.", "Try again.", ids(execution=EXECUTION))
    assert message == (
        f"CDF is told. The output is not JSON. Nothing was sent to CDF. Try again. "
        f"[task 'a', execution {EXECUTION}]"
    )


def test_what_a_caller_adds_goes_before_the_ids() -> None:
    error = CdfError("No [x]. [execution 1]").adding("It goes on.").adding("[task 2]").adding("")
    assert str(error) == "No [x]. It goes on. [execution 1, task 2]"


def logged() -> Iterator[tuple[str, str]]:
    """Return where something is logged, and what: its literal, or the begin of it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in ("emulator", "demo"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            is_log = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("info", "warning", "error")
                and ast.unparse(node.func.value).endswith("log")
            )
            if is_log and isinstance(node, ast.Call) and isinstance(node.args[0], ast.Constant):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", str(node.args[0].value)


def test_what_is_logged_reads_like_errors() -> None:
    found = dict(logged())
    assert len(found) > 30
    # An execution's id stands where "execution %s" does; a name in quotes where %r does.
    filled = {where: re.sub("execution %s", f"execution {EXECUTION}", text) for where, text in found.items()}
    filled = {where: re.sub("Execution %s", f"Execution {EXECUTION}", text) for where, text in filled.items()}
    wrong = {where: flaws(text.partition("\n")[0]) for where, text in filled.items()}
    assert not {where: flaws for where, flaws in wrong.items() if flaws}
