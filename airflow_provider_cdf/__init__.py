"""Apache Airflow provider for Cognite Data Fusion (CDF) Data Workflows."""

__version__ = "0.1.0"
