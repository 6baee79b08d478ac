"""``cdf-demo --distributed`` as a user's command: what it prints, how it ends, and what it leaves behind."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_demo_command import Demo

from airflow_provider_cdf.demo.services import missing_programs

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {', '.join(missing_programs())}"),
]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path / "demo", "--distributed")
    try:
        yield demo
    finally:
        for process in demo.processes():
            process.kill()


def test_it_shows_which_worker_and_which_triggerer_has_a_task(demo: Demo) -> None:
    assert demo.process.wait(timeout=600) == 0, demo.text()
    assert re.search(r"running in worker-[12]", demo.text())
    assert re.search(r"deferred in triggerer-[12]", demo.text())
    assert re.search(r"Execution [0-9a-f-]{36} is COMPLETED", demo.text())
    demo.assert_nothing_is_left()


@pytest.mark.parametrize("moment", ["Starting Airflow", "Running the DAG", "running in worker-"])
def test_ctrl_c_leaves_nothing(demo: Demo, moment: str) -> None:
    demo.wait_for(moment, seconds=600)
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(timeout=120) == 130, demo.text()
    demo.assert_nothing_is_left()
