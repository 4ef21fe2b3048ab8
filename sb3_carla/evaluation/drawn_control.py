"""
The control of an evaluation on recordings: the same cameras at the same poses, drawn by the packaged server.

A street with a lane of the recorded curvature and width is written as OpenDRIVE: two lanes, a yellow line between them,
white lines at their edges, shoulders and pavements. What a policy does on these pictures is what it does in the world
that it learnt in, seen through the same re-projection; the rest of the gap is the recorded pictures' own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import carla
import cv2
import numpy as np

from sb3_carla.client.server_connection import ServerConnection
from sb3_carla.client.server_supervisor import make_supervisor
from sb3_carla.errors import RecordingError
from sb3_carla.recordings.sequence import RecordedSequence
from sb3_carla.recordings.table import Row, write_rows

__all__ = ["can_be_drawn", "draw_recordings", "street_opendrive"]

SHARPEST = 1.0 / 9.0
"""Sharper lanes cannot be drawn, because the other side of the street would fold [1/m]."""
PIECE = 2.0
"""Length of an arc [m]."""
BEFORE, AFTER = 30.0, 58.0
"""Length of straight street before the first picture and beyond the last one [m]."""
SHOULDER, PAVEMENT = 1.0, 2.0
"""Widths beside the lanes [m]."""
TICKS = 10
"""Ticks in which the car settles at a pose, with one picture at their end."""
LANE = (
    '<lane id="{id}" type="{kind}" level="false"><width sOffset="0" a="{width}" b="0" c="0" d="0"/>'
    '<roadMark sOffset="0" type="{mark}" weight="standard" color="white" width="0.15" laneChange="none"/></lane>'
)
CENTRE = (
    '<center><lane id="0" type="none" level="false"><roadMark sOffset="0" type="solid" weight="standard" '
    'color="yellow" width="0.15" laneChange="none"/></lane></center>'
)


def can_be_drawn(sequence: RecordedSequence) -> bool:
    """
    :param sequence: a recording
    :return: whether its lane bends gently enough for a street
    """
    return bool(np.abs(sequence.curvatures).max() <= SHARPEST)


def street_opendrive(sequence: RecordedSequence) -> str:
    """
    A street whose right lane is the recorded one; the world's axes are those of the sequence's plane.

    :param sequence: see :func:`can_be_drawn`
    :return: OpenDRIVE
    """
    half_width = float(sequence.half_widths.mean())
    stations = np.arange(sequence.first, sequence.last + AFTER, PIECE)
    xs, ys, headings = sequence.lane(stations)
    bends = np.append(np.diff(headings) / PIECE, 0.0)  # right positive
    pieces = [(xs[0] - BEFORE, half_width, 0.0, BEFORE, 0.0)]
    for x, y, heading, bend in zip(xs, ys, headings, bends, strict=True):
        # The reference line lies half a lane to the left of the lane's centre, so it is longer where the lane bends to
        # the right. OpenDRIVE's y and angles are left positive.
        stretch = 1.0 + bend * half_width
        left = x + half_width * np.sin(heading), -(y - half_width * np.cos(heading))
        pieces.append((*left, -heading, PIECE * stretch, -bend / stretch))
    plan, station = [], 0.0
    for x, y, heading, length, curvature in pieces:
        shape = f'<arc curvature="{float(curvature)!r}"/>' if abs(curvature) > 1e-9 else "<line/>"
        place = " ".join(f'{k}="{float(v)!r}"' for k, v in (("s", station), ("x", x), ("y", y), ("hdg", heading)))
        plan.append(f'<geometry {place} length="{float(length)!r}">{shape}</geometry>')
        station += float(length)
    sides = {}
    for sign in (1, -1):
        lanes = [("driving", 2.0 * half_width, "solid"), ("shoulder", SHOULDER, "none"), ("sidewalk", PAVEMENT, "none")]
        numbered = [
            LANE.format(id=sign * (i + 1), kind=kind, width=width, mark=mark)
            for i, (kind, width, mark) in enumerate(lanes)
        ]
        sides[sign] = "".join(numbered[::-1] if sign > 0 else numbered)
    return (
        '<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="4" name="Street" version="1" north="0" '
        f'south="0" east="0" west="0"/><road name="Street" length="{station!r}" id="1" junction="-1"><link/>'
        f"<planView>{''.join(plan)}</planView><elevationProfile/><lateralProfile/>"
        f'<lanes><laneSection s="0"><left>{sides[1]}</left>{CENTRE}<right>{sides[-1]}</right></laneSection></lanes>'
        "</road></OpenDRIVE>"
    )


def draw_recordings(sequences: Sequence[RecordedSequence], folder: Path) -> Path:
    """
    Let the packaged server draw what each recorded camera would see on a street of the same geometry.

    :param sequences: recordings with one set of cameras each
    :param folder: to write; becomes a recording with the same sequences, less those that cannot be drawn
    :return: the folder
    :raises RecordingError: if none can be drawn
    :raises ServerError: if the server fails
    """
    drawable = [sequence for sequence in sequences if can_be_drawn(sequence)]
    if not drawable:
        raise RecordingError(f"expected a lane without bends of less than {1.0 / SHARPEST:g} m radius, found none")
    rows: list[Row] = []
    for number, sequence in enumerate(drawable):
        place = folder / f"{number:03d}"
        place.mkdir(parents=True)
        rows += _draw(sequence, place)
    write_rows(folder, rows)
    return folder


def _draw(sequence: RecordedSequence, folder: Path) -> list[Row]:
    town = folder / "street.xodr"
    town.write_text(street_opendrive(sequence), encoding="utf-8")
    mounts = {name: dataclasses.replace(mount, on_demand=False) for name, mount in sequence.cameras.items()}
    connection = ServerConnection(
        None, 0, make_supervisor(None, None), list(mounts.values()), timeout=60.0, delta_seconds=0.05,
        ticks_per_image=TICKS,
    )  # fmt: skip
    weather = sequence.weather if hasattr(carla.WeatherParameters, sequence.weather) else "ClearNoon"
    rows = []
    try:
        session = connection.session_for(str(town))
        session.load_town(str(town))
        session.set_weather(weather)
        for i, (x, y, heading) in enumerate(sequence.poses.tolist()):
            session.place(x, y, 0.0, heading)
            for camera, mount in mounts.items():
                picture = session.image(mount)[:, :, :3]
                if sequence.files[camera][i] is None:
                    continue
                path = folder / f"{camera}_{i:05d}.png"
                cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
                rows.append(Row(
                    path, sequence.name, i, 0.0, sequence.town, sequence.weather, camera, mount,
                    float(sequence.heading_errors[i]), float(sequence.lateral_offsets[i]),
                    float(sequence.stations[i]), float(sequence.curvatures[i]), float(sequence.half_widths[i]),
                ))  # fmt: skip
    finally:
        connection.close()
    return rows
