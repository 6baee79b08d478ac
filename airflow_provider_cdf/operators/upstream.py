"""The states of the tasks right before a task, from inside that task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator


def upstream_states(operator: BaseOperator, ti: Any) -> dict[str, str | None]:
    """
    Return the state of each direct upstream task instance, by task id; a mapped one by ``id[map_index]``.

    Inside a mapped task group, an upstream task of the same group counts with the same map index only.
    Mapped instances that Airflow has removed are left out.
    """
    states: dict[str, str | None] = {}
    own_group = operator.get_closest_mapped_task_group()
    for upstream in operator.upstream_list:
        same_group = own_group is not None and upstream.get_closest_mapped_task_group() is own_group
        # Nothing known of a task is no success either.
        for map_index, state in _instances(ti, upstream.task_id) or [(-1, None)]:
            if state == "removed" or (same_group and map_index != ti.map_index):
                continue
            name = upstream.task_id if map_index < 0 else f"{upstream.task_id}[{map_index}]"
            states[name] = None if state is None else str(state)
    return states


def _instances(ti: Any, task_id: str) -> list[tuple[int, Any]]:
    """Return map index and state of each instance of one task of this DAG run."""
    if not hasattr(ti, "get_task_states"):
        # Airflow 2: the task runs with the database at hand.
        return [
            (one.map_index, one.state) for one in ti.dag_run.get_task_instances() if one.task_id == task_id
        ]
    # Asked for one task at a time, because in an answer for several, instance 1 of task "a" and a task named
    # "a_1" have the same key.
    answer = ti.get_task_states(dag_id=ti.dag_id, task_ids=[task_id], run_ids=[ti.run_id])
    by_key = answer.get(ti.run_id, {})
    return [
        (-1 if key == task_id else int(key.removeprefix(f"{task_id}_")), state)
        for key, state in by_key.items()
    ]
