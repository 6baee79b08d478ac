"""What the demo shows: both sides live on a terminal, one line for each change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.models import WorkflowExecutionDetails
    from airflow_provider_cdf.demo import RoundTrip

_STYLES = {
    "success": "green",
    "COMPLETED": "green",
    "running": "yellow",
    "deferred": "magenta",
    "IN_PROGRESS": "yellow",
    "failed": "bold red",
    "upstream_failed": "red",
    "FAILED": "bold red",
    "FAILED_WITH_TERMINAL_ERROR": "bold red",
}


class Screen:
    """
    The demo's output.

    :param console: where to write, standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        # Without highlighting, or rich would colour numbers and quotes in the middle of sentences.
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._live: Live | None = None
        self._seen: dict[str, str] = {}

    def step(self, text: str) -> None:
        """Say what is happening now."""
        self._console.print(f"[{time.monotonic() - self._began:5.1f} s] {text}", markup=False)

    def failure(self, error: BaseException) -> None:
        """Say what went wrong, with the notes that the error carries."""
        self._console.print(
            "\n".join([str(error), *getattr(error, "__notes__", ())]), style="red", markup=False
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Show what :meth:`show` is given, in place where the output is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=8) as self._live:
            yield
        self._live = None

    def show(
        self, airflow_tasks: Sequence[dict[str, Any]], execution: WorkflowExecutionDetails | None
    ) -> None:
        """Show the state of both sides."""
        airflow = [(task["task_id"], _state_and_place(task)) for task in _by_start(airflow_tasks)]
        cdf = [(task.external_id, str(task.status)) for task in execution.executed_tasks] if execution else []
        if self._live is not None:
            self._live.update(Columns([_side("Airflow", airflow), _side("CDF", cdf)], padding=(0, 4)))
            return
        for side, states in (("Airflow", airflow), ("CDF", cdf)):
            for name, state in states:
                if state and self._seen.get(f"{side} {name}") != state:
                    self._seen[f"{side} {name}"] = state
                    self.step(f"  {side:8}{name}: {state}")

    def summary(self, trip: RoundTrip) -> None:
        """Show what has been proven, in CDF."""
        execution = trip.execution
        table = Table("CDF task", "status", "duration")
        for task in execution.executed_tasks:
            seconds = ((task.end_time or 0) - (task.start_time or 0)) / 1000
            table.add_row(task.external_id, _styled(str(task.status)), f"{seconds:.1f} s")
        self._console.print(f"Execution {execution.id} is {execution.status}:", markup=False)
        self._console.print(table)
        self._console.print(
            f"CDF measured a vibration of {trip.measured}, Airflow made the risk {trip.reported} of it, "
            f"and CDF's next task received {trip.received}.",
            markup=False,
        )


def _state_and_place(task: dict[str, Any]) -> str:
    state, component = task["state"] or "", task.get("component")
    return f"{state} in {component}" if component else state


def _by_start(tasks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(tasks, key=lambda task: task["start_date"] or "9999")


def _side(title: str, states: Sequence[tuple[str, str]]) -> Table:
    table = Table(title=title, min_width=36)
    table.add_column("task")
    table.add_column("state")
    for name, state in states:
        table.add_row(name, _styled(state))
    return table


def _styled(state: str) -> Text:
    return Text(state, style=_STYLES.get(state.partition(" ")[0], ""))
