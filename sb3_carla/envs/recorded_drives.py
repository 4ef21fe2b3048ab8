"""The drives that recordings are cut into, and which of them an episode of ``CarlaRecorded-v0`` begins with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import carla
import numpy as np

from sb3_carla.checks import check_finite
from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.envs.route import OUTLOOK, SPACING, LaneRoute
from sb3_carla.errors import RecordingError
from sb3_carla.recordings.sequence import RecordedSequence

__all__ = ["OPTIONS", "RecordedDrive", "RecordedSetup", "recorded_drives", "recorded_route", "recorded_setup"]

SHORTEST = 20.0
"""A drive is at least this long [m]."""
OPTIONS = ("sequence", "station", "lateral_offset", "heading_error")


@dataclass(frozen=True, slots=True)
class _Waypoint:
    """What a route asks of a ``carla.Waypoint``."""

    transform: Any
    lane_width: float


class RecordedDrive(NamedTuple):
    """
    A piece of a recording.

    :param number: of the drive
    :param sequence: that it is a piece of
    :param start: station of its start [m]
    :param length: [m]
    """

    number: int
    sequence: RecordedSequence
    start: float
    length: float


class RecordedSetup(NamedTuple):
    """
    What an episode begins with.

    :param drive: to its end
    :param station: of the start on the recorded lane [m]
    :param lateral_offset: of the car, right positive [m]
    :param heading_error: of the car, right positive [rad]
    """

    drive: RecordedDrive
    station: float
    lateral_offset: float
    heading_error: float


def recorded_drives(
    sequences: Sequence[RecordedSequence], mount: CameraMount, route_length: float
) -> list[RecordedDrive]:
    """
    Cut recordings into drives of equal length, none longer than a route.

    :param sequences: recordings
    :param mount: of the camera that will look at them: a drive begins where a picture was taken
    :param route_length: longest drive [m]
    :return: drives, in order
    :raises RecordingError: if a recording is too short
    """
    drives: list[RecordedDrive] = []
    for sequence in sequences:
        first = sequence.first + max(sequence.front.x - mount.x, 0.0)
        whole = sequence.last - first
        if whole < SHORTEST:
            raise RecordingError(f"sequence {sequence.name!r}: expected at least {SHORTEST:g} m, got {whole:.1f} m")
        pieces = math.ceil(whole / route_length - 1e-9)
        for i in range(pieces):
            drives.append(RecordedDrive(len(drives), sequence, first + i * whole / pieces, whole / pieces))
    return drives


def recorded_route(sequence: RecordedSequence, station: float, length: float) -> LaneRoute:
    """
    :param sequence: a recording
    :param station: where the route starts [m]
    :param length: to drive [m]
    :return: the lane's centre from there on, with what can be seen beyond its end
    """
    stations = np.arange(station, station + length + OUTLOOK, SPACING)
    stations = np.sort(np.append(stations, station + length))
    widths = 2.0 * np.interp(stations, sequence.stations, sequence.half_widths)
    waypoints = [
        _Waypoint(carla.Transform(carla.Location(x, y, 0.0)), width)
        for x, y, width in zip(*(axis.tolist() for axis in sequence.lane(stations)[:2]), widths.tolist(), strict=True)
    ]
    return LaneRoute(waypoints, length)


def recorded_setup(
    drives: Sequence[RecordedDrive], options: Mapping[str, Any], rng: np.random.Generator
) -> RecordedSetup:
    """
    :param drives: to draw from
    :param options: of ``reset``: those of ``OPTIONS``, all optional
    :param rng: for the drive, if the options name none
    :return: what the episode begins with
    :raises ValueError: if an option is unknown, or not what it may be
    """
    unknown = sorted(options.keys() - set(OPTIONS))
    if unknown:
        raise ValueError(f"reset: unknown options {unknown}, expected {', '.join(OPTIONS)} or resume")
    numbers: dict[str, Any] = {name: options[name] for name in OPTIONS[1:] if options.get(name) is not None}
    check_finite(**numbers)
    name = options.get("sequence")
    members = [drive for drive in drives if name is None or drive.sequence.name == name]
    if not members:
        known = ", ".join(dict.fromkeys(drive.sequence.name for drive in drives))
        raise ValueError(f"reset: sequence: expected one of {known}, got {name!r}")
    station = numbers.get("station")
    if station is not None:
        members = [drive for drive in members if drive.start <= station < drive.start + drive.length - 5.0]
        if not members:
            raise ValueError(f"reset: station: expected one on a drive, 5 m before its end or earlier, got {station!r}")
    lengths = np.array([drive.length for drive in members])
    drive = members[0] if len(members) == 1 else members[int(rng.choice(len(members), p=lengths / lengths.sum()))]
    return RecordedSetup(
        drive, drive.start if station is None else station, numbers.get("lateral_offset", 0.0),
        numbers.get("heading_error", 0.0),
    )  # fmt: skip
