"""Shared rasters: each is painted once, even if the painting process dies or is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
from paths import REAL_MAPS

import sb3_carla  # noqa: F401 (registers)
from sb3_carla.simulator.rendering import shared_rasters
from sb3_carla.simulator.rendering.shared_rasters import KEY, PAGE, Buffer, SharedRasters
from sb3_carla.simulator.town import Town

SIZE = 3 * PAGE + 17
TOWN04 = REAL_MAPS / "Town04.xodr"
"""A map with bridges, whose pictures change with the camera's road."""


@pytest.fixture
def fd() -> Iterator[int]:
    number = os.memfd_create("test")
    yield number
    os.close(number)


def ramp(buffer: Buffer) -> None:
    buffer[:] = np.arange(len(buffer)) % 251


def nobody(buffer: Buffer) -> None:
    raise AssertionError("it is painted already")


def in_another_process(fd: int, code: str) -> subprocess.Popen[str]:
    start = (
        "import sys, numpy as np; from sb3_carla.simulator.rendering import shared_rasters;"
        f"s = shared_rasters.SharedRasters({fd});"
    )
    command, pipe = [sys.executable, "-c", start + code], subprocess.PIPE
    return subprocess.Popen(command, pass_fds=[fd], stdin=pipe, stdout=pipe, text=True)


def test_the_first_process_paints_for_all(fd: int) -> None:
    code = f"print(int(s.get(b'a', {SIZE}, lambda b: b.fill(7)).sum()))"
    with in_another_process(fd, code) as painter:
        assert painter.communicate(timeout=30)[0].strip() == str(7 * SIZE)
    assert (SharedRasters(fd).get(b"a", SIZE, nobody) == 7).all()


def test_a_limit_on_the_size_of_files_is_no_error(fd: int) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        f"print(int(s.get(b'a', {SIZE}, lambda b: b.fill(7)).sum()))"
    )
    with in_another_process(fd, code) as painter:
        assert painter.communicate(timeout=30)[0].strip() == str(7 * SIZE)


def test_names_and_sizes_tell_pictures_apart(fd: int) -> None:
    shared = SharedRasters(fd)
    for name, size in ((b"a", SIZE), (b"b", SIZE), (b"a", 5)):
        shared.get(name, size, lambda buffer, name=name: buffer.fill(name[0]))
    for name, size in ((b"a", SIZE), (b"b", SIZE), (b"a", 5)):
        found = shared.get(name, size, nobody)
        assert found.shape == (size,)
        assert (found == name[0]).all()


def test_writing_changes_nothing_for_others(fd: int) -> None:
    mine = SharedRasters(fd).get(b"a", SIZE, ramp)
    mine[:] = 0
    expected = np.empty(SIZE, np.uint8)
    ramp(expected)
    np.testing.assert_array_equal(SharedRasters(fd).get(b"a", SIZE, nobody), expected)


@pytest.mark.parametrize("written", [0, 1, PAGE, PAGE + SIZE])
def test_an_incomplete_record_of_a_dead_painter_is_skipped(fd: int, written: int) -> None:
    """It dies before the size stands, before the file has grown, or before the key stands."""
    shared = SharedRasters(fd)
    shared.get(b"before", SIZE, ramp)
    end = os.fstat(fd).st_size
    if written:
        os.pwrite(fd, bytes(KEY) + SIZE.to_bytes(8, "little"), end)
    if written > 1:
        os.ftruncate(fd, end + written)
    shared.get(b"after", SIZE, ramp)
    for name in (b"before", b"after"):
        shared.get(name, SIZE, nobody)


def test_an_incomplete_record_of_a_failed_painter_is_skipped(fd: int) -> None:
    shared = SharedRasters(fd)
    with pytest.raises(AssertionError, match="painted already"):
        shared.get(b"a", SIZE, nobody)
    assert shared.get(b"a", SIZE, lambda buffer: buffer.fill(1)).sum() == SIZE


def test_nobody_waits_for_ever_for_a_painter_that_was_stopped(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_rasters, "LOCK_TIMEOUT", 0.2)
    code = f"s.get(b'a', {SIZE}, lambda b: (print('painting', flush=True), sys.stdin.read()))"
    with in_another_process(fd, code) as painter:
        try:
            assert painter.stdout is not None
            assert painter.stdout.readline() == "painting\n"
            painter.send_signal(signal.SIGSTOP)
            assert (SharedRasters(fd).get(b"a", SIZE, lambda buffer: buffer.fill(3)) == 3).all()
        finally:
            painter.kill()
    assert (SharedRasters(fd).get(b"a", SIZE, lambda buffer: buffer.fill(4)) == 4).all(), "its lock went with it"


def test_different_pictures_are_painted_side_by_side(fd: int) -> None:
    code = f"s.get(b'a', {SIZE}, lambda b: (print('painting', flush=True), b.fill(7), sys.stdin.readline()))"
    with in_another_process(fd, code) as painter:
        assert painter.stdout is not None
        assert painter.stdin is not None
        assert painter.stdout.readline() == "painting\n"
        mine = SharedRasters(fd)
        mine.get(b"b", SIZE, ramp)
        mine.get(b"b", SIZE, nobody)
        painter.stdin.write("\n")
        painter.stdin.flush()
        assert (mine.get(b"a", SIZE, nobody) == 7).all(), "and who waits for one gets it when it is done"


def test_a_full_file_does_not_grow_and_what_is_in_it_stays_shared(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = SharedRasters(fd)
    shared.get(b"a", SIZE, ramp)
    monkeypatch.setattr(shared_rasters, "MAX_FILE_SIZE", os.fstat(fd).st_size + PAGE)
    size = os.fstat(fd).st_size
    for _ in range(2):
        assert (shared.get(b"b", SIZE, lambda buffer: buffer.fill(7)) == 7).all()
    assert os.fstat(fd).st_size == size
    shared.get(b"a", SIZE, nobody)


@pytest.mark.parametrize("name", ["Village01", pytest.param(str(TOWN04), marks=pytest.mark.long)])
def test_a_town_looks_the_same(fd: int, name: str) -> None:
    if name.endswith(".xodr") and not TOWN04.exists():
        pytest.skip(f"{TOWN04} is not there")
    alone = Town.load(name).raster
    for _ in range(2):
        shared = Town.load(name, SharedRasters(fd)).raster
        for ours, theirs in zip(shared.pyramid, alone.pyramid, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for patch in shared._patches:  # what one camera makes of a bridge stays its server's own
            shared._exchange(patch, 1 - patch.shown)


def open_pictures() -> int:
    links = (os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path))
    return sum("sb3_carla_rasters" in link for link in links)


@pytest.mark.long
def test_environments_share_their_towns_and_leave_no_memory_behind() -> None:
    before = open_pictures()
    envs = [gym.make("CarlaLane-v0", town="Village02", disable_env_checker=True) for _ in range(2)]
    first, second = (env.reset(seed=0)[0] for env in envs)
    np.testing.assert_array_equal(first, second)
    assert open_pictures() == before + 1
    for env in envs:
        env.close()
    assert open_pictures() == before
