"""What the package imports is what it declares."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import airflow_provider_cdf

PACKAGE = Path(airflow_provider_cdf.__file__).parent
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = packages_distributions()
#: Brought by Airflow 2 or, msgspec, by 3, and used there only; and what those have who ask the emulator for
#: its SDK client, or use its pytest fixtures.
NOT_OURS = {"flask_appbuilder", "flask_babel", "wtforms", "msgspec", "cognite", "pytest"}
#: Not to be had without what is declared, and in the version that goes with it.
COMES_WITH = {
    "pydantic_core": "pydantic",
    "anyio": "httpx",
    "starlette": "fastapi",
    "jinja2": "apache-airflow",
    "sqlalchemy": "apache-airflow",
    "jwt": "apache-airflow",
    "cryptography": "apache-airflow",
}
#: Parts that an extra makes usable.
EXTRAS = {"emulator": "emulator", "demo": "emulator", "cdf": "azure"}


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def declared(extra: str | None) -> set[str]:
    lines = [*PROJECT["dependencies"]]
    if extra:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def distributions(module: str) -> set[str]:
    if module.startswith("airflow.providers.common.compat"):
        return {"apache-airflow-providers-common-compat"}
    top = module.partition(".")[0]
    if top == "airflow":
        return {"apache-airflow"}
    if top in COMES_WITH:
        return {COMES_WITH[top]}
    return {canonicalize_name(name) for name in DISTRIBUTIONS.get(top, ())} or {top}


@pytest.mark.parametrize(
    "part", sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")})
)
def test_every_import_is_declared(part: str) -> None:
    files = [PACKAGE / part] if part.endswith(".py") else sorted((PACKAGE / part).rglob("*.py"))
    known = declared(EXTRAS.get(part))
    for file in files:
        for module in imported(file):
            top = module.partition(".")[0]
            if top in sys.stdlib_module_names or top in {PACKAGE.name, *NOT_OURS}:
                continue
            assert distributions(module) & known, f"{file.name} imports {module}"


def test_every_dependency_is_imported() -> None:
    modules = {module for file in PACKAGE.rglob("*.py") for module in imported(file)}
    needed = set().union(*(distributions(module) for module in modules))
    assert declared(None) <= needed
