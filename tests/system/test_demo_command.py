"""``cdf-demo`` as a user's command: what it prints, how it ends, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

MARK = "CDF_DEMO_TEST"


class Demo:
    """A running ``cdf-demo`` with a home directory of its own, whose processes can be found again."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.mark = uuid.uuid4().hex
        self.output = folder / "output"
        # Not pytest's own AIRFLOW_HOME: what a user has not set must not be needed.
        env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("cdf-demo")), *arguments],
                env={**env, "HOME": str(self.home), MARK: self.mark},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_for(self, words: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.1)

    def processes(self) -> list[psutil.Process]:
        """Every process that inherited the mark, whatever became of its parents."""
        return [
            process
            for process in psutil.process_iter(["environ", "status"])
            if process.info["status"] != psutil.STATUS_ZOMBIE
            and (process.info["environ"] or {}).get(MARK) == self.mark
        ]

    def airflow_home(self) -> Path:
        homes = {process.environ().get("AIRFLOW_HOME") for process in self.processes()} - {None}
        (home,) = homes
        return Path(str(home))

    def assert_nothing_is_left(self, airflow_home: Path | None = None) -> None:
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left
        assert list(self.home.iterdir()) == []
        if airflow_home is not None:
            assert not airflow_home.exists()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path / "kept", "--keep")
    try:
        demo.wait_for("Still running")
        yield demo
    finally:
        for process in demo.processes():
            process.kill()


def test_two_demos_run_at_once_and_leave_nothing_behind(kept: Demo, tmp_path: Path) -> None:
    home = kept.airflow_home()
    second = Demo(tmp_path / "second")
    assert second.process.wait(timeout=180) == 0, second.text()
    second.assert_nothing_is_left()
    assert re.search(r"Execution [0-9a-f-]{36} is COMPLETED", second.text())
    assert "CDF measured a vibration of 7.2" in second.text()
    assert "CDF's next task received 0.72" in second.text()

    # The first one has gone on undisturbed, and ends on Ctrl-C.
    assert kept.process.poll() is None, kept.text()
    urls = re.search(r"Airflow at (http\S+), the emulator at (http\S+)\.", kept.text())
    assert urls, kept.text()
    kept.process.send_signal(signal.SIGINT)
    assert kept.process.wait(timeout=180) == 130, kept.text()
    kept.assert_nothing_is_left(home)


def test_the_other_direction_is_shown_as_well(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--inbox")
    assert demo.process.wait(timeout=600) == 0, demo.text()
    demo.assert_nothing_is_left()
    # CDF begins, and Airflow finds out by itself.
    seen = [demo.text().index(one) for one in ("score: IN_PROGRESS", "waiting: success", "judge: success")]
    assert seen == sorted(seen), demo.text()
    assert re.search(r"Execution [0-9a-f-]{36} is COMPLETED", demo.text())
    assert "CDF's next task received 0.72" in demo.text()


@pytest.mark.parametrize("option", ["--airflow-port", "--emulator-port"])
def test_a_port_that_is_taken_is_said_in_plain_words(option: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        demo = Demo(tmp_path, option, str(port))
        assert demo.process.wait(timeout=180) == 1
    assert f"{port}" in demo.text()
    assert "taken" in demo.text()
    assert "Traceback" not in demo.text()
    demo.assert_nothing_is_left()


def test_a_process_that_dies_ends_the_demo_with_its_last_lines(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    demo.wait_for("Airflow is healthy")
    (scheduler,) = [
        process
        for process in demo.processes()
        if "scheduler" in process.cmdline() and "scheduler" not in process.parent().cmdline()
    ]
    scheduler.kill()
    assert demo.process.wait(timeout=180) == 1
    assert "Airflow's scheduler has died (killed by SIGKILL)" in demo.text()
    assert "Traceback" not in demo.text()
    left = re.search(r"Airflow's logs are in (\S+)", demo.text())
    assert left
    demo.assert_nothing_is_left()


def test_sigterm_stops_everything_half_way_through_the_start(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    demo.wait_for("Starting Airflow")
    deadline = time.monotonic() + 30
    while len(demo.processes()) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    demo.process.terminate()
    assert demo.process.wait(timeout=180) == 128 + signal.SIGTERM
    demo.assert_nothing_is_left()
