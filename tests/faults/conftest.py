"""The emulator, as the Airflow connection ``cdf_default``, for what goes wrong on the way to it."""

from emulated import (  # noqa: F401 - fixtures
    _database_at_hand,
    _first_callback,
    _first_tokens,
    _no_session_left_behind,
    _well_said,
    cdf,
    cdf_default,
    connect,
    project,
    ti,
)
