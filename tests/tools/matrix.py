"""
Try the built wheel on every Airflow that it is for, and print what came of it as a table.

    uv run python tests/tools/matrix.py                      # all of it; an hour or more
    uv run python tests/tools/matrix.py --only 3.1 --write   # one Airflow; its rows go into docs/versions.md
    uv run python tests/tools/matrix.py --small              # the two ends, in two minutes; what CI runs

For each Airflow and Python: a new environment under what the constraint file of that Airflow pins, with the
wheel and without the checkout's package; the unit tests but for those that know no Airflow; among them the
example DAGs with ``dag.test()``. On the oldest Python of some, the same DAGs also run on a real scheduler and
triggerer. One more row, "floors", has the oldest release of everything that the package declares.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from packaging.requirements import Requirement
from pins import AIRFLOWS, COMPAT, FLOORS, WITHOUT_CONSTRAINTS, Airflow

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "versions.md"
HEADER = (
    "| Airflow | Python | common-compat | unit tests | example DAGs, `dag.test()` | scheduler and triggerer |"
)
RULE = "|---|---|---|---|---|---|"
#: On these the example DAGs also run on real processes. On 3.3 all system tests do, elsewhere.
REAL = ("2.11", "3.1")
#: What the tests themselves need.
TOOLS = (
    "pytest>=8.4",
    "pytest-mock>=3.14",
    "pytest-xdist>=3.6",
    "hypothesis>=6.130",
    "jsonschema>=4.19",
    "numpy",
    "azure-identity>=1.17",  # the extra azure
)
#: The unit tests but for those that know no Airflow, of the emulator and of documents; and whole DAGs.
UNIT = (
    "tests/unit",
    "tests/dags",
    "--ignore=tests/unit/emulator",
    "--ignore=tests/unit/test_documents.py",
    "--ignore=tests/unit/test_declared.py",
)
#: The calls to CDF: they hardly know Airflow. For all Pythons of the newest one, and for the oldest of each.
CALLS = "tests/unit/cdf"
#: What goes wrong on the way to CDF, once with what the oldest Airflow pins. With the newest all tests run.
FAULTS = ("tests/faults/test_fault_matrix.py", "tests/faults/test_hostile_servers.py")
#: Seconds that the tests of a row may take.
TIMEOUT = 3600.0
#: What depends most on the version, for CI.
SMALL = (
    "tests/unit/test_versions.py",
    "tests/unit/test_provider_info.py",
    "tests/dags/test_example_dags.py::test_example_dag_succeeds",
    "tests/unit/hooks/test_lookup.py",
    "tests/dags/test_stored_connection.py",
    "tests/unit/operators/test_orphans.py",
    "tests/unit/sensors/test_resumed_sensors.py",
)


@dataclass(frozen=True)
class Row:
    """One Airflow on one Python."""

    airflow: Airflow
    python: str

    @property
    def name(self) -> str:
        return f"{self.airflow.version}, {self.python}"

    @property
    def is_oldest_python(self) -> bool:
        return self.python == self.airflow.pythons[0]

    @property
    def tests(self) -> tuple[str, ...]:
        """The unit tests of this row."""
        has_calls = self.is_oldest_python or self.airflow is AIRFLOWS[-1]
        has_faults = self.is_oldest_python and self.airflow is AIRFLOWS[0]
        return (*UNIT, *(() if has_calls else (f"--ignore={CALLS}",)), *(FAULTS if has_faults else ()))


@dataclass
class Count:
    """What became of some tests."""

    passed: int = 0
    skipped: int = 0
    failed: int = 0

    def __str__(self) -> str:
        words = [f"{self.passed} passed"]
        words += [f"{self.skipped} skipped"] if self.skipped else []
        words += [f"**{self.failed} failed**"] if self.failed else []
        return ", ".join(words)


def main() -> int:
    options = parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="cdf-matrix-") as folder:
        work = Path(folder)
        run("uv", "build", "--quiet", "--out-dir", work / "dist", cwd=ROOT)
        lines, is_good = {}, True
        for row in rows(options):
            print(f"-- Airflow {row.airflow.version}, Python {row.python}", flush=True)
            line, row_is_good = try_row(row, work, options)
            lines[row.name] = line
            is_good &= row_is_good
            print(line, flush=True)
    print("\n".join([HEADER, RULE, *lines.values()]))
    if options.write:
        write(lines)
    return 0 if is_good else 1


def rows(options: argparse.Namespace) -> Iterator[Row]:
    for airflow in (AIRFLOWS[0], AIRFLOWS[-1]) if options.small else (FLOORS, *AIRFLOWS):
        for python in airflow.pythons[:1] if options.small else airflow.pythons:
            is_wanted = not options.only or {airflow.minor, airflow.version} & set(options.only)
            if is_wanted and (not options.python or python in options.python):
                if shutil.which(f"python{python}"):
                    yield Row(airflow, python)
                else:
                    print(f"-- Airflow {airflow.version}, Python {python}: left out, no such Python on PATH")


def try_row(row: Row, work: Path, options: argparse.Namespace) -> tuple[str, bool]:
    home = work / row.airflow.version / row.python
    python = install(row, work / "dist", home)
    source = unpacked(work / "dist", home)
    if options.small:
        # Each file can at least be read by this Airflow.
        run(python.parent / "pytest", *UNIT, "--collect-only", "--quiet", "--quiet", "-n0", cwd=source)
    found = run_tests(python, source, *(SMALL if options.small else row.tests), f"-n{options.processes}")
    examples, others = Count(), Count()
    for is_example, outcome in found:
        count = examples if is_example else others
        setattr(count, outcome, getattr(count, outcome) + 1)
    counts = [others, examples]
    real = "-"
    has_real = row.airflow.minor in REAL and row.is_oldest_python and row.airflow is not FLOORS
    if has_real and not options.small:
        count = Count()
        for _, outcome in run_tests(python, source, "tests/system/test_every_airflow.py", "-n0"):
            setattr(count, outcome, getattr(count, outcome) + 1)
        counts.append(count)
        real = str(count)
    compat = run(
        *(python, "-c", f"from importlib.metadata import version; print(version({COMPAT!r}))"), cwd=home
    ).strip()
    shutil.rmtree(home)
    is_good = all(count.passed and not count.failed for count in counts)
    version = f"{row.airflow.version}, floors" if row.airflow is FLOORS else row.airflow.version
    return f"| {version} | {row.python} | {compat} | {others} | {examples} | {real} |", is_good


def install(row: Row, dist: Path, home: Path, *, tools: Sequence[str] = TOOLS) -> Path:
    """Make the environment of a row, with the tools of the tests, and return its Python."""
    (wheel,) = dist.glob("*.whl")
    home.mkdir(parents=True)
    run("uv", "venv", "--quiet", "--no-python-downloads", "--python", row.python, home / "venv", cwd=home)
    python = home / "venv" / "bin" / "python"
    (home / "constraints.txt").write_text("\n".join(constraints(row.airflow)))
    command = [
        *("uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python),
        *("--exclude-newer", row.airflow.day, "--constraint", home / "constraints.txt"),
    ]
    if row.airflow.version == WITHOUT_CONSTRAINTS:
        command += ["--exclude-newer-package", f"{COMPAT}={AIRFLOWS[0].day}"]
    wanted = [f"apache-airflow=={row.airflow.version}", f"airflow-provider-cdf[emulator] @ {wheel.as_uri()}"]
    run(*command, *wanted, cwd=home)
    if tools:
        # In a second step, so that what the tests need decides nothing.
        (home / "constraints.txt").write_text(run("uv", "pip", "freeze", "--python", python, cwd=home))
        run(*command, *tools, cwd=home)
    return python


def constraints(airflow: Airflow) -> Iterator[str]:
    if airflow is FLOORS:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for line in (*project["dependencies"], *project["optional-dependencies"]["emulator"]):
            requirement = Requirement(line)
            (floor,) = requirement.specifier
            if requirement.name != "apache-airflow":
                yield f"{requirement.name}=={floor.version}"
    elif airflow.version != WITHOUT_CONSTRAINTS:
        yield f"{COMPAT}=={airflow.common_compat}"


def unpacked(dist: Path, home: Path) -> Path:
    """Unpack the sdist but for the package, so that the tests find the installed one only."""
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as content:
        content.extractall(home, filter="data")
    (source,) = home.glob("airflow_provider_cdf-*")
    shutil.rmtree(source / "airflow_provider_cdf")
    return source


def run_tests(python: Path, source: Path, *arguments: str) -> list[tuple[bool, str]]:
    """Run tests; return of each whether it is about an example DAG, and what became of it."""
    report = source / "report.xml"
    report.unlink(missing_ok=True)
    command = [
        *(python.parent / "pytest", "--quiet", "-W", "ignore", "--tb=short", "--show-capture=no", "-ra"),
        *("--disable-warnings", f"--junitxml={report}", *arguments),
    ]
    # Seen while it runs, because it runs for long. A test that hangs ends the row, and not the night.
    done = subprocess.run(command, cwd=source, env=environment(), check=False, timeout=TIMEOUT)
    if done.returncode not in (0, 1):
        raise SystemExit(f"The tests could not be run: pytest ended with {done.returncode}.")
    found = []
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found.append(("test_example_dags" in case.get("classname", ""), outcome))
    return found


def write(lines: dict[str, str]) -> None:
    """Put rows into the table of docs/versions.md, in place of the same rows of an earlier run."""
    text = TABLE.read_text()
    before, _, rest = text.partition(f"{HEADER}\n{RULE}\n")
    below = rest.splitlines()
    old = list(takewhile(lambda line: line.startswith("|"), below))
    table = {key(line): line for line in (*old, *lines.values())}
    order = {version: place for place, version in enumerate([f"{FLOORS.version}, floors", *_versions()])}
    rows = sorted(table.values(), key=lambda line: (order[key(line)[0]], key(line)[1]))
    TABLE.write_text("\n".join([before + HEADER, RULE, *rows, *below[len(old) :], ""]))


def key(line: str) -> tuple[str, str]:
    cells = [cell.strip() for cell in line.split("|")]
    return cells[1], cells[2]


def _versions() -> list[str]:
    return [airflow.version for airflow in AIRFLOWS]


def environment() -> dict[str, str]:
    """Nothing of the shell's own Airflow or environment."""
    dropped = ("AIRFLOW", "_AIRFLOW", "VIRTUAL_ENV", "PYTHON", "UV_PROJECT")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="AIRFLOW", help="such as 3.1 or 2.11.2")
    parser.add_argument("--python", nargs="+", metavar="VERSION", help="such as 3.12")
    parser.add_argument("--small", action="store_true", help="the two ends and a choice of tests")
    parser.add_argument("--write", action="store_true", help="put the rows into docs/versions.md")
    parser.add_argument("--processes", type=int, default=0, help="of pytest-xdist; 0 for none")
    return parser


if __name__ == "__main__":
    sys.exit(main())
