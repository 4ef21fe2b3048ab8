"""
The folder of a recording: pictures, and ``recording.csv`` with one row for each picture.

| column | meaning |
| --- | --- |
| ``file`` | path of the picture, relative to the folder |
| ``sequence`` | name of the drive that the picture belongs to |
| ``frame`` | whole number; pictures of one moment have the same, and it grows along the drive |
| ``time_s`` | simulated time since the drive began [s] |
| ``town``, ``weather`` | texts, the same for a whole sequence |
| ``camera`` | name; the first one of a sequence is the front camera |
| ``width``, ``height`` | size of the picture [px] |
| ``fov_deg`` | horizontal field of view [deg] |
| ``camera_x_m``, ``camera_y_m`` | camera on the car: ahead of its centre, and right of it [m] |
| ``camera_z_m`` | camera's height over the road [m] |
| ``camera_pitch_deg``, ``camera_yaw_deg`` | against the car, up and right positive [deg] |
| ``yaw_deg`` | car's heading minus the lane's direction, right positive [deg] |
| ``lateral_m`` | from the lane's centre to the car's, right positive [m] |
| ``station_m`` | distance of the car along its lane [m] |
| ``lane_curvature_1pm`` | curvature of the lane at the car, positive where it bends to the right [1/m] |
| ``lane_half_width_m`` | half of the lane's width [m]; empty if it is not known |

An index of several folders, ``../index.csv``, is read as well. It has ``camera_height_m`` and ``pitch_deg`` for the
camera, and no stations: its pictures are ``INDEX_SPACING`` apart. Rows without a place in the lane are left out.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.errors import RecordingError

__all__ = ["COLUMNS", "FILE_NAME", "HALF_WIDTH", "INDEX_SPACING", "Row", "read_rows", "write_rows"]

FILE_NAME = "recording.csv"
COLUMNS = (
    "file", "sequence", "frame", "time_s", "town", "weather", "camera", "width", "height", "fov_deg", "camera_x_m",
    "camera_y_m", "camera_z_m", "camera_pitch_deg", "camera_yaw_deg", "yaw_deg", "lateral_m", "station_m",
    "lane_curvature_1pm", "lane_half_width_m",
)  # fmt: skip
INDEX_COLUMNS = (
    "file", "sequence", "frame", "town", "weather", "width", "height", "fov_deg", "camera_x_m", "camera_height_m",
    "pitch_deg", "yaw_deg", "lateral_m", "lane_curvature_1pm",
)  # fmt: skip
INDEX_SPACING = 0.28
"""Distance between two pictures of an index [m]."""
HALF_WIDTH = 1.75
"""Half of a lane's width where a recording does not tell it [m]: lanes of CARLA's towns are 3.5 m wide."""


@dataclass(frozen=True, slots=True)
class Row:
    """
    One picture. Angles of the car are in radians, those of the camera in degrees, as in CARLA.

    :param file: path of the picture
    :param sequence: name of the drive
    :param frame: moment of the drive
    :param time: since the drive began [s]
    :param town: name
    :param weather: name
    :param camera: name
    :param mount: size, field of view and place of the camera on the car
    :param heading_error: car's heading minus the lane's, right positive [rad]
    :param lateral_offset: from the lane's centre to the car's, right positive [m]
    :param station: distance along the lane [m]
    :param curvature: of the lane, right positive [1/m]
    :param half_width: half of the lane's width [m]
    """

    file: Path
    sequence: str
    frame: int
    time: float
    town: str
    weather: str
    camera: str
    mount: CameraMount
    heading_error: float
    lateral_offset: float
    station: float
    curvature: float
    half_width: float


def read_rows(folder: Path) -> list[Row]:
    """
    :param folder: with ``recording.csv``, or one of the folders of ``../index.csv``
    :return: its pictures, in the order of the file
    :raises RecordingError: if there is no such file, or a line is not as it must be: file, line, and what was expected
    """
    path = folder / FILE_NAME
    if path.is_file():
        return [_row(fields, folder) for fields in _lines(path, COLUMNS)]
    index = folder.parent / "index.csv"
    if not index.is_file():
        raise RecordingError(f"{folder}: expected {FILE_NAME} in it, or index.csv beside it, and found neither")
    of_folder = (f for f in _lines(index, INDEX_COLUMNS) if f.text("file").startswith(f"{folder.name}/"))
    rows = [_index_row(fields, folder.parent) for fields in of_folder if fields.has("sequence", "frame", "yaw_deg")]
    if not rows:
        raise RecordingError(f"{index}: expected rows with a place in the lane for {folder.name}/, found none")
    return rows


def write_rows(folder: Path, rows: list[Row]) -> None:
    """
    Write ``recording.csv``.

    :param folder: that holds the pictures
    :param rows: one for each picture, with files in the folder
    """
    with (folder / FILE_NAME).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_cells(row, folder) for row in rows)


def _cells(row: Row, folder: Path) -> list[object]:
    mount = row.mount
    return [
        row.file.relative_to(folder).as_posix(), row.sequence, row.frame, f"{row.time:.3f}", row.town, row.weather,
        row.camera, mount.width, mount.height, mount.fov, mount.x, mount.y, mount.z, mount.pitch, mount.yaw,
        f"{math.degrees(row.heading_error):.4f}", f"{row.lateral_offset:.4f}", f"{row.station:.4f}",
        f"{row.curvature:.6f}", f"{row.half_width:.3f}",
    ]  # fmt: skip


class _Fields:
    """The cells of one line, by column; errors name the line."""

    def __init__(self, cells: dict[str, str | None], place: str) -> None:
        self._cells, self.place = cells, place

    def has(self, *columns: str) -> bool:
        """Whether none of the cells is empty."""
        return all(self._cells[column] for column in columns)

    def text(self, column: str) -> str:
        value = self._cells[column]
        if not value:
            raise RecordingError(f"{self.place}: {column}: expected a text, found nothing")
        return value

    def number(self, column: str, *, above: float = -math.inf) -> float:
        return self._parsed(column, float, above)

    def whole(self, column: str, *, above: int = -1) -> int:
        value = self._parsed(column, float, above)  # pandas writes whole numbers beside empty cells as 3.0
        if value != int(value):
            raise RecordingError(f"{self.place}: {column}: expected a whole number, got {self._cells[column]!r}")
        return int(value)

    def _parsed(self, column: str, parse: Callable[[str], float], above: float) -> float:
        text = self.text(column)
        try:
            value = parse(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > above):
            least = "" if above == -math.inf else f" above {above:g}"
            raise RecordingError(f"{self.place}: {column}: expected a finite number{least}, got {text!r}")
        return value


def _lines(path: Path, columns: tuple[str, ...]) -> Iterator[_Fields]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise RecordingError(f"{path}: line 1: expected the columns {', '.join(missing)}, which are missing")
            for cells in reader:
                yield _Fields({column: cells[column] for column in columns}, f"{path}: line {reader.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(f"{path}: expected a CSV file in UTF-8: {error}") from error


def _row(fields: _Fields, folder: Path) -> Row:
    half_width = fields.number("lane_half_width_m", above=0.0) if fields.has("lane_half_width_m") else HALF_WIDTH
    mount = _mount(
        fields, y=fields.number("camera_y_m"), z=fields.number("camera_z_m", above=0.0),
        pitch=fields.number("camera_pitch_deg"), yaw=fields.number("camera_yaw_deg"),
    )  # fmt: skip
    return Row(
        _picture(fields, folder), fields.text("sequence"), fields.whole("frame"), fields.number("time_s"),
        fields.text("town"), fields.text("weather"), fields.text("camera"), mount,
        math.radians(fields.number("yaw_deg")), fields.number("lateral_m"), fields.number("station_m"),
        fields.number("lane_curvature_1pm"), half_width,
    )  # fmt: skip


def _index_row(fields: _Fields, folder: Path) -> Row:
    mount = _mount(fields, y=0.0, z=fields.number("camera_height_m", above=0.0), pitch=fields.number("pitch_deg"))
    frame = fields.whole("frame")
    return Row(
        _picture(fields, folder), fields.text("sequence"), frame, frame * INDEX_SPACING, fields.text("town"),
        fields.text("weather"), "front", mount, math.radians(fields.number("yaw_deg")), fields.number("lateral_m"),
        frame * INDEX_SPACING, fields.number("lane_curvature_1pm"), HALF_WIDTH,
    )  # fmt: skip


def _mount(fields: _Fields, *, y: float, z: float, pitch: float, yaw: float = 0.0) -> CameraMount:
    fov = fields.number("fov_deg", above=0.0)
    if fov >= 180.0:
        raise RecordingError(f"{fields.place}: fov_deg: expected less than 180, got {fov:g}")
    size = fields.whole("width", above=0), fields.whole("height", above=0)
    return CameraMount(*size, fov=fov, x=fields.number("camera_x_m"), z=z, pitch=pitch, y=y, yaw=yaw)


def _picture(fields: _Fields, folder: Path) -> Path:
    path = folder / fields.text("file")
    if not path.is_file():
        raise RecordingError(f"{fields.place}: file: expected a picture at {path}, found none")
    return path
