"""
Read the scalars of TensorBoard event files, also of files that end within a record.

TensorBoard's own ``EventAccumulator`` samples the points of a long series, and does not report damaged records. So
only its record loader is used here, and the bytes that the loader leaves unread are examined.
"""

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
"""Bytes of a record beside its data: 8 for the length and 4 for its checksum before it, 4 for the data's checksum after
it. Source: tensorflow/core/lib/io/record_writer.h."""


@dataclass(frozen=True)
class ScalarSeries:
    """
    The points of one tag, ordered by step.

    :param steps: shape (n,), int64
    :param values: shape (n,), float64; may have NaN and Inf
    """

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


@dataclass(frozen=True)
class RunLog:
    """
    Scalars of one run.

    :param path: folder or event file of the run
    :param scalars: tag -> points
    :param notes: parts that could not be read, in words
    """

    path: Path
    scalars: dict[str, ScalarSeries]
    notes: list[str] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        """Largest step of any tag; 0 if there is none."""
        return max((int(series.steps[-1]) for series in self.scalars.values()), default=0)


def find_runs(path: Path) -> list[Path]:
    """
    :param path: an event file, a run's folder, or a folder of runs or links to runs, at any depth
    :return: every folder with event files, sorted by name; or the file itself
    :raises EventLogError: if the path does not exist, or there is no event file in it
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
    """The folder and all below, each once. Links are followed: a folder of links may gather several seeds."""
    seen: set[str] = set()
    for here, below, _ in os.walk(path, followlinks=True):
        if os.path.realpath(here) in seen:
            below.clear()
        else:
            seen.add(os.path.realpath(here))
            yield Path(here)


def read_run(path: Path) -> RunLog:
    """
    Read all scalars of a run. If a resumed run wrote a tag again from an earlier step on, the later file counts.

    :param path: result of :func:`find_runs`: a folder with event files, or one file
    :return: the scalars; a file that ends within a record is read up to there, with a note
    :raises EventLogError: if there is no event file, one is damaged, or none has a scalar
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
    """Content of one file: time of its first event [s], and tag -> (step, value) in the order of writing."""

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
    except Exception as error:  # of protobuf or the file system; their classes are not documented
        raise EventLogError(f"{file} is damaged at byte {read}: {error}") from error
    left = file.stat().st_size - read
    if left > 0:
        _check_truncated(file, read, left)
        notes.append(f"{file.name} ends within a record: its last {left} bytes were ignored")
    return part


def _check_truncated(file: Path, start: int, left: int) -> None:
    """:raises EventLogError: unless an incomplete but undamaged record begins at ``start``"""
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
    """Sort key that puts TD3_2 before TD3_10."""
    stem, _, number = folder.name.rpartition("_")
    return (str(folder.parent / stem), int(number), "") if number.isdigit() else (str(folder), 0, "")
