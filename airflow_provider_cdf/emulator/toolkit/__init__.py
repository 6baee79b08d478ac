"""
Workflows from YAML files in the format of the Cognite Toolkit.

https://docs.cognite.com/cdf/deploy/cdf_toolkit/references/resource_library
"""

from airflow_provider_cdf.emulator.toolkit.loading import load
from airflow_provider_cdf.emulator.toolkit.variables import ToolkitError, override, read_config

__all__ = ["ToolkitError", "load", "override", "read_config"]
