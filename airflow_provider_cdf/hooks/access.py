"""What a login may do in the project: the words of Airflow's Test button."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_cdf.cdf.calls import TO_RUN
from airflow_provider_cdf.cdf.foreign import one_line
from airflow_provider_cdf.hooks.connection import label

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.auth import Login
    from airflow_provider_cdf.cdf.errors import CdfError
    from airflow_provider_cdf.cdf.models import TokenInspection
    from airflow_provider_cdf.cdf.sender import Sender
    from airflow_provider_cdf.cdf.settings import Settings

#: Seconds within which a test has its answer, repetitions included: a person waits for it.
TEST_WITHIN = 15.0


def login_anew(settings: Settings) -> Login:
    """Return a login that knows nothing of before: a test is about the secret that the connection has now."""
    from airflow_provider_cdf.cdf.auth import Login

    return Login(settings.credentials, settings.on_token)


def judge(client: Sender, inspection: TokenInspection) -> tuple[bool, str]:
    """Say whether the client may run workflows in the project, and what it lacks."""
    from airflow_provider_cdf.cdf.failures import named

    settings = client.settings
    who = settings.credentials.who
    # A ready token does not say by itself whose it is.
    if inspection.subject and not settings.credentials.ids:
        who += f" of {one_line(inspection.subject, 60)!r}"
    where = f"project {settings.project!r} at {settings.base_url}"
    if not inspection.reaches(settings.project):
        known = named(inspection.projects, client.clean)
        return False, f"CDF knows {who}, but it has no access to {where}; it has access to: {known}."
    if missing := inspection.missing_in(settings.project, *TO_RUN):
        return False, f"Logged in to {where}, but {who} lacks {', '.join(missing)} there."
    return True, f"Logged in to {where} as {who}, which may run workflows there."


def without_id(error: CdfError, conn_id: str) -> str:
    """
    Return what an error says, without the id of the connection.

    Airflow's Test button tests a copy of the connection by an id that it makes up.
    """
    words = str(error).replace(label(conn_id), "this connection")
    return words[:1].upper() + words[1:]
