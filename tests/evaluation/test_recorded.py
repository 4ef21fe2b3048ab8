"""Evaluation on recordings: scores by hand, the command, the recorder on the packaged server, the drawn control."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from drawn_recordings import straight_recording

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.errors import RecordingError
from sb3_carla.evaluation import Case, Env, scripted_policy
from sb3_carla.evaluation.command import main
from sb3_carla.evaluation.drawn_control import can_be_drawn, draw_recordings
from sb3_carla.evaluation.episodes import Act
from sb3_carla.evaluation.recorded import evaluate_recordings, recorded_cases
from sb3_carla.evaluation.recorded_command import recorded_arguments
from sb3_carla.evaluation.recorded_validity import compare_with_environment
from sb3_carla.evaluation.recorder import CAMERAS, DriveRecorder
from sb3_carla.evaluation.response import Probe, summarize
from sb3_carla.recordings.pictures import PictureStore
from sb3_carla.recordings.reprojection import Reprojector, Source
from sb3_carla.recordings.sequence import read_recordings
from sb3_carla.recordings.table import Row, read_rows, write_rows

CAMERA = CameraMount(168, 168, fov=100.0, x=2.0)
KWARGS: dict[str, Any] = {"action_repeat": 4, "control": {"longitudinal": "speed", "lateral_acceleration": 6.0}}


def left_policy(env: Env, case: Case) -> Act:
    """Always to the left."""
    return lambda observation: np.array([-0.3, 1.0], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A straight lane of 79 m."""
    return straight_recording(tmp_path / "straight", CAMERA, moments=80)


def test_response_by_hand() -> None:
    def probe(turned: float, shifted: float, steering: float, curvature: float = 0.0) -> Probe:
        return Probe("ClearNoon", curvature, turned, shifted, steering)

    found = summarize([
        probe(0.0, 0.0, 0.1), probe(0.0, 0.0, 0.9, curvature=0.008),
        probe(-5.0, 0.0, 0.2), probe(5.0, 0.0, 0.1), probe(-10.0, 0.0, 0.4), probe(10.0, 0.0, -0.4),
        probe(0.0, -0.3, 0.3), probe(0.0, 0.3, -0.3), probe(0.0, -0.6, 0.6), probe(0.0, 0.6, -0.6),
    ])  # fmt: skip
    assert found.right_signs == {"5 deg": 0.5, "10 deg": 1.0, "0.3 m": 1.0, "0.6 m": 1.0}
    # (-0.5 * 0.2 + 0.5 * 0.1 - 1 * 0.4 - 1 * 0.4) / (0.25 + 0.25 + 1 + 1)
    assert found.per_10_deg == pytest.approx(-0.85 / 2.5)
    assert found.per_metre == pytest.approx(-1.0)
    assert found.straight == pytest.approx(0.1)  # a bend of 125 m radius is no straight
    assert found.places == 2
    assert math.isnan(summarize([]).straight)


def test_scores(folder: Path, tmp_path: Path) -> None:
    ended = []
    policies = {"left": left_policy, "scripted": scripted_policy}
    found = evaluate_recordings(policies, [folder], KWARGS, on_episode=lambda: ended.append(1))
    assert len(ended) == 10
    left, scripted = (result.scores() for result in found.results)
    assert (scripted["drives"], scripted["completed"], scripted["metres_a_departure"]) == (5, 1.0, math.inf)
    assert scripted["mean_offset_m"] < 0.1
    assert scripted["response"].right_signs == dict.fromkeys(("5 deg", "10 deg", "0.3 m", "0.6 m"), 1.0)
    assert (left["completed"], left["metres_a_departure"]) == (0.0, pytest.approx(left["metres"] / 5.0))
    assert left["response"].straight == pytest.approx(-0.3)
    assert left["response"].right_signs["5 deg"] == 0.5
    assert found.worst().sequence == "a"
    table = found.table()
    assert "| recorded | left | all | 5 | 0% [0, 43] |" in table
    assert "> 38" in table or "> 39" in table  # five drives of 78 m less the margin at their end
    found.save(tmp_path / "scores.json")
    saved = json.loads((tmp_path / "scores.json").read_text())
    assert saved["results"][1]["scores"]["all"]["metres_a_departure"] is None
    assert len(saved["results"][0]["drives"]) == 5


def test_by_weather(folder: Path, tmp_path: Path) -> None:
    rain = straight_recording(tmp_path / "rain", CAMERA, moments=30, name="b")
    text = (rain / "recording.csv").read_text().replace("ClearNoon", "HardRainNoon")
    (rain / "recording.csv").write_text(text)
    found = evaluate_recordings({"scripted": scripted_policy}, [folder, rain], KWARGS, starts=((0.0, 0.0),))
    assert [row[2:4] for row in found.rows()[1:]] == [["all", "2"], ["ClearNoon", "1"], ["HardRainNoon", "1"]]


def test_cases(folder: Path) -> None:
    env = gym.make("CarlaRecorded-v0", recording=folder)
    found = recorded_cases(env)
    assert [(case.lateral_offset, round(math.degrees(case.heading_error))) for case in found] == [
        (0.0, 0), (-0.4, 0), (0.4, 0), (0.0, -4), (0.0, 4)
    ]  # fmt: skip
    assert found[1].options == {"sequence": "a", "station": 0.8, "lateral_offset": -0.4, "heading_error": 0.0}


def test_arguments_that_a_recording_has_no_use_for() -> None:
    assert recorded_arguments({"town": "A", "n_npcs": 3, "frame_stack": 2, "target_speed": 6.0}) == {
        "frame_stack": 2, "target_speed": 6.0,
    }  # fmt: skip


