"""What is published: built as for a release, looked at, resolved against Airflow's pins, and installed."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
from tools.pins import AIRFLOWS, WITHOUT_CONSTRAINTS, Airflow

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_cdf"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / PACKAGE).is_dir(), reason="needs a checkout"),
    pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv"),
]


def uv(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["uv", *arguments], cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True
    )
    if done.returncode and any(word in done.stderr for word in ("Failed to fetch", "Network connectivity")):
        pytest.skip(f"the package index cannot be reached: {done.stderr.splitlines()[-1]}")
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and sdist."""
    folder = tmp_path_factory.mktemp("dist")
    done = uv("build", "--quiet", "--out-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as content:
        (name,) = [name for name in content.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(content.read(name))


def own_files(folder: str) -> Iterator[str]:
    for path in (ROOT / folder).rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            yield path.relative_to(ROOT).as_posix()


def test_the_wheel_holds_the_package_and_its_examples_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = {name for name in content.namelist() if ".dist-info/" not in name}
        notes = {name.split("/", 1)[1] for name in content.namelist() if ".dist-info/" in name}
    assert names == {*own_files(PACKAGE), *(f"{PACKAGE}/{name}" for name in own_files("example_dags"))}
    assert f"{PACKAGE}/py.typed" in names
    assert f"{PACKAGE}/emulator/page/index.html" in names
    assert notes == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def test_the_sdist_holds_what_builds_and_tests_it_and_nothing_else(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as content:
        names = {member.name.split("/", 1)[1] for member in content.getmembers() if member.isfile()}
    documents = {name for name in ("CONTRIBUTING.md", "SECURITY.md") if (ROOT / name).exists()}
    assert {name for name in names if "/" not in name} == {
        *("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"),
        *documents,
    }
    for folder in (PACKAGE, "example_dags", "docs", "tests"):
        assert {name for name in names if name.startswith(f"{folder}/")} == set(own_files(folder))
    assert {name.split("/")[0] for name in names if "/" in name} == {PACKAGE, "example_dags", "docs", "tests"}


def test_an_index_takes_both_and_shows_the_readme(built: Path) -> None:
    files = [str(file) for file in built.iterdir() if not file.name.startswith(".")]
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_says_whose_it_is_and_where_to_find_more(metadata: Message) -> None:
    urls = dict(entry.split(", ") for entry in metadata.get_all("Project-URL", ()))
    assert urls.keys() == {"Bug Tracker", "Changelog", "Documentation", "Source Code"}
    assert all(url.startswith(urls["Source Code"]) for url in urls.values())
    assert metadata["Author"]
    assert metadata["License-Expression"] == "Apache-2.0"
    classifiers = metadata.get_all("Classifier", ())
    assert {"Framework :: Apache Airflow :: Provider", "Typing :: Typed"} <= set(classifiers)


def test_every_link_of_the_readme_works_from_an_index(metadata: Message) -> None:
    body = metadata.get_payload()
    assert isinstance(body, str)
    links = re.findall(r"\]\(([^)]+)\)", body)
    assert len(links) > 5
    source = dict(entry.split(", ") for entry in metadata.get_all("Project-URL", ()))["Source Code"]
    for link in links:
        assert link.startswith(("https://", "#")), link
        if link.startswith(f"{source}/blob/"):
            tag, _, path = link.removeprefix(f"{source}/blob/").partition("/")
            assert tag == f"v{metadata['Version']}"
            assert (ROOT / path.partition("#")[0]).exists(), link


def resolve(wheel: Path, airflow: Airflow, folder: Path, extra: str = "") -> subprocess.CompletedProcess[str]:
    """Resolve the wheel as ``pip install --constraint`` does with this Airflow's file."""
    (folder / "constraints.txt").write_text(
        f"apache-airflow=={airflow.version}\n"
        f"apache-airflow-providers-common-compat=={airflow.common_compat}\n"
    )
    (folder / "wanted.txt").write_text(
        f"apache-airflow=={airflow.version}\nairflow-provider-cdf{extra} @ {wheel.as_uri()}\n"
    )
    return uv(
        *("pip", "compile", "--quiet", "--no-header", "--no-annotate"),
        *("--python-version", airflow.pythons[0], "--exclude-newer", airflow.day),
        *("--constraint", folder / "constraints.txt", folder / "wanted.txt"),
    )


@pytest.mark.parametrize("extra", ["", "[emulator]"], ids=["plain", "emulator"])
@pytest.mark.parametrize(
    "airflow", [one for one in AIRFLOWS if one.version != WITHOUT_CONSTRAINTS], ids=lambda one: one.version
)
def test_it_fits_airflows_constraints(wheel: Path, airflow: Airflow, tmp_path: Path, extra: str) -> None:
    done = resolve(wheel, airflow, tmp_path, extra)
    assert done.returncode == 0, done.stderr
    assert f"apache-airflow-providers-common-compat=={airflow.common_compat}\n" in done.stdout
    assert f"apache-airflow=={airflow.version}\n" in done.stdout


def test_the_one_airflow_whose_constraints_it_does_not_fit(wheel: Path, tmp_path: Path) -> None:
    """docs/versions.md says how to install it there."""
    (airflow,) = [one for one in AIRFLOWS if one.version == WITHOUT_CONSTRAINTS]
    done = resolve(wheel, airflow, tmp_path)
    assert done.returncode != 0
    assert "common-compat" in done.stderr
    assert "without constraints" in (ROOT / "docs" / "versions.md").read_text()


def test_it_installs_into_an_empty_environment_and_airflow_shows_it(wheel: Path, tmp_path: Path) -> None:
    done = uv("venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    assert done.returncode == 0, done.stderr
    python = tmp_path / "venv" / "bin" / "python"
    done = uv("pip", "install", "--quiet", "--python", python, wheel)
    assert done.returncode == 0, done.stderr

    names = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env = {**names, "AIRFLOW_HOME": str(tmp_path / "airflow")}

    def run(*arguments: str) -> str:
        done = subprocess.run([python, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = run("-m", "airflow", "providers", "get", "airflow-provider-cdf", "--full", "--output", "json")
    (provider,) = json.loads(shown[shown.index("[") :])
    assert provider["documentation-url"].startswith("https://")
    assert provider["documentation-url"].endswith("/docs")
    assert provider["integrations"][0]["external-doc-url"].startswith("https://docs.cognite.com/")

    modules = [
        module
        for kind in ("hooks", "operators", "sensors", "triggers")
        for group in provider[kind]
        for module in group["python-modules"]
    ]
    run("-c", f"import {', '.join(modules)}")


def test_a_release_is_refused_until_all_is_written_and_then_tagged(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)

    def release() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "tests/tools/release.py", "9.9.9", "--checked"]
        return subprocess.run(command, cwd=clone, capture_output=True, text=True)

    def git(*arguments: str) -> str:
        names = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        return subprocess.check_output(["git", *names, *arguments], cwd=clone, text=True)

    refused = release()
    assert refused.returncode == 1
    assert "__init__.py does not say 9.9.9" in refused.stderr
    assert "no heading '## 9.9.9" in refused.stderr

    init, changelog = clone / PACKAGE / "__init__.py", clone / "CHANGELOG.md"
    init.write_text(re.sub(r'(__version__ = )"[^"]+"', r'\1"9.9.9"', init.read_text()))
    changelog.write_text(
        re.sub(r"^## .*$", "## 9.9.9 (2030-01-31)", changelog.read_text(), count=1, flags=re.M)
    )
    refused = release()
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[1:] == ["- not everything is committed"]

    git("commit", "--quiet", "--all", "--message", "Version 9.9.9")
    git("config", "user.name", "test")
    git("config", "user.email", "test@example.com")
    done = release()
    assert done.returncode == 0, done.stdout + done.stderr
    assert git("describe").strip() == "v9.9.9"
    assert sorted(file.suffix for file in (clone / "dist").iterdir() if "airflow" in file.name) == [
        ".gz",
        ".whl",
    ]
    assert "the tag v9.9.9 exists" in release().stderr
