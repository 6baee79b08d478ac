"""
The fields of a connection of type ``cdf``, declared once.

The form of Airflow 3.2+ is made of them (by way of the provider info), the legacy form, and the parser in
:mod:`airflow_provider_cdf.hooks.connection`. Airflow reads this module in every process, so it imports
nothing of the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a field holds, and how a form shows it."""

    TEXT = "text"
    #: Masked in forms. Airflow masks it in logs as well, because of its name.
    SECRET = "secret"  # noqa: S105 - a kind of field
    #: A secret of several lines.
    KEY = "key"
    CHOICE = "choice"
    FLAG = "flag"
    SECONDS = "seconds"


@dataclass(frozen=True)
class Field:
    """
    A field of the connection's ``extra``.

    :param name: its name in ``extra``.
    :param label: its name in the form.
    :param description: what it is for, in one or two sentences below it.
    :param section: where the form shows it; sections are folded.
    :param examples: values that the form suggests. Airflow shows no placeholders for fields of ``extra``.
    :param choices: the values of a :attr:`Kind.CHOICE`.
    :param unset: what the form shows for a choice that was not made.
    :param at_least: the least of :attr:`Kind.SECONDS`.
    :param required: whether the form asks for it.
    :param in_form: whether the form has it; what is not there is still understood.
    """

    name: str
    label: str
    description: str
    section: str
    kind: Kind = Kind.TEXT
    examples: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    unset: str = ""
    at_least: float = 0.0
    required: bool = False
    in_form: bool = True

    def conn_field(self) -> dict[str, Any]:
        """Return the field as Airflow's provider info wants it (``conn-fields``)."""
        types = {Kind.FLAG: ["boolean"], Kind.SECONDS: ["number", "string"]}.get(self.kind, ["string"])
        # Null, because Airflow saves a field that nobody touched as that. A form marks what may not be null.
        schema: dict[str, Any] = {"type": "string" if self.required else [*types, "null"]}
        if self.kind in (Kind.SECRET, Kind.KEY):
            schema["format"] = "password" if self.kind is Kind.SECRET else "multiline"
        if self.choices:
            schema["enum"] = [None, *self.choices]
            schema["values_display"] = {"null": self.unset}
        if self.examples:
            schema["examples"] = list(self.examples)
        schema["section"] = self.section
        return {"label": self.label, "description": self.description, "schema": schema}


PROJECT, LOGIN, REQUESTS = "CDF project (required)", "Login: choose one way", "Requests"

