"""What operators and sensors have in common that talk to CDF."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_cdf.hooks.cdf import CdfHook


class UsesHook:
    """A mixin before ``BaseOperator``: the hook of the operator's connection."""

    cdf_conn_id: str

    @cached_property
    def hook(self) -> CdfHook:
        """The hook of this connection, made at first use."""
        # Its import takes long, and a DAG file needs none of it.
        from airflow_provider_cdf.hooks.cdf import CdfHook

        return CdfHook(self.cdf_conn_id)
