"""Scalars of TensorBoard event files, whoever wrote them and however they end."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util import tensor_util

from sb3_carla.errors import EventLogError

__all__ = ["RunLog", "ScalarSeries", "find_runs", "read_run"]

PATTERN = "*tfevents*"
FRAME, HEADER = 16, 12
"""Bytes around a record (length, its checksum, the data's checksum), and before it."""


@dataclass(frozen=True)
class ScalarSeries:
    """
    One tag's points, in the order of their steps.

    :param steps: shape (n,), int64
    :param values: shape (n,), float64; NaN and Inf as they were written
    """

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


@dataclass(frozen=True)
class RunLog:
    """
    What one run wrote.

    :param path: its folder, or the one file that was asked for
    :param scalars: tag -> points
    :param notes: what could not be read, in words
    """

    path: Path
    scalars: dict[str, ScalarSeries]
    notes: list[str] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        """Largest step of any tag; 0 without any."""
        return max((int(series.steps[-1]) for series in self.scalars.values()), default=0)


def find_runs(path: Path) -> list[Path]:
    """
    :param path: an event file, a run's folder, or a folder of runs, or links to them, however deep
    :return: every folder that holds event files, sorted by name; or the file itself
    :raises EventLogError: if there is nothing there, or no event file in it
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise EventLogError(f"No event file and no folder at {path.resolve()}")
    runs = sorted((folder for folder in _folders(path) if any(map(Path.is_file, folder.glob(PATTERN)))), key=_by_number)
    if not runs:
        raise EventLogError(f"No event files ({PATTERN}) in {path.resolve()} or below")
    return runs


def _folders(path: Path) -> Iterator[Path]:
    """The folder and those below, each once, links followed too: a folder of links is how seeds are gathered."""
    seen: set[str] = set()
    for here, below, _ in os.walk(path, followlinks=True):
        if os.path.realpath(here) in seen:
            below.clear()
        else:
            seen.add(os.path.realpath(here))
            yield Path(here)


def read_run(path: Path) -> RunLog:
    """
    All scalars of a run. Where a resumed run wrote a tag again from an earlier step on, the later file counts.

    :param path: of :func:`find_runs`: a folder with event files, or one file
    :return: its points; a file whose end is missing is read as far as it goes, with a note
    :raises EventLogError: if there is no event file, one is damaged, or none holds a scalar
    """
    files = [path] if path.is_file() else [file for file in path.glob(PATTERN) if file.is_file()]
    if not files:
        raise EventLogError(f"No event files ({PATTERN}) in {path.resolve()}")
    notes: list[str] = []
    parts = [part for part in (_read_file(file, notes) for file in files) if part.points]
    points: dict[str, list[tuple[int, float]]] = {}
    for part in sorted(parts, key=lambda part: part.started):
        for tag, new in part.points.items():
            first = min(step for step, _ in new)
            points[tag] = [point for point in points.get(tag, []) if point[0] < first] + new
    if not points:
        raise EventLogError(f"No scalars in {path.resolve()}" + "".join(f"; {note}" for note in notes))
    return RunLog(path, {tag: _series(pairs) for tag, pairs in sorted(points.items())}, notes)


@dataclass
class _Part:
    """One file: when its first event was written [s], and tag -> (step, value) in the order of writing."""

    started: float = 0.0
    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def _read_file(file: Path, notes: list[str]) -> _Part:
    part, read = _Part(), 0
    try:
        for record in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(record)
            part.started = part.started or event.wall_time
            for tag, value in _scalars(event):
                part.points.setdefault(tag, []).append((event.step, value))
            read += len(record) + FRAME
    except Exception as error:  # of protobuf, or of the file system: their classes are no interface
        raise EventLogError(f"{file} is damaged at byte {read}: {error}") from error
    left = file.stat().st_size - read
    if left > 0:
        _check_truncated(file, read, left)
        notes.append(f"{file.name} ends within a record: its last {left} bytes were left out")
    return part


def _check_truncated(file: Path, start: int, left: int) -> None:
    """:raises EventLogError: unless what follows ``start`` is the beginning of a sound record"""
    with file.open("rb") as stream:
        stream.seek(start)
        header = stream.read(HEADER)
    if len(header) < HEADER:
        return
    length, checksum = struct.unpack("<QI", header)
    if masked_crc32c(header[:8]) != checksum or length + FRAME <= left:
        raise EventLogError(f"{file} is damaged at byte {start}: a checksum does not match")


def _scalars(event: Event) -> Iterator[tuple[str, float]]:
    for value in event.summary.value:
        if value.HasField("simple_value"):
            yield value.tag, value.simple_value
        elif _is_scalar_tensor(value):  # TensorFlow 2's writers
            yield value.tag, float(tensor_util.make_ndarray(value.tensor).item())


def _is_scalar_tensor(value: Summary.Value) -> bool:
    return bool(value.HasField("tensor")) and value.metadata.plugin_data.plugin_name == "scalars"


def _series(pairs: list[tuple[int, float]]) -> ScalarSeries:
    pairs = sorted(pairs, key=lambda pair: pair[0])  # stable: points of one step stay in their order
    steps, values = zip(*pairs, strict=True)
    return ScalarSeries(np.array(steps, np.int64), np.array(values, np.float64))


def _by_number(folder: Path) -> tuple[str, int, str]:
    """TD3_2 before TD3_10."""
    stem, _, number = folder.name.rpartition("_")
    return (str(folder.parent / stem), int(number), "") if number.isdigit() else (str(folder), 0, "")
