"""From an Airflow connection to the settings of a CDF client."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_cdf.cdf.auth import COGNITE_TOKEN_URL, ClientCredentials
from airflow_provider_cdf.cdf.errors import CdfConnectionError
from airflow_provider_cdf.cdf.network import is_loopback
from airflow_provider_cdf.cdf.retry import RETRY_FOR
from airflow_provider_cdf.cdf.settings import REQUEST_TIMEOUT, Settings
from airflow_provider_cdf.get_provider_info import EXTRA_FIELDS

_TENANT = re.compile(r"[A-Za-z0-9.-]+")
#: A name, an IPv4 address, or an IPv6 address without its brackets.
_HOSTNAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f:.]*:[0-9a-f:.]*")
#: A private link host is ``pNNN.plink.<cluster host>``; tokens are issued for the cluster itself.
_PRIVATE_LINK = re.compile(r"^p\d+\.plink\.")


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
    reader = _Reader(host, port, login, password, extra)
    # A tool that shows a traceback with its local variables must not find the secret among them.
    del password, extra
    return reader.read(conn_id, on_token)


class _Reader:
    """Collects everything that is wrong with a connection, so that it can be mended in one go."""

    def __init__(
        self,
        host: str | None,
        port: int | None,
        login: str | None,
        password: str | None,
        extra: object,
    ) -> None:
        self.host, self.port, self.login, self.password = host, port, login, password
        self.problems: list[str] = []
        fields: Mapping[str, Any] = {}
        if isinstance(extra, Mapping):
            fields = extra
        elif extra:
            self.problems.append(
                f'extra must be a JSON object, such as {{"project": "my-project"}}, not {_kind_of(extra)}'
            )
        # The connection form saves fields that nobody touched as null, and cleared ones as "".
        self.extra = {name: value for name, value in fields.items() if value not in (None, "")}

    def read(self, conn_id: str, on_token: Callable[[str], None] | None) -> Settings:
        unknown = sorted(self.extra.keys() - EXTRA_FIELDS.keys())
        if unknown:
            self.problems.append(
                f"extra has {', '.join(map(repr, unknown))}, which this package does not know "
                f"(it knows {', '.join(EXTRA_FIELDS)})"
            )
        allow_http = self._flag("allow_http")
        project = self._text("project") or self._missing("extra 'project'")
        client_id = (self.login or "").strip() or self._missing("login (the client id)")
        has_secret = self._has_secret()
        base_url = self._base_url(allow_http)
        token_url, scope, audience = self._login_at(base_url, allow_http)
        request_timeout = self._seconds("request_timeout", REQUEST_TIMEOUT, at_least=0.001)
        retry_for = self._seconds("retry_for", RETRY_FOR, at_least=0)
        ca_bundle = self._ca_bundle()
        if self.problems or not has_secret:
            raise CdfConnectionError(
                f"Airflow connection {conn_id!r} cannot be used: {'; '.join(self.problems)}. "
                "Nothing was sent to CDF."
            )
        return Settings(
            base_url=base_url,
            project=project,
            credentials=ClientCredentials(token_url, client_id, self._secret(), scope, audience),
            label=f"Airflow connection {conn_id!r}",
            on_token=on_token,
            airflow_name=self._text("airflow_name"),
            retry_for=retry_for,
            request_timeout=request_timeout,
            ca_bundle=ca_bundle,
        )

    def _secret(self) -> str:
        # What an editor or `echo` puts behind a secret that is read from a file.
        return (self.password or "").rstrip("\r\n")

    def _has_secret(self) -> bool:
        if not self._secret():
            self._missing("password (the client secret)")
        elif self._secret() != self._secret().strip():
            self.problems.append("password (the client secret) begins or ends with a blank: take it away")
        elif not self._secret().isprintable():
            self.problems.append("password (the client secret) has a character in it that cannot be printed")
        else:
            return True
        return False

    def _login_at(self, base_url: str, allow_http: bool) -> tuple[str, str | None, str | None]:
        """Return token URL, scope and audience: the connection says one of three things."""
        tenant, token_url, idp = self._text("tenant_id"), self._text("token_url"), self._text("idp")
        scopes, audience = self._text("scopes"), self._text("audience")
        scopes = " ".join(re.split(r"[,\s]+", scopes.strip(", "))) if scopes else None
        given = [
            name for name, value in (("tenant_id", tenant), ("token_url", token_url), ("idp", idp)) if value
        ]
        if len(given) != 1:
            # Never Cognite's own by default: a forgotten tenant must not send a secret there.
            self.problems.append(
                "where to log in is "
                + (f"said {len(given)} times, by {' and '.join(given)}" if given else "missing")
                + ": extra needs exactly one of 'tenant_id' (Microsoft Entra ID), 'token_url' (another "
                "identity provider) or 'idp': 'cdf' (Cognite's own)"
            )
            return "", None, None
        if idp:
            if idp.lower() != "cdf":
                self.problems.append(f"extra 'idp' can only be 'cdf', not {idp!r}")
            if scopes or audience:
                self.problems.append("extra 'idp': 'cdf' takes neither 'scopes' nor 'audience'")
            return COGNITE_TOKEN_URL, None, None
        if tenant:
            if not _TENANT.fullmatch(tenant):
                self.problems.append(f"extra 'tenant_id' must be a tenant's id or domain, not {tenant!r}")
            cluster = _PRIVATE_LINK.sub("", urlsplit(base_url).hostname or "")
            return (
                f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
                scopes or f"https://{cluster}/.default",
                audience,
            )
        return self._url(token_url or "", "extra 'token_url'", allow_http), scopes, audience

    def _base_url(self, allow_http: bool) -> str:
        host = (self.host or "").strip()
        if not host:
            return self._missing("host (the CDF base URL, or the name of a cluster)")
        if "://" not in host:
            is_cluster_name = re.fullmatch(r"[A-Za-z0-9-]+", host) and host != "localhost"
            host = f"https://{host}.cognitedata.com" if is_cluster_name else f"https://{host}"
        if "/api/v1" in host:
            self.problems.append("host must end before /api/v1: the project is in extra 'project'")
            return ""
        return self._url(host, "host", allow_http, self.port).rstrip("/")

    def _url(self, url: str, name: str, allow_http: bool, default_port: int | None = None) -> str:
        # The URL itself is not repeated in messages: people have put passwords and keys into it.
        try:
            parts = urlsplit(url)
            hostname, port = parts.hostname or "", parts.port or default_port
        except ValueError:
            hostname, port = "", None
        if "@" in url:
            self.problems.append(
                f"{name} must hold no user name or password, login and password are for those"
            )
        elif (
            not _HOSTNAME.fullmatch(hostname)
            or parts.scheme not in ("http", "https")
            or parts.query
            or parts.fragment
        ):
            self.problems.append(f"{name} is not of the form https://name or https://name/path")
        elif parts.scheme == "http" and not (allow_http or is_loopback(hostname)):
            self.problems.append(
                f"{name} would send credentials unencrypted: use https, or set extra 'allow_http' to true"
            )
        else:
            # In lower case, which is how urlsplit gives a host name, because CDF's own SDK wants it so.
            authority = f"[{hostname}]" if ":" in hostname else hostname
            return parts._replace(netloc=f"{authority}:{port}" if port else authority).geturl()
        return ""

    def _text(self, name: str) -> str | None:
        value = self.extra.get(name)
        if value is not None and not isinstance(value, str):
            self.problems.append(f"extra {name!r} must be text, not {type(value).__name__}")
            return None
        return (value or "").strip() or None

    def _flag(self, name: str) -> bool:
        value = self.extra.get(name, False)
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        if not isinstance(value, bool):
            self.problems.append(f"extra {name!r} must be true or false, not {value!r}")
            return False
        return value

    def _seconds(self, name: str, default: float, *, at_least: float) -> float:
        value = self.extra.get(name, default)
        try:
            seconds = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if math.isfinite(seconds) and seconds >= at_least:
            return seconds
        self.problems.append(
            f"extra {name!r} must be a number of seconds{' above 0' if at_least else ', or 0 for never'}"
        )
        return default

    def _ca_bundle(self) -> str | None:
        path = self._text("verify")
        if path is not None and not Path(path).exists():
            self.problems.append(
                "extra 'verify' must be the path of a file or directory of CA certificates that exists here"
            )
        return path

    def _missing(self, what: str) -> str:
        self.problems.append(f"{what} is missing")
        return ""


def _kind_of(value: object) -> str:
    kinds = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)
