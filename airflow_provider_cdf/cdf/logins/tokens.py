"""A ready access token: in the connection, or in a file that something else keeps fresh."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_cdf.cdf.errors import CdfLoginError
from airflow_provider_cdf.cdf.logins.base import Aid, Credentials, GivenToken, LoginSteps
from airflow_provider_cdf.cdf.logins.keys import read_file

#: A token from a file is used for this long before the file is read again, seconds.
FILE_LIFETIME = 60.0


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

    def obtain(self, aid: Aid) -> LoginSteps[GivenToken | CdfLoginError]:
        return GivenToken(self.token, math.inf)
        yield  # a generator, as the others are


@dataclass(frozen=True)
class TokenFile(Credentials):
    """
    A token in a file, read again at each refresh.

    :param path: on each machine that logs in; it may change at any time.
    """

    path: str

    @property
    def who(self) -> str:
        return f"the access token in file {Path(self.path).name!r}"

    @property
    def where(self) -> str:
        return f"file {Path(self.path).name!r}"

    @property
    def if_refused(self) -> str:
        return f"It is that in {self.where}: has what writes it stopped, or is it not for this project?"

    def obtain(self, aid: Aid) -> LoginSteps[GivenToken | CdfLoginError]:
        # In a thread, because the file may be on a slow disk of the network.
        given = yield from aid.in_thread(self._read)
        return given

    def _read(self) -> GivenToken | CdfLoginError:
        text = read_file(self.path, "access token")
        if isinstance(text, CdfLoginError):
            return text
        if not text.strip():
            return CdfLoginError(f"The file with the access token is empty. It is {Path(self.path).name!r}.")
        return GivenToken(text.strip(), FILE_LIFETIME)
