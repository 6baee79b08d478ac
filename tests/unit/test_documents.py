"""What the documents show works: their DAG, their imports, their names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_provider_cdf.emulator.__main__ import _parser
from airflow_provider_cdf.get_provider_info import get_provider_info
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
#: Words. Most have half as many.
LONGEST_SENTENCE = 30
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
                # What a package's __init__ has is meant to be imported from there, and what a module lists.
                is_init = Path(str(module.__file__)).name == "__init__.py"
                is_own = alias.name in own or is_init or alias.name in getattr(module, "__all__", ())
                assert hasattr(module, alias.name)
                assert is_own, f"{alias.name} is not {node.module}'s own"


def test_the_first_dag_of_the_readme_is_one_of_under_20_lines() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(str(snippet).splitlines()) < 20
    names: dict[str, Any] = {}
    exec(compile(str(snippet), "README.md", "exec"), names)
    dag = names["report"].dag
    assert isinstance(dag, DAG)
    assert set(dag.task_ids) == {"run", "waits", "score", "report", "ended"}
    assert names["report"].upstream_task_ids == {"run", "score"}


def test_the_workflow_of_the_readme_is_the_file_that_the_emulator_reads() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown == (ROOT / "example_dags/workflows/pump_health.WorkflowVersion.yaml").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text()):
        path = document.parent / target if target else document
        assert path.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            # As GitHub makes them: no punctuation, a hyphen for each blank.
            assert heading in [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings]


def test_users_find_each_document_from_the_readme() -> None:
    linked = re.findall(r"\]\(([\w./-]+\.md)", (ROOT / "README.md").read_text())
    assert {str(one.relative_to(ROOT)) for one in DOCUMENTS} <= {*linked, "README.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_words_are_plain(document: Path) -> None:
    riddles = r"\b(somebody|someone|whoever|whomever|anybody|anyone|nobody|to-?do|tbd|fixme|to come)\b"
    assert not re.findall(riddles, document.read_text(), re.IGNORECASE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_sentences_are_short(document: Path) -> None:
    text = re.sub(r"```.*?```|^(    |#).*?$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "X", text)
    # Cells of a table, points of a list, and paragraphs end a sentence as well.
    sentences = re.split(r"(?<=[.!?:;])\s|\||\n\s*\n|^- ", text, flags=re.MULTILINE)
    assert not [" ".join(one.split()) for one in sentences if len(one.split()) > LONGEST_SENTENCE]


def test_security_names_each_capability_and_each_host_that_the_code_uses() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    (table,) = re.findall(r"\| capability \|.*?\n\n", page, re.DOTALL)
    sources = "".join(one.read_text() for one in (ROOT / "airflow_provider_cdf").rglob("*.py"))
    used = set(re.findall(r'capability(?:: str)? ?= ?"(\w+Acl):([A-Z]+)"', sources))
    assert len(used) >= 5
    for acl, action in used:
        assert re.search(rf"^\| `{acl}` [A-Z, ]*\b{action}\b", table, re.MULTILINE), (acl, action)
    for host in ("auth.cognite.com", "login.microsoftonline.com"):
        assert f"https://{host}" in sources
        assert f"`{host}`" in page


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_no_release_is_promised(document: Path) -> None:
    assert not re.search(r"pip install \W?airflow[-_]provider[-_]cdf(?! @ git)", document.read_text())


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tests/tools/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", sorted((ROOT / "example_dags").glob("*.py")), ids=lambda file: file.stem)
def test_an_example_says_how_to_try_it(file: Path) -> None:
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    if file.stem == "cdf_notifier":  # of which Airflow's `dags test` calls no callback that works
        assert "\n    cdf-demo --keep\n" in text
        return
    (emulator,) = re.findall(r"^    python -m airflow_provider_cdf.emulator (.*?[^\\])\n", text, re.M | re.S)
    options = _parser().parse_args(emulator.replace("\\\n", " ").split())
    assert "list_pumps" in options.functions
    assert all((ROOT / path).is_dir() for path in options.workflows)
    assert re.search(rf"^    airflow dags test {file.stem}( --conf .*)?$", text, re.M)


def test_the_reference_shows_which_arguments_go_by_name() -> None:
    page = _reference().page()
    assert "`hook.run_workflow(workflow_external_id, version, *, input, metadata) -> " in page
    assert "`CdfTaskGroup(group_id, *, execution_id, task_external_id, " in page


def test_the_reference_is_what_the_docstrings_say() -> None:
    reference = _reference()
    assert reference.PAGE.read_text() == reference.page(), "run: uv run python tests/tools/reference.py"


def test_the_reference_has_every_operator_and_sensor_that_users_import() -> None:
    modules = [*get_provider_info()["operators"], *get_provider_info()["sensors"]]
    public = set()
    for name in (name for group in modules for name in group["python-modules"]):
        module = importlib.import_module(name)
        for one in vars(module).values():
            if isinstance(one, type) and issubclass(one, BaseOperator) and one.__name__.startswith("Cdf"):
                public.add(one)
    assert public == set(_reference().TASKS)


def test_a_second_pair_of_brackets_does_not_look_inside_an_xcom() -> None:
    """As docs/reference.md says."""
    with DAG("any"):
        run = CdfWorkflowRunOperator(task_id="run", workflow_external_id="w", version="1")
    assert (run.output.key, run.output["task_outputs"].key) == ("return_value", "task_outputs")
    assert run.output["task_outputs"]["balance"].key == "balance"
    with pytest.raises(TypeError):
        run["task_outputs"]


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
