"""
The session that a run acts under: made the way Cognite's own SDK makes it for the login, and given back.

https://api-docs.cognite.com/20230101/tag/Sessions
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from functools import partial

from airflow_provider_cdf.cdf import calls
from airflow_provider_cdf.cdf.errors import CdfApiError, CdfConnectionError, CdfError, CdfSessionError
from airflow_provider_cdf.cdf.logins.clients import ClientCredentials
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.cdf.models import Session, SessionList, SessionType
from airflow_provider_cdf.cdf.retry import is_ambiguous
from airflow_provider_cdf.cdf.settings import Settings
from airflow_provider_cdf.cdf.steps import Conversation

log = logging.getLogger(__name__)

#: The settings, by their labels, of which a warning has been logged in this process.
_warned: set[str] = set()


def open_session(settings: Settings, purpose: str) -> Conversation[Session]:
    """
    Make a session, whose nonce lives about a minute.

    :param purpose: completes "a session to ..." in error messages.
    :raises CdfSessionError: if it is not known whether there is one: what it was for was not sent.
    :raises CdfError: if CDF has refused it, or was not reached.
    """
    session_type = settings.session_type or settings.credentials.session_type
    _warn_of_its_end(settings, session_type)
    try:
        sessions: SessionList = yield _request(settings, purpose)
    except CdfError as error:
        if is_ambiguous(error):  # about a session, which nothing uses
            failed = CdfSessionError(str(error))
            failed.retry_after = error.retry_after
            raise failed from None
        if not isinstance(error, CdfApiError):
            raise
        if re.search(r"\d+ sessions", error.cdf_message):
            # Not CdfRefusedError: sessions end, so a retry may find room.
            raise CdfApiError(
                told(
                    error,
                    "The project has no room for another session. An administrator can revoke those of "
                    "executions that have ended.",
                ),
                code=error.code,
                cdf_message=error.cdf_message,
                request_id=error.request_id,
            ) from None
        if session_type is SessionType.TOKEN_EXCHANGE and error.code == 400:
            error.adding(
                "Not every identity provider exchanges a token (Entra ID not that of an application): then "
                "set extra 'session_type' to 'oneshot_token_exchange', for runs of less than an hour."
            )
        raise
    return sessions.items[0]


def revoke(settings: Settings, session: Session) -> Conversation[None]:
    """Give back a session whose nonce is dead and has started nothing: a project has room for 10 000."""
    if session.id is None:
        return
    try:
        yield calls.revoke_session(settings.project, session.id)
    except CdfError as error:
        log.info("An unused session could not be revoked: %s", error)


def _request(settings: Settings, purpose: str) -> calls.Call[SessionList]:
    return replace(_request_by(settings, purpose), anew=partial(_request_by, purpose=purpose))


def _request_by(settings: Settings, purpose: str) -> calls.Call[SessionList]:
    session_type = settings.session_type or settings.credentials.session_type
    if session_type is not SessionType.CLIENT_CREDENTIALS:
        return calls.create_session(settings.project, what_for=purpose, session_type=session_type)
    if isinstance(settings.credentials, ClientCredentials):
        return calls.create_session(
            settings.project,
            what_for=purpose,
            client_id=settings.credentials.client_id,
            client_secret=settings.credentials.client_secret,
        )
    raise CdfConnectionError(
        f"A session of type client_credentials needs a client secret. {settings.label} has none. "
        "Nothing was sent to CDF."
    )


def _warn_of_its_end(settings: Settings, session_type: SessionType) -> None:
    if session_type is SessionType.ONESHOT_TOKEN_EXCHANGE and settings.label not in _warned:
        _warned.add(settings.label)
        log.warning(
            "Runs have about an hour, by %s: their session is a one-shot token exchange, which CDF does not "
            "renew. What still runs then loses its access. With a client secret it would be renewed.",
            settings.label,
        )
