"""Event files as SB3, TensorFlow and crashes leave them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.scalar.summary import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch.utils.tensorboard import SummaryWriter

from sb3_carla.diagnostics.event_logs import find_runs, read_run
from sb3_carla.errors import EventLogError


def write(folder: Path, points: list[tuple[str, float, int]], suffix: str = "") -> Path:
    """One event file with these (tag, value, step)."""
    known = set(folder.glob("*")) if folder.exists() else set()
    writer = SummaryWriter(str(folder), filename_suffix=suffix)
    for tag, value, step in points:
        writer.add_scalar(tag, value, step)
    writer.close()
    return next(path for path in folder.glob("*") if path not in known)


def test_points_by_tag_in_order_of_steps(tmp_path: Path) -> None:
    write(tmp_path, [("a", 1.0, 10), ("b", float("nan"), 10), ("a", 2.0, 30), ("a", 3.0, 20)])
    log = read_run(tmp_path)
    np.testing.assert_array_equal(log.scalars["a"].steps, [10, 20, 30])
    np.testing.assert_array_equal(log.scalars["a"].values, [1.0, 3.0, 2.0])
    assert np.isnan(log.scalars["b"].values).all()
    assert (log.last_step, log.notes) == (30, [])


def test_a_resumed_run_replaces_what_it_repeats(tmp_path: Path) -> None:
    write(tmp_path, [("a", float(step), step) for step in range(0, 100, 10)] + [("b", 7.0, 90)], ".1")
    write(tmp_path, [("a", -float(step), step) for step in range(50, 150, 10)], ".2")
    scalars = read_run(tmp_path).scalars
    np.testing.assert_array_equal(scalars["a"].steps, np.arange(0, 150, 10))
    assert scalars["a"].values[4] == 40.0
    assert scalars["a"].values[5] == -50.0
    assert scalars["b"].values == [7.0]


def test_scalars_of_tensorflow_2(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    writer.add_event(Event(step=3, wall_time=1.0, summary=scalar_pb("loss", 0.25)))
    writer.close()
    assert read_run(tmp_path).scalars["loss"].values == [0.25]


def test_a_truncated_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    file = write(tmp_path, [("a", float(step), step) for step in range(50)])
    whole = file.read_bytes()
    seen = set()
    for missing in (1, 5, 30, 41, 60):
        file.write_bytes(whole[:-missing])
        log = read_run(file)
        seen.add(len(log.scalars["a"].steps))
        assert log.notes == [] or "ends within a record" in log.notes[0]
    assert seen <= set(range(47, 50))
    assert len(seen) > 1


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(EventLogError, match="No event file and no folder"):
        find_runs(tmp_path / "missing")
    with pytest.raises(EventLogError, match="No event files"):
        find_runs(tmp_path)
    (tmp_path / "events.out.tfevents.0").write_bytes(b"no event file at all, but long enough to look at")
    with pytest.raises(EventLogError, match="damaged at byte 0"):
        read_run(tmp_path)
    (tmp_path / "events.out.tfevents.0").write_bytes(b"")
    with pytest.raises(EventLogError, match="No scalars"):
        read_run(tmp_path)


def test_a_flipped_bit_is_damage(tmp_path: Path) -> None:
    file = write(tmp_path, [("a", float(step), step) for step in range(50)])
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    with pytest.raises(EventLogError, match="damaged at byte"):
        read_run(file)


def test_runs_are_found_and_sorted_by_number(tmp_path: Path) -> None:
    for name in ("TD3_10", "TD3_2", "deep/er/TD3_1"):
        write(tmp_path / name, [("a", 1.0, 1)])
    assert [path.name for path in find_runs(tmp_path)] == ["TD3_2", "TD3_10", "TD3_1"]
    assert find_runs(tmp_path / "TD3_2") == [tmp_path / "TD3_2"]


def test_links_to_runs_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "TD3_1").mkdir(parents=True)
    (tmp_path / "elsewhere" / "TD3_1" / "events.out.tfevents.1").touch()
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    (seeds / "seed_1").symlink_to(tmp_path / "elsewhere" / "TD3_1")
    (tmp_path / "elsewhere" / "TD3_1" / "back").symlink_to(seeds)
    assert find_runs(seeds) == [seeds / "seed_1"]
