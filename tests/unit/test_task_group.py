"""CdfTaskGroup: what stands where in the DAG, and how DAG runs with it end."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskGroup, chain, task, task_group
from moved import DagSerialization, EmptyOperator, check_cycle
from support import FakeTaskInstance

from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.task_group import CdfTaskGroup

ID = "11111111-2222-4333-8444-555555555555"


def group(**more: Any) -> CdfTaskGroup:
    return CdfTaskGroup("score", **{"execution_id": ID, "task_external_id": "score", **more})


def empty(task_id: str) -> EmptyOperator:
    return EmptyOperator(task_id=task_id)


def upstream(dag: DAG, task_id: str) -> set[str]:
    return {one.removeprefix("score.") for one in dag.get_task(task_id).upstream_task_ids}


class TestOrder:
    def test_is_the_sensor_then_whatever_stands_there_then_the_report(self) -> None:
        with DAG("plant") as dag, group() as cdf:
            first, second, alone = empty("first"), empty("second"), empty("alone")
            first >> second
        del alone
        assert upstream(dag, "score.first") == upstream(dag, "score.alone") == {"waits"}
        assert upstream(dag, "score.second") == {"first"}
        assert upstream(dag, "score.report") == {"second", "alone"}
        assert isinstance(cdf.waits, CdfTaskSensor)
        assert isinstance(cdf.report, CdfTaskUpdateOperator)
        assert (cdf.report.is_teardown, cdf.report.on_failure_fail_dagrun) == (True, True)
        assert not cdf.waits.is_setup  # the report is also due where the sensor fails

    def test_of_an_empty_group(self) -> None:
        with DAG("plant") as dag, group():
            pass
        assert upstream(dag, "score.report") == {"waits"}

    def test_with_groups_and_mapped_tasks_and_setups_inside(self) -> None:
        with DAG("plant") as dag, group():

            @task
            def each(one: int) -> None: ...

            with TaskGroup("inner"):
                mapped = each.expand(one=[1, 2])
            start, stop = empty("start"), empty("stop")
            start.as_setup() >> empty("between") >> stop.as_teardown(setups=start)
            del mapped
        assert upstream(dag, "score.inner.each") == upstream(dag, "score.start") == {"waits"}
        # A teardown of the user's own is not waited for, as in any group.
        assert upstream(dag, "score.report") == {"inner.each", "between"}

    def test_with_groups_of_other_cdf_tasks_inside(self) -> None:
        def inner(group_id: str) -> CdfTaskGroup:
            return CdfTaskGroup(group_id, execution_id=ID, task_external_id=group_id)

        with DAG("plant") as dag, group():
            with inner("a"), inner("deep"):
                empty("work")
            with inner("b") as b:
                empty("work")
            with TaskGroup("around"), inner("c"):
                pass
            b >> empty("next")
            empty("alone")
        assert upstream(dag, "score.report") == {"a.report", "b.report", "around.c.report", "next", "alone"}
        assert upstream(dag, "score.a.report") == {"a.deep.report"}
        assert upstream(dag, "score.a.waits") == upstream(dag, "score.around.c.waits") == {"waits"}
        assert upstream(dag, "score.next") == {"b.report"}
        check_cycle(dag)
        stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
        assert (
            stored.get_task("score.report").upstream_task_ids
            == dag.get_task("score.report").upstream_task_ids
        )

    def test_input_and_output_lead_through_the_tasks(self) -> None:
        with DAG("plant") as dag, group(parent_task_external_id="each", skipped_status="COMPLETED") as cdf:

            @task
            def judge(task_input: Any) -> Any: ...

            cdf.output = judge(cdf.input)
        assert upstream(dag, "score.judge") == {"waits"}
        assert upstream(dag, "score.report") == {"judge"}
        assert cdf.report.task_output is cdf.output
        assert cdf.report.skipped_status == "COMPLETED"
        for operator in (cdf.waits, cdf.report):
            assert (operator.execution_id, operator.task_external_id) == (ID, "score")
            assert operator.parent_task_external_id == "each"

    def test_waits_for_what_the_id_comes_from(self) -> None:
        with DAG("plant") as dag:

            @task
            def run() -> str: ...

            with group(execution_id=run()):
                empty("work")
        assert upstream(dag, "score.waits") == {"run"}
        assert upstream(dag, "score.report") == {"run", "work"}

    def test_how_the_sensor_waits_is_chosen(self) -> None:
        with DAG("plant"), group(poll_interval=3, deferrable=True, cdf_conn_id="other") as cdf:
            pass
        assert (cdf.waits.poke_interval, cdf.waits.deferrable) == (3, True)
        assert cdf.waits.cdf_conn_id == cdf.report.cdf_conn_id == "other"


class TestDefaultArgs:
    OTHERS: ClassVar[dict[str, Any]] = {"cdf_conn_id": "plant", "deferrable": True, "poll_interval": 7}

    def test_of_the_dag_hold_for_the_sensor_and_the_report(self) -> None:
        with DAG("plant", default_args=self.OTHERS), group() as cdf:
            pass
        assert cdf.waits.cdf_conn_id == cdf.report.cdf_conn_id == "plant"
        assert (cdf.waits.deferrable, cdf.waits.poke_interval) == (True, 7)

    def test_of_a_group_come_before_those_of_the_dag(self) -> None:
        nearer = {"cdf_conn_id": "nearer", "poll_interval": 8}
        with (
            DAG("plant", default_args=self.OTHERS),
            TaskGroup("outer", default_args=nearer),
            group(default_args={"deferrable": False}) as cdf,
        ):
            pass
        assert cdf.waits.cdf_conn_id == cdf.report.cdf_conn_id == "nearer"
        assert (cdf.waits.deferrable, cdf.waits.poke_interval) == (False, 8)

    def test_come_after_what_the_group_is_given(self) -> None:
        given = {"cdf_conn_id": "other", "deferrable": False, "poll_interval": 3}
        with DAG("plant", default_args={**self.OTHERS, "poke_interval": 9}), group(**given) as cdf:
            pass
        assert cdf.waits.cdf_conn_id == cdf.report.cdf_conn_id == "other"
        assert (cdf.waits.deferrable, cdf.waits.poke_interval) == (False, 3)

    def test_name_the_interval_as_a_sensor_does_or_as_the_group(self) -> None:
        with DAG("plant", default_args={**self.OTHERS, "poke_interval": 9}), group() as cdf:
            pass
        assert cdf.waits.poke_interval == 9

    def test_without_them_it_is_as_for_the_sensor(self) -> None:
        with DAG("plant"), group() as cdf:
            sensor = CdfTaskSensor(task_id="sensor", execution_id=ID, task_external_id="score")
        for name in ("cdf_conn_id", "deferrable", "poke_interval"):
            assert getattr(cdf.waits, name) == getattr(sensor, name)


class TestNeighbours:
    @pytest.mark.parametrize(
        "how", ["group >> task", "task << group", "chain", "group >> group", "report >> task", "by its id"]
    )
    def test_behind_the_group_wait_for_the_report(self, how: str) -> None:
        with DAG("plant") as dag:
            with group() as cdf:
                empty("work")
            if how == "group >> group":
                with TaskGroup("behind") as behind:
                    empty("next")
                cdf >> behind
                next_id = "behind.next"
            else:
                after = empty("next")
                next_id = "next"
                if how == "group >> task":
                    cdf >> after
                elif how == "task << group":
                    after << cdf
                elif how == "report >> task":
                    cdf.report >> after
                elif how == "by its id":
                    dag.get_task("score.report") >> after
                else:
                    chain(cdf, after)
        assert upstream(dag, next_id) == {"report"}
        outcome = dag.get_task("score.outcome")
        assert outcome.upstream_task_ids == {"score.report"}
        assert (outcome.is_teardown, outcome.on_failure_fail_dagrun) == (True, True)

    @pytest.mark.parametrize("is_mapped", [True, False])
    def test_behind_a_group_around_wait_for_the_report(self, is_mapped: bool) -> None:
        with DAG("plant", default_args={"trigger_rule": "all_done"}) as dag:

            @task_group
            def around(child: str) -> None:
                with TaskGroup("deep"), group(task_external_id=child):
                    empty("work")

            behind = empty("next")
            (around.expand(child=["a", "b"]) if is_mapped else around("a")) >> behind
        inside = "around.deep.score"
        # Airflow adds the work itself, which the report waits for anyway.
        assert behind.upstream_task_ids == {f"{inside}.work", f"{inside}.reported"}
        reported = dag.get_task(f"{inside}.reported")
        assert reported.upstream_task_ids == {f"{inside}.report"}
        assert (reported.is_teardown, reported.trigger_rule) == (False, "all_success")
        assert reported.inherits_from_empty_operator  # so that it takes no worker

    def test_behind_no_other_group_need_one_more_task(self) -> None:
        inner = {"execution_id": ID, "task_external_id": "inner"}
        with DAG("plant") as dag, group(), CdfTaskGroup("inner", **inner):
            empty("work")
        assert not [one for one in dag.task_ids if "reported" in one]

    def test_before_the_group_come_before_the_sensor(self) -> None:
        with DAG("plant") as dag:
            with group() as cdf:
                empty("work")
            empty("before") >> cdf
        assert upstream(dag, "score.waits") == {"before"}
        assert upstream(dag, "score.work") == {"waits"}

    def test_the_same_outcome_serves_all_of_them(self) -> None:
        with DAG("plant") as dag:
            with group() as cdf:
                empty("work")
            cdf >> empty("one")
            cdf >> [empty("two"), empty("three")]
        assert {one for one in dag.task_ids if "outcome" in one} == {"score.outcome"}

    def test_may_be_the_group_of_another_cdf_task(self) -> None:
        with DAG("plant") as dag:
            with group() as first:
                empty("work")
            with CdfTaskGroup("grade", execution_id=ID, task_external_id="grade") as second:
                empty("work")
            first >> second
        assert upstream(dag, "grade.waits") == {"report"}
        assert dag.get_task("score.outcome").upstream_task_ids == {"score.report"}
        assert dag.get_task("grade.outcome").upstream_task_ids == {"grade.report"}


class TestUse:
    def test_inside_a_mapped_task_group(self) -> None:
        with DAG("plant") as dag:

            @task_group
            def one_pump(child: str) -> None:
                with group(task_external_id=child):
                    empty("work")

            one_pump.expand(child=["a", "b"])
        assert dag.get_task("one_pump.score.report").upstream_task_ids == {"one_pump.score.work"}

    def test_can_be_stored_with_the_dag(self) -> None:
        with DAG("plant") as dag:
            with group() as cdf:
                empty("work")
            cdf >> empty("next")
        stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
        assert stored.get_task("next").upstream_task_ids == {"score.report"}
        assert set(stored.task_group.children) == {"score", "next"}

    def test_too_early_or_too_late_is_refused(self) -> None:
        with DAG("plant"):
            cdf = group()
            with pytest.raises(RuntimeError, match="no tasks before its with block"):
                _ = cdf.input
            with cdf, pytest.raises(RuntimeError, match="no report before the end"):
                _ = cdf.report
            with pytest.raises(RuntimeError, match="inside its with block"):
                cdf.output = {}

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("outputs", r"no attribute 'outputs'\. Did you mean 'output'\?"),
            ("zzz", r"no attribute 'zzz'\.$"),
        ],
    )
    def test_what_is_set_by_a_wrong_name_is_refused(self, name: str, said: str) -> None:
        with DAG("plant"), pytest.raises(AttributeError, match=said), group() as cdf:
            setattr(cdf, name, {})

    def test_what_airflow_has_may_be_set(self) -> None:
        with DAG("plant"), group() as cdf:
            cdf.tooltip = "Does the work."
        assert cdf.tooltip == "Does the work."

    def test_a_second_with_block_is_refused(self) -> None:
        with DAG("plant") as dag:
            with group() as cdf:
                empty("work")
            with pytest.raises(RuntimeError, match="has one with block"), cdf:
                empty("more")
        assert not dag.has_task("score.more")
        assert not dag.has_task("more")

    def test_an_error_inside_is_what_is_shown(self) -> None:
        with DAG("plant") as dag, pytest.raises(ZeroDivisionError), group():
            _ = 1 / 0
        assert not dag.has_task("score.report")

    @pytest.mark.parametrize(
        ("mistake", "said"),
        [
            ({"poll_interval": "4"}, "poke_interval must be"),
            ({"deferrable": "no"}, "deferrable must be"),
            ({"execution_id": None}, "execution_id"),
            ({"execution_id": "abc"}, "execution_id"),
            ({"execution_id": EmptyOperator(task_id="run")}, r"write run\.output"),
            ({"skipped_status": "DONE"}, "DONE"),
            ({"output": ["no dict"]}, "output"),
        ],
    )
    def test_a_mistake_does_not_reach_the_next_dag(self, mistake: dict[str, Any], said: str) -> None:
        arguments = {name: value for name, value in mistake.items() if name != "output"}
        with pytest.raises((ValueError, TypeError), match=said), DAG("plant"), group(**arguments) as cdf:
            cdf.output = mistake.get("output")
        with DAG("other") as other:
            empty("work")
        assert other.task_ids == ["work"]


@pytest.mark.parametrize(
    ("state", "fails"), [("success", False), ("skipped", False), ("failed", True), ("upstream_failed", True)]
)
def test_the_outcome_fails_where_the_report_has_not_been_made(state: str, fails: bool) -> None:
    from airflow.providers.common.compat.sdk import AirflowFailException

    with DAG("plant") as dag, group():
        pass
    ti = FakeTaskInstance(task_id="score.outcome", states={"score.report": {"score.report": state}})
    outcome = dag.get_task("score.outcome").prepare_for_execution()
    context = {"ti": ti}
    if fails:
        with pytest.raises(AirflowFailException, match=r"'score\.report' is " + state):
            outcome.execute(context)
    else:
        outcome.execute(context)


def test_a_part_of_a_dag_can_be_made() -> None:
    with DAG("plant") as dag, group():
        empty("work")
    part = dag.partial_subset(["score.work"], include_upstream=True)
    assert sorted(part.task_ids) == ["score.waits", "score.work"]
    assert list(part.task_group.children["score"].get_leaves())
