"""What can go wrong between Airflow and CDF, one class for each thing a caller does differently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_cdf.cdf.messages import told

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.models import TokenInspection


class CdfError(AirflowException):
    """
    Base of all errors of this package.

    Derived from ``AirflowException`` because that is what Airflow's ``soft_fail`` turns into a skip.
    The message is the interface: what is wrong, then the reason, then ids in brackets; it holds no secret.
    """

    #: Seconds that the server asks to wait.
    retry_after: float | None = None
    #: Whether another copy of a refused request may be under way still, and be carried out.
    may_be_under_way: bool = False

    def bare(self) -> Self:
        """
        Forget where it was raised, and after which other error, before it leaves for the caller.

        Those frames hold requests and answers, which tools that show local variables would show. The message
        says what a reader needs.
        """
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)

    def adding(self, sentence: str) -> Self:
        """
        Add to the message what only the caller knows, such as what has become of an execution.

        :param sentence: goes before the ids; or ids themselves.
        """
        self.args = (told(self, sentence), *self.args[1:])
        return self


class CdfInputError(CdfError, AirflowFailException):
    """What the caller asked for would be refused by CDF, so it was not sent. A retry would not help."""

    def __init__(self, message: str) -> None:
        super().__init__(told(message, "Nothing was sent to CDF."))
        #: What is wrong, where more is to be said about what becomes of it.
        self.problem = message.rstrip()


class CdfConnectionError(CdfError, AirflowFailException):
    """The Airflow connection is incomplete or contradicts itself. Nothing was sent."""


class CdfConnectionUnreadError(CdfError):
    """Airflow gave no connection: it has none, or could not be asked just now. Nothing was sent."""


class CdfLoginError(CdfError):
    """
    The identity provider gave no usable token. Nothing was sent to CDF.

    :param is_transient: whether the same login may succeed later.
    :param retry_after: seconds that the identity provider asks to wait.
    """

    def __init__(self, message: str, *, is_transient: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.is_transient = is_transient
        self.retry_after = retry_after


class CdfSessionError(CdfError):
    """No session could be made just now, so nothing was submitted. A retry may succeed."""


class CdfUnreachableError(CdfError):
    """
    The request got no answer.

    :param sent: whether CDF may have received, and carried out, the request all the same. ``False`` only
        where it is certain that it did not (the connection was refused).
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class CdfAnswerError(CdfError):
    """CDF answered with success, but with something that is not the answer its API promises."""

    #: Whether it shows all the same that CDF has carried out the request.
    is_carried_out: bool = False


class CdfApiError(CdfError):
    """
    CDF answered with an error.

    :param code: the HTTP status.
    :param cdf_message: CDF's own words, without ours around them.
    :param request_id: CDF's ``x-request-id``, which Cognite's support asks for.
    :param retry_after: seconds that CDF asks to wait.
    :param is_auto_retryable: whether CDF says that the same request may be sent again, whatever the status
        (header ``cdf-is-auto-retryable``). It does not say that the request was not carried out. Also of a
        401 that no other token has followed, because a login failed that may succeed later.
    :param is_cdfs_own: whether it has the form of CDF's errors. Otherwise something on the way has answered,
        such as a gateway, which does not know what CDF would have said.
    :param lacks_token: of a 401, whether there was no other token to ask with.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int,
        cdf_message: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
        is_auto_retryable: bool = False,
        is_cdfs_own: bool = True,
        lacks_token: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.cdf_message = cdf_message
        self.request_id = request_id
        self.retry_after = retry_after
        self.is_auto_retryable = is_auto_retryable
        self.is_cdfs_own = is_cdfs_own
        self.lacks_token = lacks_token
        #: What the token may do, where CDF was asked for that because of this refusal.
        self.inspection: TokenInspection | None = None

    @property
    def is_about_the_id(self) -> bool:
        """Whether CDF rejects what the request names: no such thing, or not in a state for this."""
        is_refusal = 400 <= self.code < 500 and self.code not in (401, 403, 408, 429)
        return is_refusal and self.is_cdfs_own and not self.is_auto_retryable


class CdfRefusedError(CdfApiError, AirflowFailException):
    """CDF refused for good: there is no such thing, or it may not be done. A retry would not help."""

    def doubted(self) -> CdfApiError:
        """Return it as an error that Airflow retries, for where nothing confirms that it is CDF's word."""
        return CdfApiError(
            str(self),
            code=self.code,
            cdf_message=self.cdf_message,
            request_id=self.request_id,
            retry_after=self.retry_after,
            is_auto_retryable=self.is_auto_retryable,
        )


class CdfSilenceError(CdfError):
    """A wait was given up because CDF did not give one answer for a long time."""


class CdfWaitRefusedError(CdfError, AirflowFailException):
    """A trigger's wait ended because CDF refuses for good to be asked. A retry would not help."""


class CdfTimeoutError(CdfError):
    """What an operator waited for did not happen in the time it was given."""


class CdfExecutionFailedError(CdfError):
    """A workflow execution ended in another status than COMPLETED."""


class CdfOutputMissingError(CdfError, AirflowFailException):
    """An execution ended well, but without a task whose output is asked for."""


class CdfWaitImpossibleError(CdfError, AirflowFailException):
    """What a sensor waits for can no longer happen, so neither waiting on nor a retry would help."""


class CdfNothingToReportToError(CdfError, AirflowFailException):
    """There is no CDF task that still waits for a report."""


class CdfReportRefusedError(CdfApiError):
    """CDF refuses a report though the task still waits for one. A retry may be accepted."""


class CdfAmbiguousTaskError(CdfError, AirflowFailException):
    """
    Several tasks of an execution share the external id that is asked for. Nothing was done.

    :param parents: the tasks that have a child of this name.
    """

    def __init__(self, message: str, *, parents: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.parents = tuple(parents)
