"""The GIF of the README: what the policy sees beside the car from behind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT
from PIL import Image
from test_scripts import load

from sb3_carla import TD3


def write_gif(model: str, output: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    arguments = ["driving_gif.py", model, str(output), "--skip", "2", "--seconds", "0.3"]
    monkeypatch.setattr(sys, "argv", arguments)
    load(ROOT / "scripts/driving_gif.py").main()
    pictures, milliseconds = [], 0
    with Image.open(output) as gif:
        assert gif.info["loop"] == 0
        for number in range(gif.n_frames):  # frames of a car that stands still are one long frame
            gif.seek(number)
            milliseconds += gif.info["duration"]
            pictures.append(np.asarray(gif.convert("RGB")).astype(int))
    assert milliseconds == 300
    return pictures


@pytest.mark.long
def test_untrained_model_and_scripted_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "CarlaLane-v0_1"
    (run / "CarlaLane-v0").mkdir(parents=True)
    (run / "CarlaLane-v0/config.yml").write_text("env_kwargs: {action_repeat: 4}")
    model = TD3("LayerNormCnnPolicy", "CarlaLane-v0", buffer_size=10)
    model.save(run / "CarlaLane-v0")
    assert model.env is not None
    model.env.close()
    for driver in (str(run / "CarlaLane-v0.zip"), "scripted"):
        pictures = write_gif(driver, tmp_path / "drive.gif", monkeypatch)
        for picture in pictures:
            assert picture.shape == (168, 168 + 280, 3)
            grey, behind = np.ptp(picture[:, :168], axis=2), np.ptp(picture[:, 168:], axis=2)
            assert grey.mean() < 10.0 < behind.mean()  # left without colour, but for the palette's
            sky, road = picture[:20].mean(), picture[-20:].mean()
            assert sky > road + 20.0  # the asphalt is lighter than it was: 116, not 70
    assert len(pictures) == 3, "the scripted driver drives"


def test_no_such_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="No model at"):
        write_gif(str(tmp_path / "none.zip"), tmp_path / "drive.gif", monkeypatch)
