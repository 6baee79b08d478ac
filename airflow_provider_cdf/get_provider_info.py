"""
All that Airflow reads about this package.

Airflow imports this module in every process, so it imports nothing. The connection's fields are declared
here and nowhere else: Airflow 3.2+ builds the form from them, the hook's legacy form and its parser read
them too.
"""

from __future__ import annotations

from typing import Any


def _text(label: str, description: str) -> dict[str, Any]:
    # Nullable, because Airflow saves a field that nobody touched as JSON null.
    return {"label": label, "description": description, "schema": {"type": ["string", "null"]}}


def _seconds(label: str, description: str) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["number", "string", "null"]}}


#: What the connection's ``extra`` holds, by name.
EXTRA_FIELDS: dict[str, dict[str, Any]] = {
    "project": _text("Project", "Name of the CDF project. Required."),
    "tenant_id": _text(
        "Entra ID tenant",
        "Log in through Microsoft Entra ID: token URL and scope follow from the tenant and the host.",
    ),
    "token_url": _text(
        "Token URL",
        "Log in through another identity provider: its OAuth 2.0 token endpoint.",
    ),
    "scopes": _text(
        "Scopes", "OAuth scopes, separated by spaces. Default with a tenant: https://<host>/.default."
    ),
    "audience": _text("Audience", "OAuth audience, where the identity provider wants one (Auth0, Cognito)."),
    "idp": {
        "label": "Identity provider",
        "description": (
            "'cdf' logs in at Cognite itself (https://auth.cognite.com/oauth2/token), "
            "instead of a tenant or a token URL."
        ),
        "schema": {"type": ["string", "null"], "enum": ["cdf", None]},
    },
    "organization": _text("Organization", "Organization in Cognite Fusion, for links only."),
    "airflow_name": _text(
        "Name of this Airflow",
        "Tells this Airflow from others that share the CDF project, such as staging and production.",
    ),
    "allow_http": {
        "label": "Allow plain HTTP",
        "description": "Send credentials over unencrypted http to a host that is not this machine.",
        "schema": {"type": ["boolean", "null"]},
    },
    "verify": _text(
        "CA bundle",
        "File or directory of the CA certificates that servers are checked with, instead of the usual ones.",
    ),
    "request_timeout": _seconds(
        "Request timeout", "Seconds for one request as a whole, with the login that it may need. Default: 30."
    ),
    "retry_for": _seconds(
        "Retry for", "Seconds within which a failed request is repeated; 0 for never. Default: 60."
    ),
}

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "port"],
    "relabeling": {"host": "CDF base URL or cluster", "login": "Client ID", "password": "Client secret"},
    "placeholders": {
        "host": "https://westeurope-1.cognitedata.com",
        "project": "my-project",
    },
}


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
