"""What is told about a call that has failed: by which class of error, in which words, and about which ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from airflow_provider_cdf.cdf.auth import TokenRefusedError
from airflow_provider_cdf.cdf.calls import Call, Repeat
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfError,
    CdfLoginError,
    CdfRefusedError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.cdf.models import TokenProject
from airflow_provider_cdf.cdf.settings import Settings
from airflow_provider_cdf.cdf.statuses import is_ambiguous_status
from airflow_provider_cdf.cdf.transport import UNTRUSTED, Answer, NoAnswer

#: How many projects of a token a message names.
MAX_NAMED = 10


class Failure:
    """
    What is told about one call.

    :param settings: of the client that has sent it.
    :param clean: returns a server's words in one line, without secrets: it may repeat what it was sent.
    """

    def __init__(self, settings: Settings, call: Call[Any], clean: Callable[[str], str]) -> None:
        self._settings, self._call, self._clean = settings, call, clean

    def of(self, error: Exception) -> CdfError:
        """Return what is told to the caller, whatever has happened."""
        if isinstance(error, TokenRefusedError):
            return self.refusal(error.answer, error.why)
        if isinstance(error, NoAnswer):
            return self._no_answer(error)
        if isinstance(error, CdfLoginError):
            ids = self._settings.credentials.ids
            return error.adding(f"Look at {self._settings.label}.{self._nothing_sent} {ids}")
        if isinstance(error, CdfError):
            return error
        # An error in this package, or below it. Its text may hold anything.
        return self._no_answer(NoAnswer(f"unexpected {type(error).__name__}", sent=True))

    def unreadable(self, answer: Answer, problem: str) -> CdfAnswerError:
        """Return what is told about a successful answer that says nothing."""
        return CdfAnswerError(
            told(
                f"CDF's answer cannot be read: {self._clean(problem)}. The request was to "
                f"{self._call.purpose}, and was answered HTTP {answer.status}.{self._fate(may_be_done=True)}",
                self._ids(answer),
            )
        )

    def other_subject(self, answer: Answer, other: str, *, is_carried_out: bool) -> CdfAnswerError:
        """Return what is told about an answer that is about something else than the call."""
        failed = CdfAnswerError(
            told(
                f"CDF's answer is about something else: {self._clean(other)}. The request was to "
                f"{self._call.purpose}.{self._fate(may_be_done=True)}",
                self._ids(answer),
            )
        )
        failed.is_carried_out = is_carried_out
        return failed

    def refusal(self, answer: Answer, why_alone: CdfLoginError | NoAnswer | None = None) -> CdfApiError:
        """
        Return what is told about a request that CDF has refused.

        :param why_alone: of a 401, why the request was not sent once more with another token.
        """
        code, base_url = answer.status, self._settings.base_url
        error = _error_object(answer)
        words = self._clean(_server_words(answer, error))
        is_auto_retryable = answer.headers.get("cdf-is-auto-retryable", "").strip().lower() == "true"
        message = f"CDF refused to {self._call.purpose} (HTTP {code}): {words.rstrip('.')}."
        if code == 401:
            reason = self._settings.credentials.if_refused
            if why_alone is not None:
                reason = f"It was not sent with another access token. {self._why(why_alone)}"
            message += f" {reason} Look at {self._settings.label}."
        elif 300 <= code < 400:
            message += f" Is {base_url} the right host? Redirects are not followed."
        elif error is None and code in (400, 403, 404):
            message += f" That is not how CDF answers. Is {base_url} the right host?"
        # A login that fails for a moment ends no wait, and a call that may be repeated is repeated.
        may_log_in_later = isinstance(why_alone, NoAnswer) or bool(why_alone and why_alone.is_transient)
        is_final = code in (400, 403, 404) and error is not None and not is_auto_retryable
        kind = CdfRefusedError if is_final else CdfApiError
        fate = self._fate(may_be_done=is_ambiguous_status(code) or is_auto_retryable)
        return kind(
            told(message + fate, self._ids(answer)),
            code=code,
            cdf_message=words,
            request_id=self._request_id(answer),
            retry_after=answer.retry_after if why_alone is None else why_alone.retry_after,
            is_auto_retryable=is_auto_retryable or may_log_in_later,
            is_cdfs_own=error is not None,
            lacks_token=why_alone is not None,
        )

    def lacking(self, refusal: CdfApiError) -> str:
        """Say what access a call lacks: CDF refuses a wrong project in the words of a missing capability."""
        who, project, label = self._settings.credentials.who, self._settings.project, self._settings.label
        client = who[:1].upper() + who[1:]
        wanted, inspection = self._call.capability, refusal.inspection
        if inspection is not None:
            if not inspection.reaches(project):
                return (
                    f"{client} has no access to project {project!r}; the projects of its token are: "
                    f"{named(inspection.projects, self._clean)}. Look at the project of {label}."
                )
            missing = inspection.missing_in(project, *dict.fromkeys((wanted, *self._call.also_needed)))
            if wanted in missing:
                what = "capability" if len(missing) == 1 else "capabilities"
                return f"{client} lacks the {what} {', '.join(missing)} in project {project!r}."
        if refusal.code == 401:
            return ""  # which says enough by itself
        return (
            f"{client} needs the capability {wanted} for what this is about; or "
            f"{label} names the wrong project or client."
        )

    def _no_answer(self, error: NoAnswer) -> CdfUnreachableError:
        label = self._settings.label
        look = f" Look at {label}." if error.at_login else ""
        if UNTRUSTED in error.reason:
            look = f" Extra 'verify' of {label} names the CA certificates of a proxy that opens TLS."
        elif "WRONG_VERSION_NUMBER" in error.reason:
            look = f" That is no https: does the address in {label} begin with http://?"
        # Only where no connection was made is it certain that CDF never saw the request.
        fate = self._fate(may_be_done=True) if error.sent else self._nothing_sent
        failed = CdfUnreachableError(
            told(f"Could not {self._call.purpose}: {self._why(error)}{look}{fate}", self._ids()),
            sent=error.sent,
        )
        failed.retry_after = error.retry_after
        return failed

    def _why(self, error: CdfLoginError | NoAnswer) -> str:
        if isinstance(error, CdfLoginError):
            return str(error)
        where = self._settings.credentials.where if error.at_login else self._settings.base_url
        return f"no answer from {where} ({self._clean(error.reason)})."

    def _fate(self, *, may_be_done: bool) -> str:
        """Say what the call leaves behind, if it is one that changes something."""
        if self._call.changes_nothing:
            return ""
        if may_be_done and self._call.repeat is not Repeat.ALWAYS:
            return " It is not known whether CDF did it all the same."
        return " The request changed nothing in CDF."

    @property
    def _nothing_sent(self) -> str:
        return "" if self._call.changes_nothing else " Nothing was sent to CDF."

    def _request_id(self, answer: Answer) -> str | None:
        return self._clean(answer.headers.get("x-request-id", "")) or None

    def _ids(self, answer: Answer | None = None) -> str:
        """Return what the message is about, for its end."""
        which = [self._call.which] if self._call.which else []
        if self._call.capability:
            which.append(f"project {self._settings.project!r}")
        if answer is not None and (request_id := self._request_id(answer)):
            which.append(f"request id {request_id}")
        return f"[{', '.join(which)}]" if which else ""


def named(projects: Sequence[TokenProject], clean: Callable[[str], str]) -> str:
    """Return the first of a token's projects, in words."""
    more = f" and {len(projects) - MAX_NAMED} more" if len(projects) > MAX_NAMED else ""
    names = (repr(clean(one.project_url_name)) for one in projects[:MAX_NAMED])
    return (", ".join(names) or "none") + more


def _error_object(answer: Answer) -> dict[str, Any] | None:
    """Return the ``error`` of an answer, which CDF's own refusals have, and a gateway's page has not."""
    error = (answer.json_object() or {}).get("error")
    return error if isinstance(error, dict) else None


def _server_words(answer: Answer, error: dict[str, Any] | None) -> str:
    """Return CDF's own words. What is not from CDF, such as a gateway's page, is named, not repeated."""
    try:
        status = HTTPStatus(answer.status).phrase
    except ValueError:
        status = "no reason given"
    if error is None:
        return status if answer.json_object() is not None else f"{status}, with {answer.kind}"
    words = error.get("message")
    return words if isinstance(words, str) and words.strip() else status