def test_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out" / "scores.json"
    arguments = ["--model", "none", "--recording", str(folder), "--no-control", "--output", str(output)]
    main([*arguments, "--env-kwargs", json.dumps(KWARGS)])
    assert "| recorded | scripted | all | 5 | 100% [57, 100] |" in capsys.readouterr().out
    assert json.loads(output.read_text())["settings"]["env_kwargs"] == KWARGS


@pytest.mark.long
def test_command_with_control_and_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = straight_recording(tmp_path / "straight", CAMERA, moments=30), tmp_path / "scores.json"
    arguments = ["--model", "none", "--recording", str(folder), "--video", "--output", str(output)]
    main([*arguments, "--env-kwargs", json.dumps(KWARGS)])
    assert "| drawn | scripted | all | 5 | 100% [57, 100] |" in capsys.readouterr().out
    assert output.with_suffix(".webm").stat().st_size > 1000


def test_recorder(tmp_path: Path) -> None:
    recorder = DriveRecorder(tmp_path / "drive", cameras=("front", "left"), spacing=1.0)
    rows = recorder.record(["Circuit08"], ["ClearNoon"], 30.0)
    assert len(read_rows(tmp_path / "drive")) == len(rows)
    with pytest.raises(FileExistsError, match="expected no recording, there is one"):
        recorder.record(["Circuit08"], ["ClearNoon"], 30.0)
    (sequence,) = read_recordings(tmp_path / "drive")
    assert (sequence.name, sequence.town, sequence.weather) == ("Circuit08-ClearNoon-0", "Circuit08", "ClearNoon")
    assert list(sequence.cameras) == ["front", "left"]
    assert np.diff(sequence.stations)[:-1].min() >= 1.0
    assert sequence.last == pytest.approx(28.7, abs=0.5)  # a route ends 1.5 m before its last point
    # The side camera saw what the front one did, where both looked: its place and direction are those of the file.
    left, store = CAMERAS["left"], PictureStore(Reprojector(CAMERAS["left"]).focal, grey=True)
    pictures = {name: store.picture(_path(sequence.files[name][10]), CAMERAS[name]) for name in ("front", "left")}
    pose = tuple(sequence.poses[10].tolist())
    source = Source(pictures["front"], store.lens(CAMERAS["front"]), CAMERAS["front"], pose)  # type: ignore[arg-type]
    found, seen = Reprojector(left).view([source], pose)  # type: ignore[arg-type]
    assert 0.3 < seen.mean() < 0.9
    assert np.abs(found.astype(int) - pictures["left"])[seen].mean() < 6.0
    (result,) = evaluate_recordings({"scripted": scripted_policy}, [tmp_path / "drive"], KWARGS).results
    assert result.scores()["completed"] == 1.0


def _path(path: Path | None) -> Path:
    assert path is not None
    return path


@pytest.mark.long
def test_success_on_recordings_is_success_in_the_environment(tmp_path: Path) -> None:
    policies = {"scripted": scripted_policy, "left": left_policy}
    found = compare_with_environment(
        policies, ["Circuit08", "Village03"], 2, tmp_path, env_kwargs={**KWARGS, "n_npcs": 0}, route_length=80.0
    )
    assert [(each.driver, len(each.recorded), each.difference) for each in found] == [
        ("scripted", 4, 0.0), ("left", 4, 0.0)
    ]  # fmt: skip
    for there, here in zip(found[0].recorded, found[0].environment, strict=True):
        assert (there.town, there.success) == (here.town, True)
        assert there.trace.deviations.mean() == pytest.approx(here.trace.deviations.mean(), abs=0.05)
        assert there.distance_m == pytest.approx(here.distance_m, abs=3.0)
    for there, here in zip(found[1].recorded, found[1].environment, strict=True):
        assert there.end_reason == here.end_reason == "off_lane"
        assert there.distance_m == pytest.approx(here.distance_m, rel=0.15)


def test_drawn_control(tmp_path: Path) -> None:
    """The drawn street lies where the recorded lane does: its lines run along the lane that the poses tell."""
    mount = CameraMount(84, 84)
    straight_recording(tmp_path / "bend", mount, moments=26)
    rows = read_rows(tmp_path / "bend")
    bend = [Row(*{**_fields(row), "curvature": -1.0 / 40.0, "lateral_offset": 0.3}.values()) for row in rows]
    write_rows(tmp_path / "bend", bend)
    (sequence,) = read_recordings(tmp_path / "bend")
    (drawn,) = read_recordings(draw_recordings([sequence], tmp_path / "drawn"))
    np.testing.assert_allclose(drawn.poses, sequence.poses, atol=1e-3)
    picture = PictureStore(1000.0, grey=False).picture(_path(drawn.files["front"][12]), mount).astype(int)
    # Row 70 looks 49.2 degrees down: 1.73 m ahead, at a depth of 2.18 m. The white edge line lies 1.75 - 0.3 m to the
    # right of the car, less what the lane bends to the left in 2.9 m (0.1 m): column 41.5 + 42 * 1.35 / 2.18 = 67.5.
    white = picture[70].min(axis=1)
    assert 41 + int(white[42:].argmax()) + 1 == pytest.approx(67.5, abs=2.0)
    # The yellow line: 1.75 + 0.3 m and that bend to the left, beyond the picture there; in row 50 at a depth of 4.36 m.
    yellow = picture[50, :, 2] - picture[50, :, 0]
    assert int(yellow.argmax()) < 30
    assert can_be_drawn(sequence)
    write_rows(tmp_path / "bend", [Row(*{**_fields(row), "curvature": 0.2}.values()) for row in rows])
    with pytest.raises(RecordingError, match="expected a lane without bends of less than 9 m radius, found none"):
        draw_recordings(read_recordings(tmp_path / "bend"), tmp_path / "none")


def _fields(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__slots__}
