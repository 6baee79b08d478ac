"""What the documents show works: their DAG, their imports, their names."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(snippet, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_what_a_snippet_imports_is_there_under_that_name(snippet: str) -> None:
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("airflow_provider_cdf"):
            module = importlib.import_module(str(node.module))
            source = ast.parse(Path(str(module.__file__)).read_text())
            own = {getattr(one, "name", None) for one in source.body}
            for alias in node.names:
                # What a package's __init__ has is meant to be imported from there.
                is_own = alias.name in own or Path(str(module.__file__)).name == "__init__.py"
                assert hasattr(module, alias.name)
                assert is_own, f"{alias.name} is not {node.module}'s own"


def test_the_first_dag_of_the_readme_is_one_of_under_20_lines() -> None:
    (snippet,) = (one.values[0] for one in SNIPPETS if "with DAG(" in str(one.values[0]))
    assert len(str(snippet).splitlines()) < 20
    names: dict[str, Any] = {}
    exec(compile(str(snippet), "README.md", "exec"), names)
    dag = names["report"].dag
    assert isinstance(dag, DAG)
    assert set(dag.task_ids) == {"run", "waits", "score", "report", "ended"}
    assert names["report"].upstream_task_ids == {"run", "score"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_table_of_public_names_is_true() -> None:
    rows = re.findall(r"^\| (`[^|]+) \| (`[^|]+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    checked = 0
    for names, modules in rows:
        named, where = re.findall(r"`(\w+)`", names), re.findall(r"`([\w.]+)`", modules)
        for name, module in zip(
            named, where if len(where) == len(named) else where * len(named), strict=True
        ):
            assert hasattr(importlib.import_module(f"airflow_provider_cdf.{module}"), name)
            checked += 1
    assert checked >= 9
