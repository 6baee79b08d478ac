"""Which login a connection says, and what that login needs: docs/connection.md has a table for each."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from airflow_provider_cdf.cdf.logins.azure import AzureIdentity
from airflow_provider_cdf.cdf.logins.base import SENDABLE, Credentials
from airflow_provider_cdf.cdf.logins.clients import COGNITE_TOKEN_URL, ClientAssertion, ClientCredentials
from airflow_provider_cdf.cdf.logins.keys import (
    PEM_BEGIN,
    SigningKey,
    has_certificate,
    problem_of_pem,
    thumbprint_digits,
)
from airflow_provider_cdf.cdf.logins.tokens import StaticToken, TokenFile, without_bearer
from airflow_provider_cdf.cdf.models import SessionType
from airflow_provider_cdf.hooks.connection_values import Values

#: Each says where to log in, or with what, so there has to be exactly one.
WAYS = ("tenant_id", "login_url", "token_url", "idp", "token", "login_file")

_TENANT = re.compile(r"[A-Za-z0-9.-]+")
#: A private link host is ``pNNN.plink.<cluster host>``; tokens are issued for the cluster itself.
_PRIVATE_LINK = re.compile(r"^p\d+\.plink\.")


def read_login(values: Values, base_url: str) -> Credentials | None:
    """
    Return how to log in; ``None``, with the problems noted, if the connection does not say exactly one way.

    :param base_url: of CDF, for the scope of its cluster.
    """
    method = values.text("auth_method") or "client_secret_post"
    ways = [name for name in WAYS if values.text(name)]
    if method == "azure_identity" and ways in ([], ["tenant_id"]):
        return _azure_identity(values, base_url)
    if len(ways) != 1:
        # Never Cognite's own by default: a forgotten tenant must not send a secret there.
        values.problems.append(
            "where to log in is "
            + (f"said {len(ways)} times, by {' and '.join(ways)}" if ways else "missing")
            + ": extra needs exactly one of 'tenant_id' (Microsoft Entra ID), 'idp': 'cdf' (Cognite's own), "
            "'login_url' (another identity provider), 'token', 'login_file', or 'auth_method': "
            "'azure_identity'"
        )
        if not {"token", "login_file"} & set(ways):
            _check_client(values, method)
        return None
    if ways[0] in ("token", "login_file"):
        return _ready_token(values, ways[0])
    if method == "azure_identity":
        values.problems.append(f"extra 'auth_method': 'azure_identity' takes no {ways[0]!r}")
        return None
    return _client(values, base_url, ways[0], method)


def read_session_type(values: Values, credentials: Credentials | None) -> SessionType | None:
    """Return how a run's session is to be made, if the connection says so."""
    said = values.text("session_type")
    if said is None:
        return None
    session_type = SessionType(said.upper())
    if session_type is SessionType.CLIENT_CREDENTIALS and not isinstance(
        credentials, ClientCredentials | None
    ):
        values.problems.append(
            "extra 'session_type': 'client_credentials' needs a client secret, which this login does without"
        )
    return session_type


def _client(values: Values, base_url: str, way: str, method: str) -> Credentials | None:
    """A client at a token endpoint, with its secret or its key."""
    _check_client(values, method)
    token_url, scopes = "", values.text("scopes")
    scope = " ".join(re.split(r"[,\s]+", scopes.strip(", "))) if scopes else None
    if way == "tenant_id":
        tenant = values.text("tenant_id") or ""
        if not _TENANT.fullmatch(tenant):
            values.problems.append(f"extra 'tenant_id' must be a tenant's id or domain, not {tenant!r}")
        token_url = f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"
        scope = scope or _scope_of_cluster(base_url)
    elif way == "idp":
        token_url = COGNITE_TOKEN_URL
        _refuse(values, ("scopes", "audience"), "'idp': 'cdf'")
        if method == "private_key_jwt":
            values.problems.append("extra 'idp': 'cdf' takes no 'auth_method': 'private_key_jwt'")
    else:
        token_url = values.url(values.text(way) or "", f"extra {way!r}", may_have_query=True)
    audience = values.text("audience")
    if method != "private_key_jwt":
        return ClientCredentials(
            token_url,
            values.login,
            values.secret,
            scope,
            audience,
            in_header=method == "client_secret_basic",
        )
    thumbprint = values.text("certificate_thumbprint")
    digits = thumbprint_digits(thumbprint or "")
    key = values.path("private_key") or ""
    if thumbprint and not digits:
        values.problems.append(
            "extra 'certificate_thumbprint' must be 40 hex digits (SHA-1, as Entra shows it) or 64 (SHA-256)"
        )
    elif way == "tenant_id" and not digits and PEM_BEGIN in key and not has_certificate(key):
        values.missing("extra 'certificate_thumbprint', by which Entra ID finds the certificate,")
    # Entra ID only is told which certificate of a PEM it is. Others know the key by its client.
    is_entra = way == "tenant_id" or "microsoftonline" in token_url
    return ClientAssertion(token_url, values.login, SigningKey(key, digits, is_entra), scope, audience)


def _check_client(values: Values, method: str) -> None:
    """Note what a client lacks to prove itself, and what it cannot use."""
    if not values.login:
        values.missing("login (the client id)")
    if method == "private_key_jwt":
        _refuse(values, ("password",), "'auth_method': 'private_key_jwt'")
        key = values.text("private_key")
        if not key:
            values.missing("extra 'private_key' (a PEM, or the path of one)")
        elif PEM_BEGIN in key and (problem := problem_of_pem(key)):
            values.problems.append(f"extra 'private_key' cannot be used: {problem}")
    else:
        values.check_secret()
        if values.text("private_key") or values.text("certificate_thumbprint"):
            values.problems.append(
                "extra 'private_key' and 'certificate_thumbprint' need 'auth_method': 'private_key_jwt'"
            )


def _ready_token(values: Values, way: str) -> Credentials:
    _refuse(
        values,
        ("login", "password", "auth_method", "private_key", "certificate_thumbprint", "scopes", "audience"),
        repr(way),
    )
    if way == "login_file":
        return TokenFile(values.path(way) or "")
    given = without_bearer(values.text(way) or "")
    if not re.fullmatch(SENDABLE, given):
        values.problems.append("extra 'token' has blanks or signs in it that no access token has")
    return StaticToken(given)


def _azure_identity(values: Values, base_url: str) -> Credentials:
    _refuse(
        values,
        ("password", "private_key", "certificate_thumbprint", "audience"),
        "'auth_method': 'azure_identity'",
    )
    scope = values.text("scopes") or _scope_of_cluster(base_url)
    if len(scope.split()) > 1:
        values.problems.append("extra 'scopes' can only be one with 'auth_method': 'azure_identity'")
    return AzureIdentity(scope, values.login or None, values.text("tenant_id"))


def _scope_of_cluster(base_url: str) -> str:
    cluster = _PRIVATE_LINK.sub("", urlsplit(base_url).hostname or "")
    return f"https://{cluster}/.default"


def _refuse(values: Values, names: Collection[str], way: str) -> None:
    given = {"login": values.login, "password": values.secret}
    used = [name for name in names if given.get(name) or values.text(name)]
    if used:
        values.problems.append(f"extra {way} takes no {', no '.join(map(repr, used))}")
