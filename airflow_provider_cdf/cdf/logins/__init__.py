"""
The kinds of login: what is asked of which endpoint, and what its answer means.

Tokens are kept, shared and renewed in :mod:`airflow_provider_cdf.cdf.auth`, the same way for all kinds.
"""
