"""The folder of a recording: what is written is read again, and what is wrong in it is said with file and line."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from drawn_recordings import straight_recording
from paths import PICTURES

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.errors import RecordingError
from sb3_carla.recordings.pictures import PictureStore
from sb3_carla.recordings.sequence import read_recordings
from sb3_carla.recordings.table import COLUMNS, Row, read_rows, write_rows

MOUNT = CameraMount(40, 30, fov=100.0, x=0.5, z=1.8, pitch=-3.0, y=0.2, yaw=5.0)


def test_rows_are_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    row = Row(
        tmp_path / "a.png",
        "s",
        3,
        1.25,
        "Town01",
        "ClearNoon",
        "left",
        MOUNT,
        math.radians(2.5),
        -0.25,
        12.5,
        0.01,
        1.9,
    )
    write_rows(tmp_path, [row])
    (found,) = read_rows(tmp_path)
    assert found == row


@pytest.mark.parametrize(
    ("column", "text", "complaint"),
    [
        ("station_m", "far", r"recording\.csv: line 3: station_m: expected a finite number, got 'far'"),
        ("lateral_m", "nan", r"line 3: lateral_m: expected a finite number, got 'nan'"),
        ("yaw_deg", "", r"line 3: yaw_deg: expected a text, found nothing"),
        ("width", "0", r"line 3: width: expected a finite number above 0, got '0'"),
        ("frame", "1.5", r"line 3: frame: expected a whole number, got '1.5'"),
        ("fov_deg", "180", r"line 3: fov_deg: expected less than 180, got 180"),
        ("file", "none.png", r"line 3: file: expected a picture at .*none\.png, found none"),
        ("weather", "Rain", r"sequence 'a': expected one weather, got ClearNoon, Rain"),
        ("camera_x_m", "3", r"sequence 'a': camera 'front': expected one mount, got CameraMount\("),
        ("station_m", "-1", r"sequence 'a': frame 1: expected a station of at least 0 m, got -1"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, column: str, text: str, complaint: str) -> None:
    straight_recording(tmp_path, MOUNT, moments=3)
    lines = list(csv.reader((tmp_path / "recording.csv").read_text().splitlines()))
    lines[2][COLUMNS.index(column)] = text
    with (tmp_path / "recording.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    with pytest.raises(RecordingError, match=complaint):
        read_recordings(tmp_path)


def test_no_recording(tmp_path: Path) -> None:
    with pytest.raises(
        RecordingError, match=r"expected recording\.csv in it, or index\.csv beside it, and found neither"
    ):
        read_recordings(tmp_path / "nowhere")
    with pytest.raises(RecordingError, match="recording: expected a folder or a list of folders, got 3"):
        read_recordings(3)  # type: ignore[arg-type]
    (tmp_path / "recording.csv").write_text("file,frame\n")
    with pytest.raises(RecordingError, match=r"line 1: expected the columns sequence, time_s, .*, which are missing"):
        read_recordings(tmp_path)
    straight_recording(tmp_path, MOUNT, moments=1)
    with pytest.raises(RecordingError, match="expected at least 2 pictures of the camera 'front', got 1"):
        read_recordings(tmp_path)


def test_same_names_in_two_folders(tmp_path: Path) -> None:
    folders = [straight_recording(tmp_path / name, MOUNT, moments=3) for name in ("one", "two")]
    assert [sequence.name for sequence in read_recordings(folders)] == ["a", "two/a"]
    with pytest.raises(RecordingError, match="sequence 'one/a': expected another name"):
        read_recordings([folders[0]] * 3)


def test_a_picture_of_another_size(tmp_path: Path) -> None:
    (sequence,) = read_recordings(straight_recording(tmp_path, MOUNT, moments=3))
    path = sequence.files["front"][0]
    assert path is not None
    store = PictureStore(10.0, grey=True)
    assert store.picture(path, MOUNT).shape == (store.lens(MOUNT).height, store.lens(MOUNT).width) == (18, 24)
    with pytest.raises(RecordingError, match=r"picture\.png: expected 41 x 30 pixels, got 40 x 30"):
        store.picture(path, CameraMount(41, 30))
    path.write_bytes(b"no picture")
    with pytest.raises(RecordingError, match="expected a picture, OpenCV cannot read it"):
        PictureStore(11.0, grey=True).picture(path, MOUNT)


def test_lane_of_a_quarter_circle(tmp_path: Path) -> None:
    straight_recording(tmp_path, MOUNT, moments=3)
    rows = read_rows(tmp_path)
    length = 20.0 * math.pi / 2.0  # a quarter of a circle of 20 m, to the right
    write_rows(tmp_path, [
        Row(rows[0].file, "a", i, 0.0, "T", "W", "front", MOUNT, 0.1, 2.0, 5.0 + i * length / 2.0, 1.0 / 20.0, 1.75)
        for i in range(3)
    ])  # fmt: skip
    (sequence,) = read_recordings(tmp_path)
    x, y, heading = sequence.lane(5.0 + length * np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(x, [0.0, 20.0 * math.sin(math.pi / 4.0), 20.0], atol=0.02)
    np.testing.assert_allclose(y, [0.0, 20.0 - 20.0 * math.cos(math.pi / 4.0), 20.0], atol=0.02)
    np.testing.assert_allclose(heading, [0.0, math.pi / 4.0, math.pi / 2.0], atol=0.01)
    # Beyond the last picture it turns on by half a radian, then it is straight.
    ends = sequence.lane(5.0 + length + np.array([12.0, 52.0]))
    np.testing.assert_allclose(ends[2], math.pi / 2.0 + 0.5, atol=0.01)
    assert math.dist(*zip(*ends[:2], strict=True)) == pytest.approx(40.0, abs=0.01)
    # 2 m to the right of the lane, turned by 0.1 against it
    np.testing.assert_allclose(sequence.poses[0], [0.0, 2.0, 0.1], atol=1e-6)
    np.testing.assert_allclose(sequence.poses[2], [18.0, 20.0, math.pi / 2.0 + 0.1], atol=0.15)


def test_nearest_picture(tmp_path: Path) -> None:
    (sequence,) = read_recordings(straight_recording(tmp_path, MOUNT, moments=5, spacing=2.0))
    # The recording camera is 0.5 m before the car: it was at 0.5, 2.5, 4.5, 6.5 and 8.5 m.
    assert [sequence.nearest(place) for place in (-3.0, 0.5, 1.4, 1.6, 4.6, 8.0, 99.0)] == [0, 0, 0, 1, 2, 4, 4]


@pytest.mark.skipif(not (PICTURES / "street").is_dir(), reason="no pictures of CARLA here")
def test_street() -> None:
    (street,) = read_recordings(PICTURES / "street")
    assert (street.name, len(street.stations), list(street.cameras)) == ("street", 270, ["front"])
    assert street.last == pytest.approx(269 * 0.28)
    assert street.front == CameraMount(512, 512, x=2.0, z=2.0, pitch=0.0)
    assert math.degrees(street.heading_errors[0]) == pytest.approx(-3.53)
    assert street.poses[-1, 1] < -5.0  # the street bends to the left
    with pytest.raises(
        RecordingError, match=r"index\.csv: expected rows with a place in the lane for towns/, found none"
    ):
        read_recordings(PICTURES / "towns")
