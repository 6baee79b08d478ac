"""Which tasks before a task did not do their work, seen from inside that task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.operators.airflow_urls import task_url
from airflow_provider_cdf.versions import HAS_STATES_IN_CALLBACKS, HAS_TASK_API

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

#: States of a task that has not run because of what others did.
_CONSEQUENCES = frozenset({"upstream_failed", "skipped"})


@dataclass(frozen=True)
class Upstream:
    """
    A task instance before a report.

    :param map_index: -1 if the task is not mapped.
    :param state: as Airflow names it; ``no state`` if it has none.
    :param try_number: the latest try, where Airflow tells (below 3.0).
    :param url: its log in Airflow's UI.
    """

    task_id: str
    map_index: int
    state: str
    try_number: int | None = None
    url: str | None = None

    @property
    def name(self) -> str:
        """The task id, of a mapped task with its map index."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


def direct_upstream(operator: BaseOperator, ti: Any) -> list[Upstream]:
    """
    Return the instances of the tasks right before a task.

    Inside a mapped task group, an upstream task of the same group counts with the same map index only.
    Mapped instances that Airflow has removed are left out.
    """
    return _upstream_of(operator, ti.map_index, ti)


def root_causes(
    found: Iterable[Upstream], operator: BaseOperator, ti: Any, good: frozenset[str]
) -> list[Upstream]:
    """
    Follow tasks that have not run to those because of which they have not.

    :param found: tasks before the operator that did not end well.
    :param good: states that are no cause.
    :return: tasks that failed by themselves, or else those that have nothing before them to blame.
    """
    dag = operator.get_dag()
    causes: set[Upstream] = set()
    seen: set[Upstream] = set()
    pending = list(found)
    while pending:
        one = pending.pop()
        if one in seen:
            continue
        seen.add(one)
        before: list[Upstream] = []
        if dag is not None and one.state in _CONSEQUENCES and dag.has_task(one.task_id):
            task = dag.get_task(one.task_id)
            before = [each for each in _upstream_of(task, one.map_index, ti) if each.state not in good]
        if before:
            pending += before
        else:
            causes.add(one)
    return sorted(causes, key=lambda one: (one.task_id, one.map_index))


def _upstream_of(operator: Any, map_index: int, ti: Any) -> list[Upstream]:
    found: list[Upstream] = []
    own_group = operator.get_closest_mapped_task_group()
    for upstream in operator.upstream_list:
        same_group = own_group is not None and upstream.get_closest_mapped_task_group() is own_group
        # Nothing known of a task is no success either.
        known = instances(ti, upstream.task_id) or [Upstream(upstream.task_id, -1, "no state")]
        for one in known:
            # An instance of a group that was never expanded has no map index of its own yet.
            is_other = same_group and map_index >= 0 and one.map_index not in (map_index, -1)
            if one.state != "removed" and not is_other:
                found.append(one)
    return found


def failed_in_run(ti: Any, task_ids: Iterable[str]) -> list[Upstream]:
    """
    Return the task instances of a DAG run that have failed by themselves, as far as a callback may know.

    :param ti: any one of the DAG run.
    :param task_ids: all tasks of its DAG.
    """
    if not HAS_STATES_IN_CALLBACKS:
        return []
    found = set(_named_failed(ti, frozenset(task_ids)) if HAS_TASK_API else _stored(ti))
    return sorted(
        (one for one in found if one.state == "failed"), key=lambda one: (one.task_id, one.map_index)
    )


def _named_failed(ti: Any, task_ids: frozenset[str]) -> Iterator[Upstream]:
    # One question for all. Those whose name may mean another one, too, are asked for by themselves.
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]).get(ti.run_id, {})
    for key in (key for key, state in states.items() if state == "failed"):
        task_id, _, index = key.rpartition("_")
        is_mapped = index.isdecimal() and task_id in task_ids
        if is_mapped and key in task_ids:
            yield from (*instances(ti, key), *instances(ti, task_id))
        elif is_mapped:
            yield Upstream(task_id, int(index), "failed", url=task_url(ti, task_id, int(index)))
        else:
            yield Upstream(key, -1, "failed", url=task_url(ti, key, -1))


def _stored(ti: Any) -> Iterator[Upstream]:
    for one in ti.dag_run.get_task_instances():
        yield Upstream(one.task_id, one.map_index, _said(one.state), one.try_number, one.log_url)


def instances(ti: Any, task_id: str) -> list[Upstream]:
    """Return each instance of one task of this DAG run."""
    if not HAS_TASK_API:
        return [one for one in _stored(ti) if one.task_id == task_id]
    # Asked for one task at a time, because in an answer for several, instance 1 of task "a" and a task named
    # "a_1" have the same key.
    answer = ti.get_task_states(dag_id=ti.dag_id, task_ids=[task_id], run_ids=[ti.run_id])
    indexes = {
        -1 if key == task_id else int(key.removeprefix(f"{task_id}_")): state
        for key, state in answer.get(ti.run_id, {}).items()
    }
    return [
        Upstream(task_id, index, _said(state), url=task_url(ti, task_id, index))
        for index, state in indexes.items()
    ]


def _said(state: Any) -> str:
    # An enum's member on Airflow 2, whose str() is its value.
    return "no state" if state is None else str(state)
