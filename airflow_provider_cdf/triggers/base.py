"""What this package's triggers are made of: Airflow's triggers for watchers, which share their polls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_cdf.versions import HAS_TASK_API

if TYPE_CHECKING or HAS_TASK_API:
    from airflow.triggers.base import BaseEventTrigger
else:  # Airflow 2, which has no watchers
    from airflow.triggers.base import BaseTrigger as BaseEventTrigger

__all__ = ["BaseEventTrigger"]
