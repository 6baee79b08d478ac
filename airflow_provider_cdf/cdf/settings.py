"""Where CDF is, and who asks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_cdf.cdf.auth import ClientCredentials
from airflow_provider_cdf.cdf.errors import CdfInputError
from airflow_provider_cdf.cdf.retry import RETRY_FOR

#: Seconds for one request as a whole. CDF's own SDK waits for 60 s at most.
REQUEST_TIMEOUT = 30.0


@dataclass(frozen=True)
class Settings:
    """
    Where CDF is, and who asks.

    :param base_url: such as ``https://westeurope-1.cognitedata.com``, without a trailing slash.
    :param label: what error messages call these settings, such as "Airflow connection 'cdf_default'".
    :param on_token: told each new access token, so that it can be kept out of logs.
    :param retry_for: seconds within which a failed request is repeated, where that does no harm; 0 for never.
    :param airflow_name: tells this Airflow from others that share the project.
    :param request_timeout: seconds for one request as a whole, with the login that it may need. Only the
        operating system's resolution of a host name is not counted, in :class:`CdfClient`.
    :param ca_bundle: file or directory of the certificates that are trusted instead of the usual ones.
    :raises CdfInputError: if one of these times is no finite number of seconds.
    """

    base_url: str
    project: str
    credentials: ClientCredentials
    label: str = "these settings"
    on_token: Callable[[str], None] | None = None
    retry_for: float = RETRY_FOR
    request_timeout: float = REQUEST_TIMEOUT
    airflow_name: str | None = None
    ca_bundle: str | None = None

    def __post_init__(self) -> None:
        # NaN and infinity compare in ways that would repeat a request for ever.
        if not (math.isfinite(self.request_timeout) and self.request_timeout > 0):
            raise CdfInputError(f"request_timeout must be seconds above 0, not {self.request_timeout!r}.")
        if not (math.isfinite(self.retry_for) and self.retry_for >= 0):
            raise CdfInputError(f"retry_for must be seconds, 0 for never, not {self.retry_for!r}.")
