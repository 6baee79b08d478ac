"""How this package's messages read: Airflow's log view does not wrap, so what is wrong comes first."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from pathlib import Path

import airflow_provider_cdf

#: What is wrong is said in fewer characters than this.
FIRST = 80
UUID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
#: Ids stand in brackets at the very end.
IDS = re.compile(r" \[[^\[\]]+\]$")
NO_PLAIN_WORDS = re.compile(r"\b(somebody|whoever|whosoever|anybody|nobody)\b", re.IGNORECASE)
PACKAGE = Path(airflow_provider_cdf.__file__).parent


def head(message: str) -> str:
    """Return the begin of a message that says what is wrong: up to the reason, a full stop or the ids."""
    return re.split(r"[.;?] |: | \[(?=task|execution|workflow|line)", message, maxsplit=1)[0]


def flaws(message: str) -> list[str]:
    """Return what is wrong with how a message is worded."""
    first, body = head(message), IDS.sub("", message)
    sentences = Counter(sentence.strip() for sentence in re.split(r"(?<=[.?!]) ", body))
    found = []
    if len(first) >= FIRST:
        found.append(f"what is wrong takes {len(first)} characters")
    if UUID.search(first):
        found.append("an id comes first")
    # "Task <uuid>" and "execution with id <uuid>" are CDF's own words.
    if re.search(r"\b([Ee]xecution|task|session) " + UUID.pattern, body):
        found.append("an id is not in the brackets at the end")
    if twice := [sentence for sentence, times in sentences.items() if times > 1 and len(sentence) > 8]:
        found.append(f"said twice: {twice}")
    if "\n" in message:
        found.append("it is more than one line")
    if words := NO_PLAIN_WORDS.findall(body):
        found.append(f"riddles: {words}")
    return found


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by this package, the emulator and the demo apart."""
    frames = traceback.extract_tb(error.__traceback__)
    path = Path(frames[-1].filename) if frames else Path()
    return path.is_relative_to(PACKAGE) and path.relative_to(PACKAGE).parts[0] not in ("emulator", "demo")


def assert_well_said(message: str) -> None:
    assert not flaws(message), f"{'; '.join(flaws(message))}:\n{message}"
