from __future__ import annotations

import pytest
from cdf_support import Sender

from airflow_provider_cdf.cdf import auth


@pytest.fixture(autouse=True)
def _nothing_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    # The tokens of a process are shared by all of its clients.
    monkeypatch.setattr(auth, "_shared", {})
    # A proxy of the machine that runs the tests must not get what is meant for a loopback server.
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(params=["sync", "async"])
def sender(request: pytest.FixtureRequest) -> Sender:
    """Each of the two clients in turn."""
    return Sender(is_async=request.param == "async")
