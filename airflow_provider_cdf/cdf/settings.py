"""Where CDF is, and who asks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from airflow_provider_cdf.cdf.errors import CdfInputError
from airflow_provider_cdf.cdf.logins.base import Credentials
from airflow_provider_cdf.cdf.models import SessionType
from airflow_provider_cdf.cdf.retry import RETRY_FOR

#: Seconds for one request as a whole. CDF's own SDK waits for 60 s at most.
REQUEST_TIMEOUT = 30.0


class Source(Protocol):
    """Where settings come from. They are read again where a secret may have been renewed."""

    def read_settings(self) -> Settings:
        """Read them. :raises CdfError: if that is not possible now."""

    async def aread_settings(self) -> Settings:
        """Do what :meth:`read_settings` does, for coroutines."""


@dataclass(frozen=True)
class Settings:
    """
    Where CDF is, and who asks.

    :param base_url: such as ``https://westeurope-1.cognitedata.com``, without a trailing slash.
    :param label: what error messages call these settings, such as "Airflow connection 'cdf_default'".
    :param credentials: how to log in.
    :param on_token: told each new access token, so that it can be kept out of logs.
    :param retry_for: seconds within which a failed request is repeated, where that does no harm; 0 for never.
    :param airflow_name: tells this Airflow from others that share the project.
    :param request_timeout: seconds for one request as a whole, with the login that it may need. Only the
        operating system's resolution of a host name is not counted, in :class:`CdfClient`.
    :param ca_bundle: file or directory of the certificates that are trusted instead of the usual ones.
    :param session_type: how a run's session is made; by default as the login needs it.
    :param source: is asked for other credentials, once, after a login that was refused.
    :raises CdfInputError: if one of these times is no finite number of seconds.
    """

    base_url: str
    project: str
    credentials: Credentials
    label: str = "these settings"
    on_token: Callable[[str], None] | None = None
    retry_for: float = RETRY_FOR
    request_timeout: float = REQUEST_TIMEOUT
    airflow_name: str | None = None
    ca_bundle: str | None = None
    session_type: SessionType | None = None
    source: Source | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        # NaN and infinity compare in ways that would repeat a request for ever.
        if not (math.isfinite(self.request_timeout) and self.request_timeout > 0):
            raise CdfInputError(f"request_timeout must be seconds above 0, not {self.request_timeout!r}.")
        if not (math.isfinite(self.retry_for) and self.retry_for >= 0):
            raise CdfInputError(f"retry_for must be seconds, 0 for never, not {self.retry_for!r}.")
