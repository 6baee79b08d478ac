"""
Everything that docs/performance.md says, measured: one command, one table.

    uv run --with apache-airflow-providers-http --with apache-airflow-providers-dbt-cloud \\
        --with apache-airflow-providers-databricks --with apache-airflow-providers-airbyte \\
        --with airflow-provider-fivetran-async python tests/benchmarks/performance.py --write docs

Forty minutes on a quiet machine; ``--short`` takes five minutes and says less. What is compared with what is
not installed is left out. ``--only`` runs one part: requests, calls, imports, growth or slots.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
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
    largest: int

    @classmethod
    def short(cls) -> Options:
        return cls(rounds=1, at_once=(1, 10, 100), interval=2.0, largest=100)

    @classmethod
    def full(cls) -> Options:
        return cls(rounds=ROUNDS, at_once=AT_ONCE, interval=5.0, largest=5000)


def medians(batches: list[list[Case]], rounds: int) -> list[Result]:
    """
    Measure some cases in turn, so that a machine that gets slower strikes them all, and take medians.

    :param batches: what is measured at once.
    :param rounds: at least so many windows of each.
    """
    found: list[list[Result]] = [[] for batch in batches for _ in batch]
    for lap in range(math.ceil(rounds / batches[0][0].windows)):
        at = 0
        for batch in batches:
            try:
                measured = measure(*batch)
            except Exception as error:  # of half an hour, the rest is worth having
                print(f"lap {lap}: {batch[0].how}, {batch[0].number}: {error!r}", file=sys.stderr, flush=True)
                measured = [[] for _ in batch]
            for results, windows in zip(found[at : at + len(batch)], measured, strict=True):
                results += windows
            at += len(batch)
        print(f"lap {lap} at {datetime.now(UTC):%H:%M:%S}", file=sys.stderr, flush=True)
    return [
        Result(
            **{name: statistics.median(asdict(one)[name] for one in results) for name in asdict(results[0])}
        )
        for results in found
    ]


HEAD = (
    f"{'':<50}{'requests':>9}{'CPU':>7}{'peak':>6}{'each':>6}{'lag p50':>9}{'p99':>7}{'max':>7}"
    f"{'turn':>7}{'garbage':>9}{'delay':>7}\n"
    f"{'':<50}{'/interval':>9}{'%':>7}{'MB':>6}{'KB':>6}{'ms':>9}{'ms':>7}{'ms':>7}{'ms':>7}{'ms':>9}{'ms':>7}"
)


def row(name: str, one: Result) -> str:
    delay = f"{one.delay:>7.0f}" if one.delay else ""
    each = f"{one.each:>6.1f}" if one.each else f"{'':>6}"
    return (
        f"{name:<50}{one.requests_per_interval:>9.1f}{one.cpu_percent:>7.1f}{one.peak:>6.0f}{each}"
        f"{one.lag_p50:>9.2f}{one.lag_p99:>7.1f}{one.lag_max:>7.1f}{one.turn:>7.1f}{one.garbage:>9.1f}{delay}"
    ).rstrip()


def requests(options: Options, folder: Path | None) -> Iterator[str]:
    """Requests, CPU, memory, lag and delay, by who waits and how many."""
    names = {NOTHING: "triggers that do nothing", **OURS, **RIVALS}
    hows = [how for how in names if can_be_measured(how)]

    def case(how: str, number: int) -> Case:
        is_task = how == "task"
        executions = max(number // 20 if is_task else number, 1)
        begun = executions if is_task and number == options.at_once[-1] else 0
        return Case(how, number, options.interval, executions=executions, begun=begun)

    # What takes a few per cent of a core is measured at once.
    batches = [[case(how, number) for number in options.at_once if number <= 100 for how in hows]]
    batches += [[case(how, number)] for number in options.at_once if number > 100 for how in hows]
    batches += [[Case("task", 20, options.interval, executions=1, tasks=200, output=100_000)]]
    *found, large = medians(batches, options.rounds)
    cases = [one for batch in batches[:-1] for one in batch]
    results = {(one.how, one.number): result for one, result in zip(cases, found, strict=True)}
    yield HEAD
    for number in options.at_once:
        yield f"{number} waiting, every {options.interval:g} s"
        for how in hows:
            yield row(f"  {names[how]}", results[how, number])
    yield "one execution of 25 MB: 200 tasks, outputs of small objects"
    yield row("  CdfTaskTrigger, 20 waiting for it", large)
    yield from _goals(options, results, large)
    if folder is not None:
        shown = {names[how]: [results[how, number] for number in options.at_once] for how in hows}
        (folder / "performance.svg").write_text(picture(options.at_once, shown))


def _goals(options: Options, results: Mapping[tuple[str, int], Result], large: Result) -> Iterator[str]:
    """What is promised of the largest number, and whether it holds."""
    most = options.at_once[-1]
    nothing, rival = results[NOTHING, most], results["httpx", most]
    workflow, task = results["workflow", most], results["task", most]
    yield f"goals, at {most} waiting; ! misses its goal{'':<28}{'goal':>8}{'workflow':>11}{'task':>11}"

    def line(name: str, goal: float, *values: float | None) -> str:
        said = (
            f"{'':>11}" if value is None else f"{value:>10.2f}{'!' if value > goal else ' '}"
            for value in values
        )
        return f"  {name:<64}{goal:>8.2f}{''.join(said)}".rstrip()

    half = options.interval * 500
    executions = max(most // 20, 1)

    def beside(one: Result) -> float:
        """The looking itself takes a per cent."""
        return (one.cpu_percent - nothing.cpu_percent) / (rival.cpu_percent - nothing.cpu_percent)

    yield line(
        "requests for each interval; of tasks, and each execution",
        1.2,
        workflow.requests_per_interval,
        task.requests_per_interval / executions,
    )
    yield line(
        "CPU of that of a poll for each trigger, both without nothing's", 0.05, beside(workflow), beside(task)
    )
    yield line("CPU, % of a core", 3, workflow.cpu_percent, task.cpu_percent)
    yield line(
        "KB for each trigger, Airflow's own aside", 20, workflow.each - nothing.each, task.each - nothing.each
    )
    yield line("lag, p99, ms", 10, workflow.lag_p99, task.lag_p99)
    yield line("lag, max, ms", 50, workflow.lag_max, task.lag_max)
    yield line(f"delay, mean, ms; half an interval is {half:.0f}", half + 100, None, task.delay)
    yield line("lag, max, ms, with an execution of 25 MB", 100, None, large.lag_max)


def growth(options: Options) -> Iterator[str]:
    """How it grows with triggers, connections and executions, beyond what is measured above."""
    many = min(1000, options.largest)

    def case(how: str, number: int, **more: int) -> list[Case]:
        return [Case(how, number, options.interval, **more)]  # type: ignore[arg-type]  # fields of Case, by name

    shapes = {
        f"  {options.largest} workflow triggers": case("workflow", options.largest, executions=many),
        f"  {many} workflow triggers, 20 connections": case(
            "workflow", many, executions=many, connections=20
        ),
        f"  {many} task triggers, 1 execution": case("task", many, executions=1),
        f"  {many} task triggers, {many // 2} executions": case("task", many, executions=many // 2),
    }
    yield "how it grows"
    for name, result in zip(shapes, medians(list(shapes.values()), options.rounds), strict=True):
        yield row(name, result)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="five minutes instead of forty")
    parser.add_argument("--only", choices=["requests", "calls", "imports", "growth", "slots"])
    parser.add_argument("--write", type=Path, help="the folder of performance.md, whose table it replaces")
    given = parser.parse_args()
    options = Options.short() if given.short else Options.full()
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "requests": lambda: requests(options, given.write),
        "calls": lambda: one_call.text(one_call.table(options.rounds)),
        "imports": lambda: import_cost.text(options.rounds),
        "growth": lambda: growth(options),
        "slots": lambda: slots.text(options.rounds == 1),
    }
    lines = [
        f"{datetime.now(UTC):%d %B %Y}, {psutil.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 1e9:.0f} GB, Python {platform.python_version()}, "
        f"median of {options.rounds}; load when it began: "
        f"{psutil.getloadavg()[0]:.1f}"
    ]
    print(lines[0], flush=True)
    began = time.monotonic()
    for name, part in parts.items():
        if given.only not in (None, name):
            continue
        lines.append("")
        print(flush=True)
        for line in _said(name, part):
            lines.append(line)
            print(line, flush=True)
        lines += ["", f"{(time.monotonic() - began) / 60:.0f} minutes"]
        if given.write is not None:
            write(given.write / "performance.md", lines)
        del lines[-2:]


def _said(name: str, part: Callable[[], Iterator[str]]) -> Iterator[str]:
    """What a part says. One that fails does not cost the others."""
    try:
        yield from part()
    except Exception as error:
        yield f"{name} has failed: {error!r}"


def write(page: Path, lines: list[str]) -> None:
    """Replace the table of a page."""
    before, _, rest = page.read_text().partition("<!-- table -->")
    _, _, after = rest.partition("<!-- end of table -->")
    table = "\n".join(lines)
    page.write_text(f"{before}<!-- table -->\n```text\n{table}\n```\n<!-- end of table -->{after}")


if __name__ == "__main__":
    sys.exit(main())
