"""The identity provider beside CDF: checks client id and secret, issues tokens that expire."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_cdf.emulator.api.errors import ForbiddenError, UnauthorizedError


@dataclass(frozen=True, slots=True)
class Token:
    subject: str
    expires: int


class Tokens:
    """
    :param client_id: the only client
    :param client_secret: its secret
    :param project: the only project that it has access to
    :param lifetime: of a token, in seconds
    :param now: the time of clients, in milliseconds since 1970
    """

    def __init__(
        self, client_id: str, client_secret: str, project: str, lifetime: int, now: Callable[[], int]
    ) -> None:
        self.client_id = client_id
        self.project = project
        self.lifetime = lifetime
        self._secret = client_secret
        self._now = now
        self._tokens: dict[str, Token] = {}

    def knows(self, client_id: str, client_secret: str) -> bool:
        """Whether these are the credentials of the client."""
        same_id = hmac.compare_digest(client_id.encode(errors="replace"), self.client_id.encode())
        same_secret = hmac.compare_digest(client_secret.encode(errors="replace"), self._secret.encode())
        return same_id and same_secret

    def issue(self) -> str:
        """A new access token."""
        now = self._now()
        self._tokens = {value: token for value, token in self._tokens.items() if token.expires > now}
        value = secrets.token_urlsafe(32)
        self._tokens[value] = Token(self.client_id, now + self.lifetime * 1000)
        return value

    def expire_all(self) -> None:
        """Make every token that was issued invalid, as an identity provider that was restarted does."""
        self._tokens.clear()

    def check(self, authorization: str | None) -> Token:
        """
        :param authorization: the request's header
        :raises UnauthorizedError: unless it has a token that is still good
        """
        scheme, _, value = (authorization or "").partition(" ")
        token = self._tokens.get(value.strip()) if scheme.lower() == "bearer" else None
        if token is None or token.expires <= self._now():
            raise UnauthorizedError("Unauthorized")
        return token

    def check_project(self, authorization: str | None, project: str) -> Token:
        """
        :param authorization: the request's header
        :param project: that the request is for
        :raises ForbiddenError: if the token is good, but not for this project
        """
        token = self.check(authorization)
        if project != self.project:
            raise ForbiddenError(f"The token has no access to project '{project}'.")
        return token
