"""
Writes docs/reference.md from the signatures and the docstrings of the public classes.

    uv run python tests/tools/reference.py

What a docstring says of a parameter stands in ``:param name:``, of an XCom in ``:xcom key:``, of an error in
``:raises Class:``. A parameter without words, or words without a parameter, is an error here.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.inbox import cdf_inbox
from airflow_provider_cdf.notifications.task import CdfTaskNotifier
from airflow_provider_cdf.operators.task import CdfTaskOperator, CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowCancelOperator, CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.base import ExecutionSensor
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor
from airflow_provider_cdf.task_group import CdfTaskGroup
from airflow_provider_cdf.triggers.task import CdfTaskEventTrigger
from airflow_provider_cdf.triggers.workflow import CdfWorkflowEventTrigger

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"
#: The classes whose objects are tasks: where users import them from, and the names that the documents give
#: such tasks.
TASKS: dict[type[Any], tuple[str, str]] = {
    CdfWorkflowRunOperator: ("operators.workflow", "run"),
    CdfWorkflowCancelOperator: ("operators.workflow", "stop"),
    CdfTaskUpdateOperator: ("operators.task", "report"),
    CdfTaskSensor: ("sensors.task", "waits"),
    CdfWorkflowSensor: ("sensors.workflow", "ended"),
}
#: What else users import, by the module that they import it from.
OTHERS: dict[Callable[..., Any], str] = {
    CdfTaskOperator: "operators.task",
    CdfTaskGroup: "task_group",
    CdfTaskNotifier: "notifications.task",
    cdf_inbox: "inbox",
    CdfTaskEventTrigger: "triggers.task",
    CdfWorkflowEventTrigger: "triggers.workflow",
}
METHODS = (
    CdfHook.run_workflow,
    CdfHook.get_execution,
    CdfHook.list_executions,
    CdfHook.cancel_execution,
    CdfHook.retry_execution,
    CdfHook.update_task,
    CdfHook.test_connection,
)
#: Arguments for this package's own use, and template fields that are called otherwise as arguments.
INTERNAL, FIELDS = {"task_output"}, {"output": "task_output"}
#: A default that Airflow's configuration decides.
CONFIGURED = "conf.getboolean('operators', 'default_deferrable', fallback=False)"

TOP = """\
# Reference

