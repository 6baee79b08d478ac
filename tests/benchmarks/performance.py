"""
Everything that docs/performance.md says, measured: one command, one table.

    uv run --with apache-airflow-providers-http --with apache-airflow-providers-dbt-cloud \\
        --with apache-airflow-providers-databricks --with apache-airflow-providers-airbyte \\
        --with airflow-provider-fivetran-async python tests/benchmarks/performance.py --write docs

Two hours on a quiet machine; ``--short`` takes five minutes and says less. What is compared with what is not
installed is left out. ``--only`` runs one part: requests, calls, imports, growth or slots.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import import_cost
import one_call
import psutil
import slots
from picture import picture
from triggerer import NOTHING, OURS, RIVALS, Case, Result, can_be_measured, measure

AT_ONCE = (1, 10, 100, 1000)
ROUNDS = 5


@dataclass
class Options:
    rounds: int
    at_once: tuple[int, ...]
    interval: float
    intervals: int
    largest: int

    @classmethod
    def short(cls) -> Options:
        return cls(rounds=1, at_once=(1, 10, 100), interval=2.0, intervals=3, largest=100)

    @classmethod
    def full(cls) -> Options:
        return cls(rounds=ROUNDS, at_once=AT_ONCE, interval=5.0, intervals=6, largest=5000)


def median(cases: list[Case], rounds: int) -> list[Result]:
    """Measure some cases in turn, so that a machine that gets slower strikes them all, and take medians."""
    found: list[list[Result]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, results in zip(cases, found, strict=True):
            results.append(measure(case))
    return [
        Result(
            **{name: statistics.median(asdict(one)[name] for one in results) for name in asdict(results[0])}
        )
        for results in found
    ]


HEAD = (
    f"{'':<52}{'requests':>9}{'CPU':>7}{'peak':>7}{'each':>7}{'lag p50':>9}{'p99':>8}{'max':>8}{'delay':>8}\n"
    f"{'':<52}{'/interval':>9}{'%':>7}{'MB':>7}{'KB':>7}{'ms':>9}{'ms':>8}{'ms':>8}{'ms':>8}"
)


def row(name: str, one: Result) -> str:
    delay = f"{one.delay:>8.0f}" if one.delay else ""
    each = f"{one.each:>7.1f}" if one.each else f"{'':>7}"
    return (
        f"{name:<52}{one.requests_per_interval:>9.1f}{one.cpu_percent:>7.1f}{one.peak:>7.0f}{each}"
        f"{one.lag_p50:>9.2f}{one.lag_p99:>8.1f}{one.lag_max:>8.1f}{delay}"
    ).rstrip()


def requests(options: Options, folder: Path | None) -> Iterator[str]:
    """Requests, CPU, memory, lag and delay, by who waits and how many."""
    names = {NOTHING: "triggers that do nothing", **OURS, **RIVALS}
    hows = [how for how in names if can_be_measured(how)]
    common = {"interval": options.interval, "intervals": options.intervals}
    cases = [
        Case(how, number, executions=max(number if how != "task" else number // 20, 1), **common)  # type: ignore
        for number in options.at_once
        for how in hows
    ]
    results = dict(
        zip(((case.how, case.number) for case in cases), median(cases, options.rounds), strict=True)
    )
    yield HEAD
    for number in options.at_once:
        yield f"{number} waiting, every {options.interval:g} s"
        for how in hows:
            yield row(f"  {names[how]}", results[how, number])
    most = options.at_once[-1]
    few = max(most // 20, 1)
    begun = Case("task", most, executions=few, begun=min(few, 8), **common)  # type: ignore[arg-type]
    large = Case("task", 20, executions=1, tasks=200, output=100_000, **common)  # type: ignore[arg-type]
    delayed, slow = median([begun, large], options.rounds)
    yield f"delay from IN_PROGRESS to the event; half an interval is {options.interval * 500:.0f} ms"
    yield row(f"  CdfTaskTrigger, {most} waiting for {begun.executions} executions", delayed)
    yield "one execution of 20 MB"
    yield row("  CdfTaskTrigger, 20 waiting for it", slow)
    if folder is not None:
        shown = {names[how]: [results[how, number] for number in options.at_once] for how in hows}
        (folder / "performance.svg").write_text(picture(options.at_once, shown))


def growth(options: Options) -> Iterator[str]:
    """How it grows with triggers, connections and executions."""
    common = {"interval": options.interval, "intervals": options.intervals}
    numbers = [one for one in (1, 10, 100, 500, 1000, 2000, 5000) if one <= options.largest]
    shapes: list[tuple[str, Case]] = [
        (f"  {one} workflow triggers", Case("workflow", one, executions=one, **common))  # type: ignore[arg-type]
        for one in numbers
    ]
    shapes += [
        (
            f"  {min(1000, options.largest)} workflow triggers, {one} connections",
            Case("workflow", min(1000, options.largest), connections=one, **common),  # type: ignore[arg-type]
        )
        for one in (1, 5, 20)
    ]
    shapes += [
        (
            f"  {min(1000, options.largest)} task triggers, {one} executions",
            Case("task", min(1000, options.largest), executions=one, **common),  # type: ignore[arg-type]
        )
        for one in (1, 20, 100, 500)
        if one <= options.largest
    ]
    results = median([case for _, case in shapes], options.rounds)
    yield "how it grows"
    for (name, _), result in zip(shapes, results, strict=True):
        yield row(name, result)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="five minutes instead of two hours")
    parser.add_argument("--only", choices=["requests", "calls", "imports", "growth", "slots"])
    parser.add_argument("--write", type=Path, help="the folder of performance.md, whose table it replaces")
    given = parser.parse_args()
    options = Options.short() if given.short else Options.full()
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "requests": lambda: requests(options, given.write),
        "growth": lambda: growth(options),
        "calls": lambda: one_call.text(one_call.table(options.rounds)),
        "imports": lambda: import_cost.text(options.rounds * 2 + 1),
        "slots": lambda: slots.text(options.rounds == 1),
    }
    lines = [
        f"{datetime.now(UTC):%d %B %Y}, {psutil.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 1e9:.0f} GB, Python {platform.python_version()}, "
        f"median of {options.rounds}; load when it began: "
        f"{psutil.getloadavg()[0]:.1f}"
    ]
    print(lines[0], flush=True)
    for name, part in parts.items():
        if given.only not in (None, name):
            continue
        lines.append("")
        print(flush=True)
        for line in part():
            lines.append(line)
            print(line, flush=True)
    if given.write is not None:
        page = given.write / "performance.md"
        before, _, rest = page.read_text().partition("<!-- table -->")
        _, _, after = rest.partition("<!-- end of table -->")
        table = "\n".join(lines)
        page.write_text(f"{before}<!-- table -->\n```text\n{table}\n```\n<!-- end of table -->{after}")


if __name__ == "__main__":
    sys.exit(main())
