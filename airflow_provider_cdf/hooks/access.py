"""What a login may do in the project: the words of Airflow's Test button."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.models import TokenInspection
    from airflow_provider_cdf.cdf.settings import Settings

#: What running workflows takes.
WANTED = ("workflowOrchestrationAcl:READ", "workflowOrchestrationAcl:WRITE", "sessionsAcl:CREATE")


def judge(settings: Settings, inspection: TokenInspection) -> tuple[bool, str]:
    """Say whether the client may run workflows in the project, and what it lacks."""
    who = settings.credentials.who
    where = f"project {settings.project!r} at {settings.base_url}"
    if all(project.project_url_name != settings.project for project in inspection.projects):
        known = ", ".join(repr(project.project_url_name) for project in inspection.projects) or "none"
        return False, f"CDF knows {who}, but it has no access to {where}; it has access to: {known}."
    granted = set()
    for capability in inspection.capabilities:
        scope = capability.get("projectScope") or {}
        if "allProjects" in scope or settings.project in (scope.get("projects") or ()):
            for acl, grant in capability.items():
                if acl.endswith("Acl") and isinstance(grant, dict):
                    granted |= {f"{acl}:{action}" for action in grant.get("actions") or ()}
    missing = [capability for capability in WANTED if capability not in granted]
    if missing:
        return False, f"Logged in to {where}, but {who} lacks {', '.join(missing)} there."
    return True, f"Logged in to {where} as {who}, which may run workflows there."
