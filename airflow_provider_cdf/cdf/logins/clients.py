"""
The client credentials grant (RFC 6749, section 4.4): a client proves itself at a token endpoint.

With its secret in the form or in the header, or with an assertion that it signs (RFC 7523).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_plus

import httpx

from airflow_provider_cdf.cdf.errors import CdfLoginError
from airflow_provider_cdf.cdf.logins.answers import read_token
from airflow_provider_cdf.cdf.logins.base import Credentials, GivenToken, HttpSteps, LoginTools
from airflow_provider_cdf.cdf.logins.keys import SigningKey
from airflow_provider_cdf.cdf.models import SessionType

#: Cognite's own identity provider, for projects with CDF-managed logins.
COGNITE_TOKEN_URL = "https://auth.cognite.com/oauth2/token"  # noqa: S105 - an address
#: The type of an assertion that is a JSON web token: RFC 7523, section 2.2.
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True)
class _Client(Credentials):
    token_url: str
    client_id: str

    @property
    def who(self) -> str:
        return f"client {self.client_id!r}"

    @property
    def ids(self) -> str:
        return f"[client {self.client_id!r}]"

    @property
    def where(self) -> str:
        # Without the scheme: Airflow takes a connection's `token_url` for a secret, because of its name, and
        # would print `***` for all of it.
        url = httpx.URL(self.token_url)
        return f"the token endpoint at {url.netloc.decode()}{url.path}"

    def _request(
        self, form: Mapping[str, str | None], headers: Mapping[str, str] | None = None
    ) -> httpx.Request:
        form = {"grant_type": "client_credentials", **form}
        return httpx.Request(
            "POST",
            self.token_url,
            data={name: value for name, value in form.items() if value},
            headers={"Accept": "application/json", "Accept-Encoding": "gzip", **(headers or {})},
        )


@dataclass(frozen=True)
class ClientCredentials(_Client):
    """
    A client and its secret.

    :param scope: scopes separated by blanks.
    :param audience: sent only where the provider wants one.
    :param in_header: send the secret by HTTP Basic (``client_secret_basic``) instead of in the form
        (``client_secret_post``).
    """

    client_secret: str = field(repr=False)
    scope: str | None = None
    audience: str | None = None
    in_header: bool = False

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.client_secret,)

    @property
    def session_type(self) -> SessionType:
        return SessionType.CLIENT_CREDENTIALS

    def obtain(self, tools: LoginTools) -> HttpSteps[GivenToken | CdfLoginError]:
        form = {"scope": self.scope, "audience": self.audience}
        if self.in_header:
            # Both are encoded as in a form before: RFC 6749, section 2.3.1.
            pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
            encoded = base64.b64encode(pair.encode()).decode()
            request = self._request(form, {"Authorization": f"Basic {encoded}"})
        else:
            request = self._request(
                {"client_id": self.client_id, "client_secret": self.client_secret, **form}
            )
        return read_token((yield request), self.where, self.secrets)


@dataclass(frozen=True)
class ClientAssertion(_Client):
    """
    A client that signs an assertion with its private key (``private_key_jwt``).

    :param key: what it signs with; it never leaves this machine.
    :param scope: scopes separated by blanks.
    :param audience: sent only where the provider wants one.
    """

    key: SigningKey
    scope: str | None = None
    audience: str | None = None

    @property
    def session_type(self) -> SessionType:
        # Cognite's SDK makes none for a certificate: there is no secret to give, and Entra ID does not
        # exchange the token of an application.
        return SessionType.ONESHOT_TOKEN_EXCHANGE

    def obtain(self, tools: LoginTools) -> HttpSteps[GivenToken | CdfLoginError]:
        for line in self.key.lines:
            tools.keep_out_of_logs(line)
        # Reading the key takes up to a tenth of a second.
        signed = yield from tools.in_thread(lambda: self.key.sign(self.client_id, self.token_url))
        if isinstance(signed, CdfLoginError):
            return signed
        # It is not masked: it is used once, at once, and each one is another text.
        request = self._request(
            {
                "client_id": self.client_id,
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": signed,
                "scope": self.scope,
                "audience": self.audience,
            }
        )
        return read_token((yield request), self.where, [signed])
