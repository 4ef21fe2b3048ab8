from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from harness import TOWN, ServerProcess, running_server, stop_sensors, synchronous


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """One server for all tests that do not end it."""
    with running_server("--town", TOWN) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Any:
    return server.client()


@pytest.fixture
def world(client: Any) -> Iterator[Any]:
    """A fresh episode in synchronous mode; nothing listens afterwards."""
    fresh = client.load_world(TOWN)
    synchronous(fresh)
    yield fresh
    stop_sensors()
