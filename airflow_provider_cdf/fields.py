"""Template fields that CDF knows as text, and mistakes in what a DAG file says that can be seen at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow.providers.common.compat.sdk import XComArg, XComNotFound

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from jinja2 import Environment, Template

#: Fields that hold one id, which another task leaves in an XCom.
_IDS = ("execution_id", "cdf_task_id")
#: What each of them is, in words, and what to write there.
_MEANT = {
    "execution_id": ("an execution's", "what the task that starts the execution returns, such as run.output"),
    "cdf_task_id": ("a CDF task's", "what a CdfTaskSensor returns, such as waits.output"),
}
#: Attribute of an environment whose templates become text although others of the operator do not.
_TEXT = "renders_to_text"


class TextFields:
    """
    A mixin before ``BaseOperator`` or ``BaseNotifier``: what CDF knows as text stays text.

    With ``render_template_as_native_obj=True``, Airflow makes a Python value of every templated string that
    looks like one, also where there is no template in it: the version "1" arrives as a number, and "2024_01"
    as another one. The fields named here are rendered to text instead; what an XCom holds as a number
    becomes its text. An id that was to come from the XCom of a task that has left none is ``None``.
    """

    #: Of a task: which argument of another task each XCom is for that holds an id, by its key.
    pushed_ids: Mapping[str, str]
    #: Template fields that are text, or hold nothing but text.
    text_fields: Sequence[str] = ()
    #: Those of them that may be a list or a dict, which one template may render to, if the DAG says so.
    collections_of_text: Sequence[str] = ()

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: Environment,
        seen_oids: set[int],
        **more: Any,
    ) -> None:
        # The one place that Airflow, of all versions, has for plain and mapped tasks alike.
        texts = [name for name in template_fields if parent is self and name in self.text_fields]
        others = [name for name in template_fields if name not in texts]
        render = super()._do_render_template_fields  # type: ignore[misc]  # BaseOperator's
        # First the text: what another field does not allow must not keep a callback from knowing the ids.
        ids = [name for name in texts if name in _IDS and isinstance(getattr(self, name), XComArg)]
        for name in ids:
            setattr(self, name, _id_from_xcom(getattr(self, name), context))
        as_others = [
            name
            for name in texts
            if name in self.collections_of_text and isinstance(getattr(self, name), str)
        ]
        as_text_only = [name for name in texts if name not in (*ids, *as_others)]
        render(parent, as_text_only, context, text_env(self, context), seen_oids, **more)
        render(parent, as_others, context, jinja_env, seen_oids, **more)
        for name in texts:
            setattr(self, name, as_text(getattr(self, name)))
        render(parent, others, context, jinja_env, seen_oids, **more)

    def _render(self, template: Template, context: Context, dag: Any = None) -> Any:
        # Airflow asks the operator, or the notifier, and the DAG how to put a rendered template together.
        if getattr(template.environment, _TEXT, False):
            return template.render(context)
        return super()._render(template, context, dag=dag)  # type: ignore[misc]  # BaseOperator's


def text_env(templated: Any, context: Context) -> Environment:
    """Return the environment that renders the templates of an operator, or a notifier, to text."""
    # A notifier is of no DAG but the one that calls it.
    dag = templated.get_dag() if hasattr(templated, "get_dag") else context.get("dag")
    env: Environment = (
        templated.get_template_env() if dag is None else dag.get_template_env(force_sandboxed=True)
    )
    # An operator may say so itself since Airflow 3.2.
    if any(getattr(one, "render_template_as_native_obj", None) for one in (templated, dag)):
        setattr(env, _TEXT, True)
    return env


def render_only(templated: Any, fields: Iterable[str], context: Context) -> None:
    """Render some text fields, for a callback that needs no others, and before which no code has run."""
    env = text_env(templated, context)
    for name in fields:
        value = getattr(templated, name)
        if name in _IDS and isinstance(value, XComArg):
            rendered = _id_from_xcom(value, context)
        else:
            rendered = templated.render_template(value, context, env)
        setattr(templated, name, as_text(rendered))


def _id_from_xcom(xcom: XComArg, context: Context) -> Any:
    # Where there is none, Airflow answers None for `run.output`, and this for `run.output["execution_id"]`.
    try:
        return xcom.resolve(context)
    except XComNotFound:
        return None


def as_text(value: Any) -> Any:
    """
    Return a number, or a UUID, as its text, also within lists and dicts, and anything else as it is.

    A float by itself stays one and is refused later: where an id or a version is meant, 1.10 and 1.1 are the
    same number. As a value in a dict, such as metadata, it is most likely a measured one.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, UUID):
        return str(value)
    return _texts(value) if isinstance(value, dict | list | tuple) else value