FIELDS = (
    Field(
        "project",
        "Project",
        "Name of the CDF project.",
        PROJECT,
        required=True,
        examples=("my-project",),
    ),
    Field(
        "organization",
        "Organization",
        "Organization in Cognite Fusion, for links only.",
        PROJECT,
        examples=("my-company",),
    ),
    Field(
        "airflow_name",
        "Name of this Airflow",
        "Tells this Airflow from others that share the CDF project, such as staging and production.",
        PROJECT,
        examples=("production", "staging"),
    ),
    Field(
        "tenant_id",
        "Microsoft Entra ID: tenant",
        "First way, with Client ID and Client secret. The tenant's id or domain; token URL and scope follow "
        "from it and the host.",
        LOGIN,
        examples=("00000000-0000-0000-0000-000000000000", "my-company.onmicrosoft.com"),
    ),
    Field(
        "idp",
        "CDF-managed login",
        "Second way: a service account that Cognite itself manages. Its Client ID and Client secret go to "
        "https://auth.cognite.com.",
        LOGIN,
        Kind.CHOICE,
        choices=("cdf",),
        unset="no",
    ),
    Field(
        "login_url",
        "Another identity provider: token endpoint",
        "Third way, for Auth0, Cognito, Keycloak and others: the URL of the OAuth 2.0 token endpoint.",
        LOGIN,
        examples=("https://my-company.eu.auth0.com/oauth/token",),
    ),
    Field(
        # Airflow masks its value everywhere because of its name, so the form has `login_url` instead.
        "token_url",
        "Token URL",
        "The older name of login_url.",
        LOGIN,
        in_form=False,
    ),
    Field(
        "token",
        "Access token",
        "Fourth way, for a try: a ready access token, without Client ID and secret. It ends, most often "
        "within the hour.",
        LOGIN,
        Kind.SECRET,
    ),
    Field(
        "login_file",
        "File with an access token",
        "Fifth way: the path of a file on workers and triggerer that something else keeps fresh. It is read "
        "again and again.",
        LOGIN,
        examples=("/var/run/secrets/cdf/access-token",),
    ),
    Field(
        "auth_method",
        "How the client proves itself",
        "With its secret in the form (most providers) or in the header; with a signed assertion "
        "(certificates); or as the Azure identity of this machine (sixth way; tenant and Client ID may stay "
        "empty).",
        LOGIN,
        Kind.CHOICE,
        choices=("client_secret_post", "client_secret_basic", "private_key_jwt", "azure_identity"),
        unset="client_secret_post",
    ),
    Field(
        "scopes",
        "Scopes",
        "OAuth scopes, separated by blanks. With Entra ID: https://<cluster>.cognitedata.com/.default.",
        LOGIN,
        examples=("https://westeurope-1.cognitedata.com/.default",),
    ),
    Field(
        "audience",
        "Audience",
        "OAuth audience, where the identity provider wants one (Auth0, Cognito).",
        LOGIN,
        examples=("https://westeurope-1.cognitedata.com",),
    ),
    Field(
        "private_key",
        "Private key",
        "For private_key_jwt, instead of a Client secret: a PEM, or the path of one. Only a signature leaves "
        "this machine.",
        LOGIN,
        Kind.KEY,
    ),
    Field(
        "certificate_thumbprint",
        "Certificate thumbprint",
        "For private_key_jwt with Entra ID: as Entra shows it (SHA-1, 40 hex digits), or of SHA-256 (64).",
        LOGIN,
        examples=("A1B2C3D4E5F60718293A4B5C6D7E8F9001122334",),
    ),
    Field(
        "session_type",
        "Session of a run",
        "How CDF acts for this client while a workflow runs. By default with the client's secret where there "
        "is one.",
        LOGIN,
        Kind.CHOICE,
        choices=("client_credentials", "token_exchange", "oneshot_token_exchange"),
        unset="as the login needs it",
    ),
    Field(
        "verify",
        "CA bundle",
        "File or directory of the CA certificates that servers are checked with, instead of the usual ones.",
        REQUESTS,
        examples=("/etc/ssl/certs/company-ca.pem",),
    ),
    Field(
        "request_timeout",
        "Request timeout",
        "Seconds for one request as a whole, with the login that it may need. Default: 30.",
        REQUESTS,
        Kind.SECONDS,
        at_least=0.001,
    ),
    Field(
        "retry_for",
        "Retry for",
        "Seconds within which a failed request is repeated; 0 for never. Default: 60.",
        REQUESTS,
        Kind.SECONDS,
    ),
    Field(
        "allow_http",
        "Allow plain HTTP",
        "Send credentials over unencrypted http to a host that is not this machine.",
        REQUESTS,
        Kind.FLAG,
    ),
)

#: What the form of Airflow 3.2+ is made of, beside the fields that every connection has.
EXTRA_FIELDS: dict[str, dict[str, Any]] = {
    field.name: field.conn_field() for field in FIELDS if field.in_form
}

#: How the fields that every connection has are shown.
UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema"],
    "relabeling": {
        "host": "CDF base URL or cluster",
        "login": "Client ID",
        "password": "Client secret",
        # Airflow 3.3.2 sends a port that is not set as 0, and refuses that.
        "port": "Port (set it to 443, or Test fails in Airflow 3.3)",
    },
    "placeholders": {
        "host": "https://westeurope-1.cognitedata.com",
        "login": "Empty with an access token",
        "password": "Empty with an access token or a private key",
        "port": "443",
    },
}
