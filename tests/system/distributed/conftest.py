"""The cluster that the tests of a file share. A file that needs another one makes its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clusters import Cluster
from distributed_cluster import start_cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from start_cluster(tmp_path_factory.mktemp("distributed"))
