"""
All that Airflow reads about this package.

Airflow imports this module in every process, so it imports nothing but the declaration of the connection's
fields, which imports nothing either.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_cdf.hooks.connection_fields import EXTRA_FIELDS, UI_FIELD_BEHAVIOUR


def get_provider_info() -> dict[str, Any]:
    """Describe this package to Airflow (entry point ``apache_airflow_provider``)."""
    name = "Cognite Data Fusion"
    return {
        "package-name": "airflow-provider-cdf",
        "name": name,
        "description": "Cognite Data Fusion (CDF) Data Workflows: run them, wait for them, be part of them.",
        "integrations": [
            {
                "integration-name": name,
                "external-doc-url": "https://docs.cognite.com/cdf/data_workflows/",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": name, "python-modules": ["airflow_provider_cdf.hooks.cdf"]}],
        "operators": [
            {
                "integration-name": name,
                "python-modules": [
                    "airflow_provider_cdf.operators.workflow",
                    "airflow_provider_cdf.operators.task",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": name,
                "python-modules": [
                    "airflow_provider_cdf.sensors.workflow",
                    "airflow_provider_cdf.sensors.task",
                ],
            }
        ],
        "triggers": [
            {
                "integration-name": name,
                "python-modules": [
                    "airflow_provider_cdf.triggers.workflow",
                    "airflow_provider_cdf.triggers.task",
                ],
            }
        ],
        "notifications": ["airflow_provider_cdf.notifications.task.CdfTaskNotifier"],
        "task-decorators": [
            {"name": "cdf_task", "class-name": "airflow_provider_cdf.decorators.task.cdf_task"}
        ],
        "connection-types": [
            {
                "connection-type": "cdf",
                "hook-name": name,
                "hook-class-name": "airflow_provider_cdf.hooks.cdf.CdfHook",
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": EXTRA_FIELDS,
            }
        ],
    }