def _texts(value: Any) -> Any:
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, dict):
        return {as_text(key): _texts(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(one) for one in value]
    return as_text(value)


def is_literal(value: Any) -> bool:
    """Whether a DAG file gives the value itself: no template, no XCom of another task, at no depth."""
    if isinstance(value, str):
        return not any(sign in value for sign in ("{{", "{%", "{#"))
    if isinstance(value, Mapping):
        return all(is_literal(one) for pair in value.items() for one in pair)
    if isinstance(value, list | tuple | set):
        return all(map(is_literal, value))
    return not (hasattr(value, "resolve") or callable(value))


def refuse_operators(**fields: Any) -> None:
    """
    Refuse an operator in place of its ``.output``, at any depth, as a DAG file may have it by mistake; and,
    where an id is asked for, an XCom of ours that holds another one or none.

    :raises ValueError: with what to write instead.
    """
    for name, value in fields.items():
        if name in _IDS:
            _refuse_other_ids(name, value)
        if isinstance(value, Mapping):
            refuse_operators(**{f"{name}[{key!r}]": one for key, one in value.items()})
        elif isinstance(value, list | tuple):
            refuse_operators(**{f"{name}[{index}]": one for index, one in enumerate(value)})
        elif (task_id := _task_id_of(value)) is not None:
            raise ValueError(
                f"{name} is the task {task_id!r} itself: write {task_id}.output, which is what it returns."
            )


def _refuse_other_ids(name: str, value: Any) -> None:
    is_xcom = hasattr(value, "resolve")
    task: Any = getattr(value, "operator", None) if is_xcom else value
    if _task_id_of(task) is None:
        return
    key = str(value.key) if is_xcom else "return_value"
    # Of the class itself: one that a user makes of ours may push what it likes. A mapped task has one, too.
    pushed = vars(getattr(task, "operator_class", type(task))).get("pushed_ids")
    if pushed is None or pushed.get(key) == name:
        return
    written = f"{task.task_id}.output" + ("" if key == "return_value" else f"[{key!r}]")
    other = pushed.get(key)
    holds = f"{_MEANT[other][0]} id" if other else f"not {_MEANT[name][0]} id"
    raise ValueError(f"{name} is given {written}, which is {holds}. Write {_MEANT[name][1]}.")


def is_from_mapped(operator: Any) -> bool:
    """
    Whether an operator is one map index of a mapped task, also while it is being made.

    Then its arguments hold what other tasks have returned. What is wrong with that must not raise before
    ``execute()``: neither the operator nor its failure callback could report it.
    """
    # Airflow, 2 and 3, takes `_airflow_from_mapped` out of the arguments before any __init__ sees them.
    return bool(getattr(operator, "_BaseOperator__from_mapped", False))


def refuse_wrong_ids(operator: Any, /, **fields: Any) -> None:
    """
    Refuse an id that a DAG file gives itself, and that is no UUID.

    :param operator: which is being made; ``None`` if none is.
    :raises ValueError: while the file is parsed.
    """
    from airflow_provider_cdf.cdf.checks import check_uuid, is_missing
    from airflow_provider_cdf.cdf.errors import CdfInputError

    if is_from_mapped(operator):
        return
    for name, value in fields.items():
        if not is_missing(value) and is_literal(value):
            try:
                check_uuid(as_text(value), name)
            except CdfInputError as error:
                raise ValueError(error.problem) from None


def _task_id_of(value: Any) -> str | None:
    # Both a plain and a mapped task have these two. Nothing else of Airflow has, and no module is imported.
    is_task = hasattr(value, "task_type") and hasattr(value, "template_fields")
    return str(value.task_id) if is_task and not hasattr(value, "resolve") else None
