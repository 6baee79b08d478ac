"""
Triggers: what starts a workflow by itself.

https://api-docs.cognite.com/20230101/tag/Workflow-triggers
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from croniter import (  # type: ignore[import-untyped]
    CroniterBadCronError,
    CroniterBadDateError,
    croniter,
)

from airflow_provider_cdf.emulator.rules.clock import Timeline
from airflow_provider_cdf.emulator.rules.errors import CdfError, InvalidRequestError, NotFoundError
from airflow_provider_cdf.emulator.rules.store import Execution, Store, Trigger

_MAX_TRIGGERS = 200


def _cron_field(value: str) -> re.Pattern[str]:
    item = rf"(\*|({value})(-({value}))?)(/\d+)?"
    return re.compile(rf"{item}(,{item})*", re.IGNORECASE)


_MONTHS = r"\d+|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
#: What UNIX cron allows for minute, hour, day of the month, month and day of the week.
_CRON_FIELDS = [
    *(_cron_field(r"\d+") for _ in range(3)),
    _cron_field(_MONTHS),
    _cron_field(r"\d+|sun|mon|tue|wed|thu|fri|sat"),
]


class Run(Protocol):
    """Starts an execution, as :meth:`Engine.run` does."""

    def __call__(
        self,
        workflow_external_id: str,
        version: str,
        *,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name
        metadata: Mapping[str, str] | None = None,
    ) -> Execution: ...


class Triggers:
    """
    The triggers of the project.

    :param store: where they are kept
    :param timeline: the time by which their schedules go
    :param run: starts an execution
    """

    def __init__(self, store: Store, timeline: Timeline, run: Run) -> None:
        self._store = store
        self._timeline = timeline
        self._run = run
        self._numbers = itertools.count(1)

    def upsert(
        self,
        external_id: str,
        rule: dict[str, Any],
        workflow_external_id: str,
        workflow_version: str,
        *,
        input: dict[str, Any] | None = None,  # noqa: A002 - the API's name
        metadata: dict[str, str] | None = None,
    ) -> Trigger:
        """
        Create a trigger, or replace it; whether it is paused stays as it is.

        :param external_id: of the trigger
        :param rule: its triggerRule, as the API shows it
        :param workflow_external_id: what it starts
        :param workflow_version: what it starts
        :param input: of each execution
        :param metadata: of each execution
        """
        if self._store.versions.get((workflow_external_id, workflow_version)) is None:
            raise NotFoundError(
                f"Version '{workflow_version}' of workflow '{workflow_external_id}' was not found."
            )
        _next_fire_time(rule, self._timeline.now())  # refuses a bad schedule before anything changes
        old = self._store.triggers.get(external_id)
        if old is None and len(self._store.triggers) >= _MAX_TRIGGERS:
            raise InvalidRequestError(f"The project has {_MAX_TRIGGERS} triggers, which is the limit.")
        now = self._timeline.now()
        trigger = Trigger(
            external_id,
            rule,
            workflow_external_id,
            workflow_version,
            input,
            metadata,
            created_time=old.created_time if old else now,
            last_updated_time=max(now, old.last_updated_time + 1) if old else now,
        )
        if old is not None:
            self._stop(old)
            trigger.is_paused, trigger.history = old.is_paused, old.history
        self._store.triggers[external_id] = trigger
        self._set_timer(trigger)
        return trigger

    def all(self) -> list[tuple[str, Trigger]]:
        """The triggers by external id, sorted."""
        return sorted(self._store.triggers.items())

    def get(self, external_id: str, message: str = "Trigger not found.") -> Trigger:
        trigger = self._store.triggers.get(external_id)
        if trigger is None:
            raise NotFoundError(message, missing=[{"externalId": external_id}])
        return trigger

    def delete(self, external_id: str) -> None:
        self._stop(self.get(external_id))
        del self._store.triggers[external_id]

    def pause(self, external_id: str) -> None:
        """Let it fire no more; one that is paused stays so."""
        trigger = self.get(external_id)
        self._stop(trigger)
        trigger.is_paused = True

    def resume(self, external_id: str) -> None:
        """Let it fire again; what it missed is not made up for."""
        trigger = self.get(external_id)
        if trigger.is_paused:
            trigger.is_paused = False
            self._set_timer(trigger)

    def fire(self, external_id: str, items: list[dict[str, Any]] | None = None) -> Execution | None:
        """
        Start the workflow now. For triggers on data, which the emulator does not have, the only way to fire.

        :param external_id: of the trigger
        :param items: the changed instances, which a trigger on data adds to the input
        :return: the execution; None if it could not be started, for which the history has the reason
        """
        trigger = self.get(external_id)
        given = {**(trigger.input or {}), **({"items": items} if items is not None else {})}
        execution, reason = None, None
        try:
            execution = self._run(
                trigger.workflow_external_id,
                trigger.workflow_version,
                input=given,
                metadata=trigger.metadata,
            )
        except CdfError as error:
            reason = error.message
        run = {
            "fireTime": self._timeline.now(),
            "externalId": external_id,
            "workflowExternalId": trigger.workflow_external_id,
            "workflowVersion": trigger.workflow_version,
            "workflowExecutionId": execution.id if execution else None,
            "status": "success" if execution else "failed",
            "reasonForFailure": reason,
        }
        trigger.history.appendleft((-next(self._numbers), run))
        return execution

    def _set_timer(self, trigger: Trigger) -> None:
        due = _next_fire_time(trigger.rule, self._timeline.now())
        if due is None or trigger.is_paused:
            return

        def fire() -> None:
            self._set_timer(trigger)
            self.fire(trigger.external_id)

        trigger.timer = self._timeline.at(due, fire)

    @staticmethod
    def _stop(trigger: Trigger) -> None:
        if trigger.timer is not None:
            trigger.timer.cancel()


def _next_fire_time(rule: Mapping[str, Any], now: int) -> int | None:
    if rule["triggerType"] != "schedule":
        return None
    expression = rule["cronExpression"]
    name = rule.get("timezone", "UTC")
    try:
        timezone = ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # the file may be missing, be a directory, be outside the tree
        raise InvalidRequestError(f"triggerRule.timezone: '{name}' is not the name of a time zone.") from None
    prefix = f"Invalid cron expression: the provided schedule [{expression}]"
    fields = expression.split()
    if len(fields) != 5:
        raise InvalidRequestError(f"{prefix} must have 5 fields.")
    for field, pattern in zip(fields, _CRON_FIELDS, strict=True):
        if not pattern.fullmatch(field):  # croniter reads more than UNIX: L, ?, #, W
            raise InvalidRequestError(f"{prefix} cannot be read: '{field}' is not valid in UNIX cron.")
    try:
        schedule = croniter(expression, datetime.fromtimestamp(now / 1000, timezone))
        following: datetime = schedule.get_next(datetime)
    except CroniterBadDateError:
        raise InvalidRequestError(f"{prefix} will never fire.") from None
    except (CroniterBadCronError, ValueError, KeyError, AttributeError) as error:
        raise InvalidRequestError(f"{prefix} cannot be read: {error}") from None
    return round(following.timestamp() * 1000)