Every parameter, default and XCom of the public classes. This page is made from the code:
[CONTRIBUTING.md](../CONTRIBUTING.md#documents) says how. All operators and sensors also take Airflow's own
arguments, such as `retries`, `trigger_rule` and `execution_timeout`, and take each by its name. Elsewhere,
what stands behind a `*` is taken by its name only. *Template* says whether a parameter may hold a Jinja
template, or an XCom of another task.

## How do I use an XCom?

In one way everywhere. `run.output` is what the task `run` returns. `waits.output["input"]` is the XCom that
the task `waits` pushes under the key `input`. The tables below have these forms for each class.

A second pair of brackets does not look inside a value. Airflow takes `run.output["task_outputs"]["balance"]`
for the XCom with the key `balance`, which does not exist. So look inside in a task, or in a template:

```python
from airflow.sdk import task


@task
def level(task_outputs):
    return task_outputs["balance"]["response"]["level"]
```

    "{{ ti.xcom_pull(task_ids='run', key='task_outputs')['balance']['response'] }}"
"""


def page() -> str:
    """Return the page's text."""
    parts = [TOP, "## Operators\n"]
    sensors = [one for one in TASKS if issubclass(one, ExecutionSensor)]
    parts += [_task(one) for one in TASKS if one not in sensors]
    parts += [f"## Sensors\n\n{_prose(ExecutionSensor)}\n", *map(_task, sensors)]
    parts.append("## Work that CDF leaves to Airflow\n")
    parts += [_other(one) for one in OTHERS]
    parts += [
        f"## `CdfHook`\n\n{_prose(CdfHook)}\n",
        _parameters(CdfHook.__init__, _fields(CdfHook, "param")),
    ]
    parts += [_method(one) for one in METHODS]
    return "\n".join(parts).rstrip() + "\n"


def xcoms(task: type[Any]) -> Mapping[str, str]:
    """Return what a class says of the XComs of its tasks, by key."""
    return _fields(task, "xcom")


def _task(task: type[Any]) -> str:
    said: dict[str, str] = {}
    defaults: dict[str, str] = {}
    parameters: dict[str, inspect.Parameter] = {}
    for one in task.__mro__:
        if one.__module__.startswith("airflow_provider_cdf") and "__init__" in vars(one):
            parameters = {**parameters, **_named(one.__init__)}
            defaults = {**_configured(one), **defaults}
            said = {**_fields(one, "param"), **said}
        elif one.__module__.startswith("airflow_provider_cdf"):
            said = {**_fields(one, "param"), **said}
    _check(task.__name__, parameters, said)
    rows = []
    for name, parameter in parameters.items():
        is_template = FIELDS.get(name, name) in task.template_fields
        words, marks = re.subn(r" *\(templated\)$", "", said[name])
        if bool(marks) is not is_template:
            raise ValueError(f"{task.__name__}.{name}: the docstring does not say whether it is templated.")
        default = defaults.get(name) or _default(parameter)
        rows.append((f"`{name}`", _type(parameter), default, "yes" if is_template else "", _markdown(words)))
    module, name = TASKS[task]
    kept = [
        (
            f"`{key}`",
            f"`{name}.output`" if key == "return_value" else f'`{name}.output["{key}"]`',
            _markdown(text),
        )
        for key, text in xcoms(task).items()
    ]
    where = f"from airflow_provider_cdf.{module} import {task.__name__}"
    return "\n".join(
        [
            f"### `{task.__name__}`\n\n`{where}`\n\n{_prose(task)}\n",
            _table(("parameter", "type", "default", "template", "meaning"), rows),
            _table(("XCom", "used as", "holds"), kept),
        ]
    )


def _other(one: Callable[..., Any]) -> str:
    name = one.__name__
    made = one.__init__ if isinstance(one, type) else one
    where = f"`from airflow_provider_cdf.{OTHERS[one]} import {name}`"
    parts = [
        f"### `{name}`\n",
        f"{where}\n",
        f"`{_called(name, made)}`\n",
        f"{_prose(one)}\n",
        _parameters(made, _fields(one, "param")),
    ]
    return "\n".join(parts)


def _called(name: str, function: Callable[..., Any]) -> str:
    """How a function is called: what stands behind the `*` is only taken by its name."""
    arguments = list(_named(function).values())
    positional = [one.name for one in arguments if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    named = [one.name for one in arguments if one.kind is inspect.Parameter.KEYWORD_ONLY]
    return f"{name}({', '.join([*positional, *(['*', *named] if named else [])])})"


def _method(method: Callable[..., Any]) -> str:
    name, signature = method.__name__, inspect.signature(method)
    twin = getattr(CdfHook, f"a{name}")
    if list(inspect.signature(twin).parameters) != list(signature.parameters):
        raise ValueError(f"{name} and its twin for coroutines take different arguments.")
    calls = f"async for one in hook.a{name}" if inspect.isasyncgenfunction(twin) else f"await hook.a{name}"
    called = _called(f"hook.{name}", method)
    parts = [
        f"### `CdfHook.{name}`\n",
        f"`{called} -> {signature.return_annotation}`; for coroutines `{calls}(...)`\n",
        f"{_prose(method)}\n",
    ]
    if _named(method):
        parts.append(_parameters(method, _fields(method, "param")))
    if returned := _fields(method, "return"):
        parts.append(f"Returns {_markdown(returned[''])}\n")
    if raised := _fields(method, "raises"):
        parts.append(
            "\n".join(f"- raises `{kind}` {_markdown(when)}" for kind, when in raised.items()) + "\n"
        )
    return "\n".join(parts)


def _parameters(function: Callable[..., Any], said: Mapping[str, str]) -> str:
    said = {name: re.sub(r" *\(templated\)$", "", words) for name, words in said.items()}
    named = _named(function)
    _check(function.__qualname__, named, said)
    rows = [(f"`{name}`", _type(one), _default(one), _markdown(said[name])) for name, one in named.items()]
    return _table(("parameter", "type", "default", "meaning"), rows)


def _check(what: str, parameters: Mapping[str, Any], said: Mapping[str, str]) -> None:
    if parameters.keys() != said.keys():
        raise ValueError(
            f"{what}: signature and docstring differ in {sorted(parameters.keys() ^ said.keys())}."
        )


def _named(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(function).parameters.items()
    return {
        name: one for name, one in parameters if name not in {"self", *INTERNAL} and one.kind not in kinds
    }


def _configured(one: type[Any]) -> dict[str, str]:
    """The defaults of a class that Airflow's configuration decides."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(one.__init__)))).body  # type: ignore[misc]
    assert isinstance(function, ast.FunctionDef)
    pairs = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    names = [argument.arg for argument, default in pairs if default and ast.unparse(default) == CONFIGURED]
    return dict.fromkeys(names, "`[operators] default_deferrable`, which is `False` unless it is set")


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "required"
    default = parameter.default
    return f"`{default:g}`" if isinstance(default, float) else f"`{default!r}`".replace("'", '"')


def _type(parameter: inspect.Parameter) -> str:
    return " or ".join(f"`{one}`" for one in str(parameter.annotation).split(" | "))


def _fields(documented: Any, kind: str) -> dict[str, str]:
    """The fields of one kind in a docstring, by their argument."""
    found = re.findall(
        rf"^:{kind}(?: ([\w.]+))?: (.*(?:\n[ \t]+.*)*)",
        inspect.cleandoc(documented.__doc__ or ""),
        re.MULTILINE,
    )
    return {name: " ".join(text.split()) for name, text in found}


def _prose(documented: Any) -> str:
    """A docstring without its fields, in Markdown."""
    text = inspect.cleandoc(documented.__doc__)
    text = re.split(r"^:(?:param|return|raises|xcom)\b", text, maxsplit=1, flags=re.MULTILINE)[0]
    # Here they stand in one table.
    text = re.sub(r"\s?The parameters are those of\s:class:`[^`]*`(?:, and:|\.)", "", text)
    return "\n\n".join(_paragraph(one) for one in text.split("\n\n") if one.strip() not in ("", "::"))


def _paragraph(text: str) -> str:
    if text.startswith("    "):  # an example
        return f"```python\n{textwrap.dedent(text).rstrip()}\n```"
    return "\n".join(_wrapped(_markdown(" ".join(text.split())))).removesuffix("::")


def _wrapped(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False)


def _markdown(text: str) -> str:
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
