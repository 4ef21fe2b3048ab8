"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

# The networks of the tests are so small that a second thread costs more than it does. And sums come out the same to the
# last bit here and in the processes that tests start, before any of which PyTorch reads this.
os.environ["OMP_NUM_THREADS"] = "1"

LONGEST = (
    "test_chaos.py", "test_resume.py", "test_servers.py", "test_server_endings.py", "test_foreign_server.py",
    "test_checkpoint_faults.py", "test_divergence_guard.py", "test_td3.py", "test_vec_env.py", "test_hooks.py",
    "test_frame_contract.py", "test_env.py", "test_callbacks.py",
)  # fmt: skip
"""Files that take longest, in this order."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They come first, so that at the end no process waits for another that has just begun with one."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is an exception, also where these tests run in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
