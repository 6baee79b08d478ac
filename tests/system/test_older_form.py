"""The form of a connection on Airflow 3.1, which a hook makes, from the wheel and in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browsers import needs_chromium

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))
from matrix import TOOLS, Row, environment, install, run, unpacked  # noqa: E402 - a program beside the tests
from pins import AIRFLOWS  # noqa: E402

pytestmark = [
    pytest.mark.long,
    needs_chromium,
    pytest.mark.skipif(not (ROOT / "airflow_provider_cdf").is_dir(), reason="needs a checkout"),
    pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv"),
]


def test_the_form_of_airflow_3_1_works(tmp_path: Path) -> None:
    (airflow,) = [one for one in AIRFLOWS if one.minor == "3.1"]
    run("uv", "build", "--quiet", "--out-dir", tmp_path / "dist", cwd=ROOT)
    row, home = Row(airflow, airflow.pythons[0]), tmp_path / "home"
    python = install(row, tmp_path / "dist", home, tools=(*TOOLS, "playwright"))
    source = unpacked(tmp_path / "dist", home)

    command = [python.parent / "pytest", "tests/system/test_connection_form.py", "-n0", "-q", "-W", "ignore"]
    done = subprocess.run(command, cwd=source, env=environment(), capture_output=True, text=True)

    assert done.returncode == 0, done.stdout
    passed, skipped = (re.search(rf"(\d+) {word}", done.stdout) for word in ("passed", "skipped"))
    assert passed, done.stdout
    assert skipped, done.stdout
    assert (int(passed[1]), int(skipped[1])) == (8, 2), done.stdout
