"""Errors as the API answers them: a status, and CDF's error envelope."""

from __future__ import annotations

from airflow_provider_cdf.emulator.api.http import JsonAnswer, error_answer
from airflow_provider_cdf.emulator.rules.errors import CdfError, NotFoundError


class UnauthorizedError(CdfError):
    """No token, or one that is unknown or expired."""


class ForbiddenError(CdfError):
    """The token is good, but not for this project."""


#: A refusal for any other reason is 400.
_STATUS: dict[type[CdfError], int] = {UnauthorizedError: 401, ForbiddenError: 403, NotFoundError: 404}


def refusal(error: CdfError) -> JsonAnswer:
    """
    The answer to a request that CDF refuses.

    :param error: why it does
    """
    return error_answer(status_of(error), error.message, error.missing)


def status_of(error: CdfError) -> int:
    """
    The HTTP status of a refusal.

    :param error: why CDF refuses
    """
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 400)
