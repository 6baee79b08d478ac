"""
Logging in to CDF: OAuth 2.0 client credentials as an httpx auth flow.

CDF accepts access tokens of the project's identity provider. The client secret goes to the token URL only.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

import httpx

from airflow_provider_cdf.cdf.errors import CdfLoginError
from airflow_provider_cdf.cdf.retry import is_transient_status, read_retry_after

#: Cognite's own identity provider, for projects with CDF-managed logins.
COGNITE_TOKEN_URL = "https://auth.cognite.com/oauth2/token"  # noqa: S105 - an address
#: A token is renewed this many seconds before its end, so that it does not expire on its way to CDF.
RENEW_BEFORE_END = 30.0
#: RFC 6749 lets a provider keep the lifetime to itself. A 401 would renew the token earlier.
UNSTATED_LIFETIME = 300.0
#: Marks the token request among the requests that an error can come from.
LOGIN_EXTENSION = "airflow_provider_cdf.login"
#: How often a thread or coroutine looks whether somebody else's token request has been answered, seconds.
LOOK_AGAIN = 0.02
#: Seconds after which the looking ends in an error. A token request itself gives up much earlier.
LONGEST_WAIT = 120.0


@dataclass(frozen=True)
class ClientCredentials:
    """
    What the identity provider needs to know to give a token.

    :param scope: scopes separated by spaces.
    :param audience: sent only where the provider wants one.
    """

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = None
    audience: str | None = None

    @property
    def login_host(self) -> str:
        """
        The identity provider's host, for messages.

        Not the whole URL: Airflow takes a connection's ``token_url`` for a secret, because of its name, and
        would print ``***``.
        """
        return httpx.URL(self.token_url).netloc.decode()

    def without_secret(self, words: str) -> str:
        """Return what a server said as one short line, without the secret should it have repeated that."""
        secret = self.client_secret
        for form in (secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]):
            words = words.replace(form, "***")
        printable = "".join(character if character.isprintable() else " " for character in words)
        return " ".join(printable.split())[:300]


@dataclass(frozen=True)
class _Token:
    value: str = field(repr=False)
    #: On ``time.monotonic()``: the wall clock of a machine may jump.
    renew_at: float

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() < self.renew_at


class ClientCredentialsAuth(httpx.Auth):
    """
    Put a bearer token on each request; fetch it when there is none, and once more after a 401.

    One generator, :meth:`auth_flow`, is the whole login for both of httpx's clients. However many threads
    and event loops share this object, one of them fetches the token and the others wait for it. Waiting is
    a short sleep between looks instead of a lock to block on, because no lock of the standard library can be
    waited for from threads and from coroutines alike, and survive the cancellation of a waiting coroutine.
    """

    def __init__(self, credentials: ClientCredentials, on_token: Callable[[str], None] | None = None) -> None:
        self.credentials = credentials
        self._on_token = on_token
        self._token: _Token | None = None
        self._fetching = threading.Lock()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request | None, httpx.Response, None]:  # type: ignore[override]
        """
        Yield what to send next, or ``None`` for "somebody else fetches the token, look again shortly".

        :raises CdfLoginError: if the identity provider does not give a usable token.
        """
        token = yield from self._fresh_token(request)
        request.headers["Authorization"] = f"Bearer {token.value}"
        response = yield request
        if response.status_code != 401:
            return
        # The token may have been revoked, or this machine's clock runs slow: a new one settles it.
        if self._token is token:
            self._token = None
        token = yield from self._fresh_token(request)
        request.headers["Authorization"] = f"Bearer {token.value}"
        yield request

    def _fresh_token(self, request: httpx.Request) -> Generator[httpx.Request | None, httpx.Response, _Token]:
        give_up_at = time.monotonic() + LONGEST_WAIT
        while True:
            token = self._token
            if token is not None and token.is_fresh:
                return token
            if not self._fetching.acquire(blocking=False):
                if time.monotonic() > give_up_at:
                    raise CdfLoginError(
                        f"Waited {LONGEST_WAIT:.0f} s in vain for the token that another thread of this "
                        f"process is fetching from {self.credentials.login_host}.",
                        is_transient=True,
                    )
                yield None
                continue
            # Released also where the client closes this generator: a failed or cancelled token request.
            try:
                if self._token is not token:
                    continue  # fetched between our look and our turn
                response = yield self._token_request(request)
                fetched = self._read_token(response)
                if self._on_token is not None:
                    self._on_token(fetched.value)
                self._token = fetched
                return fetched
            finally:
                self._fetching.release()

    def _token_request(self, request: httpx.Request) -> httpx.Request:
        form = {
            "grant_type": "client_credentials",
            "client_id": self.credentials.client_id,
            "client_secret": self.credentials.client_secret,
            "scope": self.credentials.scope,
            "audience": self.credentials.audience,
        }
        return httpx.Request(
            "POST",
            self.credentials.token_url,
            data={name: value for name, value in form.items() if value},
            headers={"Accept": "application/json"},
            # The client gives its timeouts to the requests that it builds, and this is none of them.
            extensions={**request.extensions, LOGIN_EXTENSION: True},
        )

    def _read_token(self, response: httpx.Response) -> _Token:
        where = f"The token endpoint at {self.credentials.login_host}"
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise CdfLoginError(
                f"{where} answered HTTP {response.status_code} with something that is not a JSON object. "
                "Is the token URL right?",
                is_transient=is_transient_status(response.status_code),
                retry_after=read_retry_after(response.headers),
            )
        if not response.is_success:
            words = ": ".join(str(answer[key]) for key in ("error", "error_description") if answer.get(key))
            reason = self.credentials.without_secret(words).rstrip(".") or "no reason given"
            raise CdfLoginError(
                f"{where} gave no token to client {self.credentials.client_id!r} "
                f"(HTTP {response.status_code}): {reason}.",
                is_transient=is_transient_status(response.status_code),
                retry_after=read_retry_after(response.headers),
            )
        value = answer.get("access_token")
        try:
            seconds = float(answer["expires_in"])
        except (KeyError, TypeError, ValueError):
            seconds = UNSTATED_LIFETIME
        # What is no header value would come back in the HTTP library's message.
        if not isinstance(value, str) or not re.fullmatch("[!-~]+", value):
            raise CdfLoginError(
                f"{where} answered HTTP {response.status_code} without an access_token that can be sent."
            )
        # A token that lives for less than a minute is renewed at half its life, not at once.
        return _Token(value, time.monotonic() + max(seconds - RENEW_BEFORE_END, seconds / 2))

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Drive :meth:`auth_flow` for ``httpx.Client``."""
        flow = self.auth_flow(request)
        try:
            step = next(flow)
            while True:
                if step is None:
                    time.sleep(LOOK_AGAIN)
                    step = next(flow)
                else:
                    response = yield step
                    response.read()
                    step = flow.send(response)
        except StopIteration:
            return
        finally:
            flow.close()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Drive :meth:`auth_flow` for ``httpx.AsyncClient``."""
        flow = self.auth_flow(request)
        try:
            step = next(flow)
            while True:
                if step is None:
                    await asyncio.sleep(LOOK_AGAIN)
                    step = next(flow)
                else:
                    response = yield step
                    await response.aread()
                    step = flow.send(response)
        except StopIteration:
            return
        finally:
            flow.close()


_shared: dict[ClientCredentials, ClientCredentialsAuth] = {}
_shared_lock = threading.Lock()


def _start_over_after_fork() -> None:
    # Airflow forks its task processes. A lock that another thread held at that moment is never released in
    # the child.
    global _shared_lock
    _shared_lock = threading.Lock()
    _shared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over_after_fork)


def shared_auth(
    credentials: ClientCredentials, on_token: Callable[[str], None] | None = None
) -> ClientCredentialsAuth:
    """
    Return this process's login for these credentials, so that all hooks and triggers use one token.

    :param on_token: told each token that is fetched; the first caller's counts.
    """
    with _shared_lock:
        return _shared.setdefault(credentials, ClientCredentialsAuth(credentials, on_token))
