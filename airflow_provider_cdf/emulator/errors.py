"""What the emulated CDF refuses. The HTTP layer turns each into an answer in CDF's error envelope."""

from __future__ import annotations


class CdfError(Exception):
    """
    A request that CDF refuses.

    :param message: what was refused and why, as the ``message`` of CDF's error envelope
    :param missing: the identifiers that do not exist, for the envelope's ``missing``
    """

    code = 400

    def __init__(self, message: str, *, missing: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.missing = missing


class InvalidRequestError(CdfError):
    """The request is malformed, or does not fit the state of what it asks for."""


class UnauthorizedError(CdfError):
    """No token, or one that is unknown or expired."""

    code = 401


class ForbiddenError(CdfError):
    """The token is good, but not for this project."""

    code = 403


class NotFoundError(CdfError):
    """What the request names does not exist."""

    code = 404
