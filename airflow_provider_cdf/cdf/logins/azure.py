"""The identity that Azure gives to a machine or a pod, by Microsoft's own library (extra ``azure``)."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_cdf.cdf.errors import CdfLoginError
from airflow_provider_cdf.cdf.foreign import without_secrets
from airflow_provider_cdf.cdf.logins.answers import lifetime, refused
from airflow_provider_cdf.cdf.logins.base import Credentials, GivenToken, HttpSteps, LoginTools
from airflow_provider_cdf.cdf.statuses import is_transient_status

if TYPE_CHECKING:
    from azure.identity import ManagedIdentityCredential, WorkloadIdentityCredential

#: Where Azure's workload identity for Kubernetes says that it is there.
_WORKLOAD = "AZURE_FEDERATED_TOKEN_FILE"

#: In which variables Azure gives a machine what it proves itself with.
_MACHINE_SECRETS = ("IDENTITY_HEADER", "MSI_SECRET")


def _secrets() -> list[str]:
    return [os.environ[name] for name in _MACHINE_SECRETS if os.environ.get(name)]


@dataclass(frozen=True)
class AzureIdentity(Credentials):
    """
    The workload identity of a pod, if it has one, or else the managed identity of a machine.

    :param scope: of CDF's cluster.
    :param client_id: of a user-assigned identity; ``None`` for the one that is there.
    :param tenant_id: for a workload identity, where its environment does not say so.
    """

    scope: str
    client_id: str | None = None
    tenant_id: str | None = None

    @property
    def who(self) -> str:
        return "the Azure identity" + (f" {self.client_id!r}" if self.client_id else " of this machine")

    @property
    def ids(self) -> str:
        return f"[client {self.client_id!r}]" if self.client_id else ""

    @property
    def where(self) -> str:
        return "Azure's workload identity" if os.environ.get(_WORKLOAD) else "Azure's managed identity"

    def obtain(self, tools: LoginTools) -> HttpSteps[GivenToken | CdfLoginError]:
        for secret in _secrets():
            tools.keep_out_of_logs(secret)  # Azure's library logs it at DEBUG
        # In a thread, because it blocks, for minutes where there is no such identity.
        given = yield from tools.in_thread(self._ask)
        return given

    def _ask(self) -> GivenToken | CdfLoginError:
        try:
            import azure.identity  # noqa: F401 - only to see whether it is there
            from azure.core.exceptions import (
                AzureError,
                HttpResponseError,
                ServiceRequestError,
                ServiceResponseError,
            )
        except ImportError:
            return CdfLoginError(
                "azure-identity is not installed. Install it on each worker and triggerer: "
                "pip install 'airflow-provider-cdf[azure]'."
            )
        try:
            with self._credential() as credential:
                token = credential.get_token(self.scope)
        except AzureError as error:
            status = error.status_code if isinstance(error, HttpResponseError) else None
            words = without_secrets(error.message, _secrets())
            said = f"{self.where[0].upper()}{self.where[1:]} said"
            is_transient = (
                isinstance(error, ServiceRequestError | ServiceResponseError)  # the connection failed
                if status is None
                else is_transient_status(status)
            )
            return refused("", words, said, is_transient=is_transient)
        except OSError as error:  # of the file with the token that a workload identity exchanges
            return CdfLoginError(
                f"The token of the workload identity cannot be read. {_WORKLOAD} names no readable file: "
                f"{error.strerror or type(error).__name__}."
            )
        except json.JSONDecodeError:
            where = f"{self.where[0].upper()}{self.where[1:]}"
            return CdfLoginError(
                f"The login got no token. {where} gave an answer that is no JSON.", is_transient=True
            )
        except ValueError as error:  # of a workload identity whose environment lacks something
            words = without_secrets(error, _secrets())
            return CdfLoginError(f"{self.where} cannot be used as it is set up. azure-identity says: {words}")
        return GivenToken(token.token, lifetime(token.expires_on - time.time()))

    def _credential(self) -> ManagedIdentityCredential | WorkloadIdentityCredential:
        from azure.identity import ManagedIdentityCredential, WorkloadIdentityCredential

        if os.environ.get(_WORKLOAD):
            given = {"client_id": self.client_id, "tenant_id": self.tenant_id}
            return WorkloadIdentityCredential(**{name: value for name, value in given.items() if value})
        return ManagedIdentityCredential(client_id=self.client_id)
