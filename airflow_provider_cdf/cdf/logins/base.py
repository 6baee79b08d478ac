"""What all kinds of login have in common."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import httpx

from airflow_provider_cdf.cdf.errors import CdfLoginError
from airflow_provider_cdf.cdf.models import SessionType
from airflow_provider_cdf.cdf.transport import NoAnswer

GivenT = TypeVar("GivenT")

log = logging.getLogger(__name__)

#: What an access token is made of: what a header may hold, but for quotes (RFC 6750, section 2.1).
SENDABLE = "[!#-&(-~]+"
#: How many letters of a token are kept out of logs, its end: 256 bits, without which it is worth nothing.
MASKED_END = 43
#: How many tokens of a process are. Airflow keeps them for ever, and builds one pattern of all: each new one
#: takes 0.2 s after 500, and a token may live for five minutes only.
MOST_MASKED = 200

#: What a client does for a login, or for a request with its login: it sends each request that comes out, and
#: gives its answer back, or throws in what went wrong; or it waits until a future is done, at most as long as
#: there is time.
HttpSteps: TypeAlias = Generator[httpx.Request | Future[None], Any, GivenT]


@dataclass(frozen=True)
class GivenToken:
    """
    A token that was given.

    :param lifetime: seconds for which it is used, by what was said when it was given.
    """

    value: str = field(repr=False)
    lifetime: float


#: The tokens of this process that Airflow was told to mask, and those after them.
_masked = 0


class LoginTools:
    """
    What a login may use.

    :param on_secret: told each secret that comes up, so that it can be kept out of logs.
    """

    def __init__(self, on_secret: Callable[[str], None] | None = None) -> None:
        self._on_secret = on_secret
        #: What is under way in a thread, and what came of it. One that hangs is waited for by the next login.
        self._work: tuple[Future[None], list[Any]] | None = None

    def keep_out_of_logs(self, secret: str) -> None:
        """Tell it to Airflow. For what is the same at each login."""
        if self._on_secret is not None:
            self._on_secret(secret)

    def mask_token(self, token: str) -> None:
        """Tell a token to Airflow, unless it has been told so many that it would be slowed down."""
        global _masked
        _masked += 1
        if _masked <= MOST_MASKED:
            self.keep_out_of_logs(token[-MASKED_END:] if len(token) > 2 * MASKED_END else token)
        elif _masked == MOST_MASKED + 1:
            log.info("Airflow masks the first %d access tokens of this process, and no more.", MOST_MASKED)

    def in_thread(self, work: Callable[[], GivenT | CdfLoginError]) -> HttpSteps[GivenT | CdfLoginError]:
        """
        Do what may block (a file, a long calculation, another library) beside the event loop.

        :raises NoAnswer: if it takes longer than there is time. The next login takes its result.
        """
        if self._work is None:
            done: Future[None] = Future()
            came: list[Any] = []

            def do() -> None:
                try:
                    came.append(work())
                except Exception as error:  # it must be heard of; its text and frames may hold anything
                    came.append(CdfLoginError(f"The login failed: unexpected {type(error).__name__}."))
                done.set_result(None)

            self._work = done, came
            threading.Thread(target=do, name="cdf-login", daemon=True).start()
        done, came = self._work
        yield done
        if not done.done():
            raise NoAnswer("the login takes too long", sent=False, is_timeout=True, at_login=True)
        self._work = None
        given: GivenT | CdfLoginError = came.pop()
        return given


class Credentials(ABC):
    """
    How a client logs in. Equal ones share a login.

    Subclasses are frozen dataclasses whose secrets are in no ``repr``.
    """

    @property
    @abstractmethod
    def who(self) -> str:
        """Who logs in, for messages, such as "client 'x'"."""

    @property
    def ids(self) -> str:
        """The client's id for the end of messages, in brackets; nothing where there is none."""
        return ""

    @property
    @abstractmethod
    def where(self) -> str:
        """Where the token comes from, for messages, such as "the token endpoint at login.example.com"."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What a server may have been sent, and may repeat."""
        return ()

    @property
    def session_type(self) -> SessionType:
        """How a run's session is made unless the connection says so: as Cognite's own SDK makes it."""
        return SessionType.TOKEN_EXCHANGE

    @property
    def if_refused(self) -> str:
        """What to check if CDF refuses the token (401), a new one too."""
        return (
            f"A new access token was refused too: has {self.who} access to this project? Look at project, "
            "host, scopes and audience."
        )

    @abstractmethod
    def obtain(self, tools: LoginTools) -> HttpSteps[GivenToken | CdfLoginError]:
        """
        Get a token.

        An error is returned: in the frame of a raise it would lie beside the token.

        :raises NoAnswer: if there was no answer.
        """
