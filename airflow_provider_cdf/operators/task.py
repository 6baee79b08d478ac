"""Operators for one task of an execution: report its end, and do its work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.operators.task_update import CdfTaskUpdateOperator

if TYPE_CHECKING:
    from airflow_provider_cdf.operators.task_work import CdfTaskOperator

__all__ = ["CdfTaskOperator", "CdfTaskUpdateOperator"]


def __getattr__(name: str) -> Any:
    # When it is asked for: Airflow's own PythonOperator, which it is made of, takes longer to import than all
    # of this package.
    if name != "CdfTaskOperator":
        raise AttributeError(f"This module has no attribute {name!r}.")
    from airflow_provider_cdf.operators.task_work import CdfTaskOperator

    return CdfTaskOperator
