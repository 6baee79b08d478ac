"""From an Airflow connection to the settings of a CDF client."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from airflow_provider_cdf.cdf.errors import CdfConnectionError
from airflow_provider_cdf.cdf.retry import RETRY_FOR
from airflow_provider_cdf.cdf.settings import REQUEST_TIMEOUT, Settings
from airflow_provider_cdf.hooks.connection_login import read_login, read_session_type
from airflow_provider_cdf.hooks.connection_values import Values


def label(conn_id: str) -> str:
    """Return what messages call a connection."""
    return f"Airflow connection {conn_id!r}"


def read_connection(
    conn_id: str,
    *,
    host: str | None,
    port: int | None,
    login: str | None,
    password: str | None,
    extra: object,
    on_token: Callable[[str], None] | None = None,
) -> Settings:
    """
    Check a connection and turn it into settings.

    :param extra: the connection's extra, parsed; a mapping, unless it is wrong.
    :raises CdfConnectionError: naming every field that is missing, unknown or in contradiction to another.
    """
    values = Values(host, port, login, password, extra)
    # A tool that shows a traceback with its local variables must not find the secret among them.
    del password, extra
    project = _project(values)
    base_url = _base_url(values)
    credentials = read_login(values, base_url)
    session_type = read_session_type(values, credentials)
    ca_bundle = _ca_bundle(values)
    if values.problems or credentials is None:
        raise CdfConnectionError(
            f"{label(conn_id)} cannot be used: {'; '.join(values.problems)}. Nothing was sent to CDF."
        )
    return Settings(
        base_url=base_url,
        project=project,
        credentials=credentials,
        label=label(conn_id),
        on_token=on_token,
        airflow_name=values.text("airflow_name"),
        retry_for=values.seconds("retry_for", RETRY_FOR),
        request_timeout=values.seconds("request_timeout", REQUEST_TIMEOUT),
        ca_bundle=ca_bundle,
        session_type=session_type,
    )


def _project(values: Values) -> str:
    project = values.text("project") or values.missing("extra 'project'")
    # It becomes a part of URLs.
    if project in (".", "..") or not project.isprintable():
        values.problems.append(f"extra 'project' must be the name of a project, not {project!r}")
    return project


def _base_url(values: Values) -> str:
    host = values.host
    if not host:
        return values.missing("host (the CDF base URL, or the name of a cluster)")
    if values.port and not 0 < values.port < 2**16:
        values.problems.append(f"port must be from 1 to 65535, not {values.port}")
    if host.count(":") > 1 and "[" not in host and "://" not in host:
        host = f"[{host}]"  # an IPv6 address, whose brackets Airflow takes off a connection's URI
    if "://" not in host:
        host = host.rstrip("/")
        is_cluster_name = re.fullmatch(r"[A-Za-z0-9-]+", host) and host != "localhost"
        host = f"https://{host}.cognitedata.com" if is_cluster_name else f"https://{host}"
    if "/api/v1" in host:
        values.problems.append("host must end before /api/v1: the project is in extra 'project'")
        return ""
    return values.url(host, "host", values.port).rstrip("/")


def _ca_bundle(values: Values) -> str | None:
    path = values.path("verify")
    # Path.exists() raises for a text that is too long for a path, and quotes it.
    if path is not None and not os.path.exists(path):
        values.problems.append(
            "extra 'verify' must be the path of a file or directory of CA certificates that exists here"
        )
    return path
