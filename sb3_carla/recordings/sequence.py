"""A recorded drive: where its lane lies in a plane, and where each of its pictures was taken."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.errors import RecordingError
from sb3_carla.recordings.table import Row, read_rows

__all__ = ["RecordedSequence", "read_recordings"]

STEP = 0.1
"""Distance of the points at which the lane's curvature is summed up [m]."""
BEYOND = 60.0
"""The lane is continued for this length beyond its last picture [m]; nothing looks further ahead."""
SAME_BEND, MOST_TURN = 20.0, 0.5
"""At first it goes on with its last curvature: for this length [m], and up to this angle [rad]. Then it is straight."""


@dataclass(frozen=True)
class RecordedSequence:
    """
    A recorded drive of n moments. The plane's x axis is the lane's direction at the first of them, y points right.

    :param name: unique among the recordings that were read together
    :param town: name
    :param weather: name
    :param cameras: by name, the front camera first
    :param files: by camera, n paths; None where a moment has no picture of this camera
    :param stations: shape (n,), float64, distances along the lane, rising [m]
    :param lateral_offsets: shape (n,), float64, to the right of the lane's centre [m]
    :param heading_errors: shape (n,), float64, against the lane's direction, right positive [rad]
    :param curvatures: shape (n,), float64, of the lane, right positive [1/m]
    :param half_widths: shape (n,), float64, of the lane [m]
    """

    name: str
    town: str
    weather: str
    cameras: dict[str, CameraMount]
    files: dict[str, list[Path | None]]
    stations: NDArray[np.float64]
    lateral_offsets: NDArray[np.float64]
    heading_errors: NDArray[np.float64]
    curvatures: NDArray[np.float64]
    half_widths: NDArray[np.float64]
    poses: NDArray[np.float64] = field(init=False, repr=False)
    """Of the car at each moment: shape (n, 3), float64, x, y [m], heading [rad]."""
    _lane: tuple[NDArray[np.float64], ...] = field(init=False, repr=False)
    """Station, x, y [m] and heading [rad] of the lane's centre every ``STEP``."""

    def __post_init__(self) -> None:
        # Midpoint rule: the curvature between two points, then the direction between two points.
        grid = np.arange(self.first, self.last + BEYOND, STEP)
        bends = np.interp(grid + 0.5 * STEP, self.stations, self.curvatures)
        bends[grid > self.last + min(SAME_BEND, MOST_TURN / max(abs(bends[-1]), 1e-9))] = 0.0
        headings = np.concatenate(([0.0], np.cumsum(bends * STEP)))[:-1]
        middle = headings + 0.5 * STEP * bends
        places = np.stack([np.cos(middle), np.sin(middle)]) * STEP
        places = np.concatenate((np.zeros((2, 1)), np.cumsum(places, axis=1)), axis=1)[:, :-1]
        object.__setattr__(self, "_lane", (grid, *places, headings))
        x, y, headings = self.lane(self.stations)
        poses = np.stack([
            x - self.lateral_offsets * np.sin(headings),
            y + self.lateral_offsets * np.cos(headings),
            headings + self.heading_errors,
        ], axis=1)  # fmt: skip
        object.__setattr__(self, "poses", poses)

    @property
    def first(self) -> float:
        """Station of the first picture [m]."""
        return float(self.stations[0])

    @property
    def last(self) -> float:
        """Station of the last picture [m]."""
        return float(self.stations[-1])

    @property
    def front(self) -> CameraMount:
        """The front camera."""
        return next(iter(self.cameras.values()))

    def lane(
        self, stations: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """
        :param stations: shape (k,), float64, distances along the lane [m]
        :return: x, y [m] and heading [rad] of the lane's centre: each of shape (k,), float64
        """
        grid, x, y, headings = self._lane
        return np.interp(stations, grid, x), np.interp(stations, grid, y), np.interp(stations, grid, headings)

    def nearest(self, camera_station: float) -> int:
        """
        :param camera_station: distance of a camera along the lane [m]
        :return: index of the moment whose front camera was nearest to it
        """
        wanted = camera_station - self.front.x
        after = int(np.searchsorted(self.stations, wanted))
        if after == 0 or after == len(self.stations):
            return min(after, len(self.stations) - 1)
        return after - int(wanted - self.stations[after - 1] <= self.stations[after] - wanted)


def read_recordings(folders: str | Path | Sequence[str | Path]) -> list[RecordedSequence]:
    """
    :param folders: one or several folders, see :mod:`sb3_carla.recordings.table`
    :return: their drives in the order of the files; names that occur twice get their folder's name in front
    :raises RecordingError: if a folder or a line is not as it must be
    """
    listed = list(folders) if isinstance(folders, Sequence) and not isinstance(folders, str) else [folders]
    if not listed or not all(isinstance(folder, (str, Path)) for folder in listed):
        raise RecordingError(f"recording: expected a folder or a list of folders, got {folders!r}")
    found: list[RecordedSequence] = []
    names = set()
    for folder in map(Path, listed):
        rows = read_rows(folder)
        for name in dict.fromkeys(row.sequence for row in rows):
            members = [row for row in rows if row.sequence == name]
            unique = name if name not in names else f"{folder.name}/{name}"
            if unique in names:
                raise RecordingError(f"{folder}: sequence {unique!r}: expected another name, as this one is taken")
            names.add(unique)
            found.append(_sequence(unique, members, folder))
    return found


def _sequence(name: str, rows: list[Row], folder: Path) -> RecordedSequence:
    """One drive from its rows."""
    place = f"{folder}: sequence {name!r}"
    cameras: dict[str, CameraMount] = {}
    for row in rows:
        if cameras.setdefault(row.camera, row.mount) != row.mount:
            raise RecordingError(f"{place}: camera {row.camera!r}: expected one mount, got {row.mount} at {row.file}")
    for key in ("town", "weather"):
        values = sorted({getattr(row, key) for row in rows})
        if len(values) > 1:
            raise RecordingError(f"{place}: expected one {key}, got {', '.join(values)}")
    front = next(iter(cameras))
    moments = sorted((row for row in rows if row.camera == front), key=lambda row: row.frame)
    if len(moments) < 2:
        raise RecordingError(f"{place}: expected at least 2 pictures of the camera {front!r}, got {len(moments)}")
    for before, row in itertools.pairwise(moments):
        if row.station < before.station:
            raise RecordingError(
                f"{place}: frame {row.frame}: expected a station of at least {before.station:g} m, got {row.station:g}"
            )
    by_moment = {(row.camera, row.frame): row.file for row in rows}
    return RecordedSequence(
        name, rows[0].town, rows[0].weather, cameras,
        {camera: [by_moment.get((camera, row.frame)) for row in moments] for camera in cameras},
        *(np.array([getattr(row, key) for row in moments], np.float64)
          for key in ("station", "lateral_offset", "heading_error", "curvature", "half_width")),
    )  # fmt: skip
