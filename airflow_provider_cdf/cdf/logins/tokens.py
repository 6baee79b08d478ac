"""A ready access token: in the connection, or in a file that something else keeps fresh."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from airflow_provider_cdf.cdf.errors import CdfLoginError
from airflow_provider_cdf.cdf.logins.base import Credentials, GivenToken, HttpSteps, LoginTools
from airflow_provider_cdf.cdf.logins.keys import file_named, read_file, secrets_instead_of

#: A token from a file is used for this long before the file is read again, seconds.
FILE_LIFETIME = 60.0


def without_bearer(text: str) -> str:
    """Return a token without the word that a header has before it, and that is often copied with it."""
    return re.sub(r"^bearer\s+", "", text.strip(), flags=re.IGNORECASE)


@dataclass(frozen=True)
class StaticToken(Credentials):
    """A token that is used until CDF refuses it."""

    token: str = field(repr=False)

    @property
    def who(self) -> str:
        return "the access token"

    @property
    def where(self) -> str:
        return "the connection"

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.token,)

    @property
    def if_refused(self) -> str:
        return "The access token has expired, or is not for this project. Put a new one into extra 'token'."

    def obtain(self, tools: LoginTools) -> HttpSteps[GivenToken | CdfLoginError]:
        return GivenToken(self.token, math.inf)
        yield  # a generator, as the others are


@dataclass(frozen=True)
class TokenFile(Credentials):
    """
    A token in a file, read again at each refresh.

    :param path: on each machine that logs in; it may change at any time.
    """

    path: str = field(repr=False)

    @property
    def who(self) -> str:
        return f"the access token in {self.where}"

    @property
    def where(self) -> str:
        return file_named(self.path)

    @property
    def if_refused(self) -> str:
        return f"It is that in {self.where}: has what writes it stopped, or is it not for this project?"

    def obtain(self, tools: LoginTools) -> HttpSteps[GivenToken | CdfLoginError]:
        for secret in secrets_instead_of(self.path):
            tools.keep_out_of_logs(secret)
        # In a thread, because the file may be on a slow disk of the network.
        given = yield from tools.in_thread(self._read)
        return given

    def _read(self) -> GivenToken | CdfLoginError:
        text = read_file(self.path, "access token")
        if isinstance(text, CdfLoginError):
            return text
        return GivenToken(without_bearer(text), FILE_LIFETIME)
