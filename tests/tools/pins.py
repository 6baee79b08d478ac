"""The Airflows that this package is tried on, and what their constraint files pin."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Airflow:
    """
    A release of Airflow.

    :param version: the latest patch.
    :param day: the day after its release and after what it pins. Nothing younger is in its constraint file.
    :param common_compat: what its constraint file pins of the one dependency that is young enough to matter.
    :param pythons: those of this package that it runs on, the oldest first.
    """

    version: str
    day: str
    common_compat: str
    pythons: tuple[str, ...]

    @property
    def minor(self) -> str:
        """Such as ``3.3``."""
        return self.version.rpartition(".")[0]


AIRFLOWS = (
    Airflow("2.11.2", "2026-03-15", "1.14.1", ("3.11", "3.12")),
    # Its own pin of common-compat, 1.7.3, is older than what this package needs: install without constraints.
    Airflow("3.0.6", "2025-08-30", "1.7.3", ("3.11", "3.12")),
    Airflow("3.1.8", "2026-03-15", "1.14.1", ("3.11", "3.12", "3.13")),
    Airflow("3.2.2", "2026-05-30", "1.15.0", ("3.11", "3.12", "3.13")),
    Airflow("3.3.2", "2026-09-18", "1.19.0", ("3.11", "3.12", "3.13")),
)
#: The one whose constraint file this package does not fit.
WITHOUT_CONSTRAINTS = "3.0.6"
#: The oldest Airflow, with the oldest release of everything else that the package declares.
FLOORS = Airflow("2.11.0", "2026-03-15", "1.12.0", ("3.11",))
COMPAT = "apache-airflow-providers-common-compat"
