"""
Sessions: what a workflow runs with. Their nonces work once and live for a minute.

https://api-docs.cognite.com/20230101/tag/Sessions
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from airflow_provider_cdf.emulator.rules.errors import InvalidRequestError

_NONCE_LIFETIME_MS = 60_000
#: Users report that a project can have 10 000; here the oldest are forgotten instead of new ones refused.
_MAX_SESSIONS = 10_000
#: How long a session lasts: not documented for the first two, about as long as a token for the last one.
_SESSION_LIFETIME_MS = {
    "CLIENT_CREDENTIALS": 365 * 24 * 3_600_000,
    "TOKEN_EXCHANGE": 365 * 24 * 3_600_000,
    "ONESHOT_TOKEN_EXCHANGE": 3_600_000,
}


@dataclass(slots=True)
class Session:
    id: int
    type: str
    nonce: str | None
    creation_time: int
    expiration_time: int
    client_id: str | None
    used: bool = False
    revoked: bool = False


class Sessions:
    """
    The sessions of the project.

    :param now: the time of clients, in milliseconds since 1970
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._sessions: dict[int, Session] = {}
        self._by_nonce: dict[str, Session] = {}
        self._ids = itertools.count(secrets.randbelow(10**9) * 1000 + 1)

    def create(self, session_type: str, client_id: str | None = None) -> Session:
        """
        Make a session with a nonce.

        :param session_type: CLIENT_CREDENTIALS, TOKEN_EXCHANGE or ONESHOT_TOKEN_EXCHANGE
        :param client_id: of the client whose credentials it has
        """
        now = self._now()
        session = Session(
            id=next(self._ids),
            type=session_type,
            nonce=secrets.token_urlsafe(12),
            creation_time=now,
            expiration_time=now + _SESSION_LIFETIME_MS[session_type],
            client_id=client_id,
        )
        assert session.nonce is not None  # noqa: S101 - for the type checker
        self._sessions[session.id] = session
        self._by_nonce[session.nonce] = session
        if len(self._sessions) > _MAX_SESSIONS:
            oldest = self._sessions.pop(next(iter(self._sessions)))
            self._by_nonce.pop(oldest.nonce or "", None)
        return session

    def use(self, nonce: str) -> Session:
        """
        Use a nonce up.

        :param nonce: of a session
        :raises InvalidRequestError: if it is unknown, older than a minute, or was used before
        """
        session = self._by_nonce.pop(nonce, None)
        if session is None:
            raise InvalidRequestError(
                "authentication.nonce: the nonce is unknown or was used before; each works once."
            )
        session.nonce = None
        if self._now() > session.creation_time + _NONCE_LIFETIME_MS:
            raise InvalidRequestError("authentication.nonce: the nonce has expired; it lives for one minute.")
        if session.revoked:
            raise InvalidRequestError(f"authentication.nonce: session {session.id} was revoked.")
        session.used = True
        return session

    def status(self, session: Session) -> str:
        """The session's status as the API names it."""
        if session.revoked:
            return "REVOKED"
        if self._now() > session.expiration_time:
            return "EXPIRED"
        if session.used:
            return "ACTIVE"
        # A session whose nonce nobody used in time can never become active.
        return "READY" if self._now() <= session.creation_time + _NONCE_LIFETIME_MS else "EXPIRED"

    def all(self) -> Iterable[Session]:
        return self._sessions.values()

    def by_ids(self, ids: Iterable[int]) -> list[Session]:
        """
        :param ids: of sessions
        :raises InvalidRequestError: naming those that do not exist
        """
        wanted = list(ids)
        if unknown := [session_id for session_id in wanted if session_id not in self._sessions]:
            raise InvalidRequestError(
                f"Sessions not found: {', '.join(map(str, unknown))}",
                missing=[{"id": str(session_id)} for session_id in unknown],
            )
        return [self._sessions[session_id] for session_id in wanted]

    def revoke(self, ids: Iterable[int]) -> list[Session]:
        """Revoke sessions; those that are revoked already stay so."""
        sessions = self.by_ids(ids)
        for session in sessions:
            session.revoked = True
        return sessions
