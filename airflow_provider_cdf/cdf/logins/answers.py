"""What a token endpoint says: a token, or why there is none, in plain words (RFC 6749, section 5)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from airflow_provider_cdf.cdf.errors import CdfLoginError
from airflow_provider_cdf.cdf.foreign import without_secrets
from airflow_provider_cdf.cdf.logins.base import GivenToken
from airflow_provider_cdf.cdf.proxies import proxy_secrets
from airflow_provider_cdf.cdf.statuses import is_transient_status
from airflow_provider_cdf.cdf.transport import Answer

#: RFC 6749 lets a provider keep the lifetime to itself, and some say nonsense. A 401 would renew it earlier.
UNSTATED_LIFETIME = 300.0
#: A token that is to live for less is used for so long all the same, seconds: no login for each request.
SHORTEST_LIFETIME = 5.0

#: What is wrong, and what to check, by Microsoft Entra's own number of an error:
#: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_ENTRA = {
    "7000215": (
        "The client secret is wrong",
        "The password must be the secret's value, not its id, and of this client (in Entra: App "
        "registrations, Certificates & secrets).",
    ),
    "7000222": (
        "The client secret has expired",
        "Make a new one in Entra (App registrations, Certificates & secrets), and put its value into the "
        "password.",
    ),
    "90002": (
        "Entra ID does not know the tenant",
        "Extra 'tenant_id' must be the id or a domain of the tenant that the CDF project trusts.",
    ),
    "700016": (
        "The tenant does not know the client",
        "The login must be the Application (client) id of an app that is registered in extra 'tenant_id'.",
    ),
    **dict.fromkeys(
        ("1002012", "70011", "500011"),
        (
            "The scope is wrong",
            "With Entra ID it is https://<cluster>.cognitedata.com/.default: look at the host and at extra "
            "'scopes'.",
        ),
    ),
    "700027": (
        "Entra ID does not accept the client's signature",
        "The certificate must be valid, registered for this client, and that of extras 'private_key' and "
        "'certificate_thumbprint'.",
    ),
}
#: The same by the errors that all providers have.
_OAUTH = {
    "invalid_client": (
        "The identity provider does not accept the client",
        "Look at the client id, at its secret or key, and at extra 'auth_method'.",
    ),
    "invalid_scope": ("The scope is wrong", "Look at extra 'scopes'."),
    "unauthorized_client": (
        "The client may not log in this way",
        "It must be allowed the client credentials grant at the identity provider.",
    ),
    "unsupported_grant_type": (
        "The token endpoint does not know the client credentials grant",
        "Is its URL right?",
    ),
}
#: What to check, by an answer's status, where no reason is given.
_CHECKS = {
    401: "Look at the client id, at its secret or key, and at extra 'auth_method'.",
    407: "A proxy on the way wants a login: HTTPS_PROXY may hold one, as http://user:password@host:port.",
}
_BUSY = "It is busy or down: try again later."
#: Errors that pass, by RFC 6749 and by Entra's number.
_PASSING, _PASSING_IN_ENTRA = {"temporarily_unavailable", "server_error"}, {"90033"}
#: Types of tokens that are not sent as ``Bearer`` (RFC 6749, section 7.1). Some providers have names of their
#: own for a bearer token.
_OTHER_TYPES = ("mac", "dpop", "pop")
_OTHER = ("The identity provider gave no token", "Look at the client, the URL, the scopes and the audience.")


def read_token(answer: Answer, where: str, secrets: Iterable[str]) -> GivenToken | CdfLoginError:
    """
    Read the answer of a token endpoint.

    :param where: which one, for messages.
    :param secrets: what it was sent, and may repeat.
    """
    secrets = [*secrets, *proxy_secrets()]
    said = answer.json_object()
    if said is None:
        answer.distrust()
        return CdfLoginError(
            f"The login got no token. {_capital(where)} answered HTTP {answer.status} with {answer.kind}. "
            f"{_check_of(answer.status)}",
            # With a success it is a gateway in its bad moment, or the wrong URL. Asking again tells.
            is_transient=answer.is_success or is_transient_status(answer.status),
            retry_after=answer.retry_after,
        )
    value = said.get("access_token")
    # Some say why there is no token with HTTP 200.
    if not answer.is_success or (not isinstance(value, str) and said.get("error")):
        words = ": ".join(str(said[key]) for key in ("error", "error_description") if said.get(key))
        return refused(
            str(said.get("error")),
            without_secrets(words, secrets),
            f"{_capital(where)} said (HTTP {answer.status})",
            is_transient=is_transient_status(answer.status),
            retry_after=answer.retry_after,
        )
    if not isinstance(value, str):
        return CdfLoginError(
            f"The login got no token. {_capital(where)} answered HTTP {answer.status} without access_token."
        )
    kind = said.get("token_type")
    if isinstance(kind, str) and kind.strip().lower() in _OTHER_TYPES:
        return CdfLoginError(
            f"The login got a token of another type. {_capital(where)} gave one of type {kind.strip()}, and "
            "CDF takes bearer tokens. Look at the client at the identity provider."
        )
    return GivenToken(value, lifetime(said.get("expires_in")))


def refused(
    error: str, words: str, whose: str, *, is_transient: bool, retry_after: float | None = None
) -> CdfLoginError:
    """
    Return what is told about a login that was refused.

    :param error: the error's code by RFC 6749, if there is one.
    :param words: what was said; no secret is in it.
    :param whose: who said it.
    """
    numbers = re.findall(r"AADSTS(\d+)", words)
    known = [_ENTRA[number] for number in numbers if number in _ENTRA]
    problem, check = known[0] if known else _OAUTH.get(error, _OTHER)
    is_transient |= error in _PASSING or not _PASSING_IN_ENTRA.isdisjoint(numbers)
    if is_transient and not known:
        problem, check = _OTHER[0], _BUSY
    return CdfLoginError(
        f"{problem}. {whose}: {words.rstrip('.') or 'no reason given'}. {check}",
        is_transient=is_transient,
        retry_after=retry_after,
    )


def lifetime(expires_in: Any) -> float:
    """Return the seconds for which a token is used, whatever was said about it."""
    try:
        seconds = float(expires_in)
    except (TypeError, ValueError, OverflowError):
        return UNSTATED_LIFETIME
    return max(seconds, SHORTEST_LIFETIME) if math.isfinite(seconds) and seconds > 0 else UNSTATED_LIFETIME


def _check_of(status: int) -> str:
    if is_transient_status(status):
        return _BUSY
    if 300 <= status < 400:
        return "Is its URL right? Redirects are not followed."
    return _CHECKS.get(status, "Is its URL right?")


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
