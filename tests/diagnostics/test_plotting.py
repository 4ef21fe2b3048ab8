"""Pictures and pages of good, bad, single and several logs."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from logs import TIMES, good_log, write_log
from outside_repository import python
from paths import ROOT

from sb3_carla.diagnostics.event_logs import ScalarSeries, read_run
from sb3_carla.diagnostics.plotting import _labels, _on_a_grid, draw, page, save


def test_several_seeds_on_a_grid() -> None:
    runs = [ScalarSeries(np.arange(0, 1001, 10), np.full(101, value)) for value in (1.0, 3.0)]
    late = ScalarSeries(np.array([500, 700]), np.array([5.0, 7.0]))
    grid, values = _on_a_grid([*runs, late])
    assert values.shape == (3, len(grid))
    np.testing.assert_allclose(values[0], 1.0)
    np.testing.assert_allclose(values[1, :-1], 3.0)
    inside = (grid > 505) & (grid < 695)
    np.testing.assert_allclose(values[2, inside], grid[inside] / 100.0, atol=0.05)
    assert np.isnan(values[2, (grid < 495) | (grid > 705)]).all()


def test_labels_drop_what_tags_have_in_common() -> None:
    tags = ["debug/actor_grad_norm_BEFORE_clip", "debug/actor_grad_norm_AFTER_clip", "limits/actor_grad_norm"]
    assert list(_labels(tags).values()) == ["BEFORE", "AFTER", "limit"]
    assert list(_labels(["train/q1_value", "train/q2_value"]).values()) == ["q1", "q2"]
    assert list(_labels(["driving/speed_mps"]).values()) == ["driving_speed_mps"]
    assert list(_labels(["debug/dormant_ratio", "debug/actor_dormant_ratio"]).values()) == ["dormant_ratio", "actor"]


def test_a_picture_shows_lines_limits_and_alerts(tmp_path: Path) -> None:
    tags = {**good_log(), "limits/actor_grad_norm": np.ones(len(TIMES)), "alerts/divergence_warning": np.ones(2)}
    write_log(tmp_path / "run", tags)
    figure, left_out = draw([read_run(tmp_path / "run")])
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[0] == "Actor: gradient norm before, after, limit"
    assert "Dormant units" in left_out
    assert not set(titles) & set(left_out)
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][-1] == "limit"
    alerts = [line for line in figure.axes[0].lines if line.get_color() == "#E6B000"]
    assert len(alerts) == 2
    save(figure, tmp_path / "picture.png")
    picture = cv2.imread(str(tmp_path / "picture.png"))
    assert picture is not None
    assert (picture < 200).any(axis=2).mean() > 0.005


def test_runs_may_be_named_from_here_and_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/run", "b/run"):
        write_log(tmp_path / name, good_log())
    monkeypatch.chdir(tmp_path)
    here, there = read_run(Path("a/run")), read_run(tmp_path / "b/run")
    assert draw([here])[0].get_suptitle().startswith("a/run")
    assert draw([here, there])[0].get_suptitle().startswith(f"{tmp_path}: mean of 2 runs")


@pytest.mark.long
def test_a_page_stands_alone_and_says_what_is_in_it(tmp_path: Path) -> None:
    bad = good_log()
    bad["train/critic_loss"][40:] = np.nan
    bad["train/actor_loss"][70] = np.inf
    file = write_log(tmp_path / "<b>bad", bad)
    file.write_bytes(file.read_bytes()[:-5])
    write_log(tmp_path / "good", good_log())
    runs = [read_run(tmp_path / name) for name in ("<b>bad", "good")]
    figure, left_out = draw(runs)
    text = page(runs, figure, left_out)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//)", text)
    assert "&lt;b&gt;bad" in text
    assert "<b>bad" not in text
    assert "ends within a record" in text
    assert re.search(r"<td>train/critic_loss</td><td>nan</td>", text)
    assert "mean of 2 runs" in text
    assert text.count("<svg") == 1


@pytest.mark.long
def test_command(tmp_path: Path) -> None:
    write_log(tmp_path / "runs/TD3_1", good_log())
    write_log(tmp_path / "runs/TD3_2", good_log())
    script = str(ROOT / "scripts/plot_training.py")
    done = python(tmp_path, script, "runs", "--output", "new/two.seeds")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 runs")
    assert (tmp_path / "new/two.seeds.png").stat().st_size > 50_000
    assert "<svg" in (tmp_path / "new/two.seeds.html").read_text()
    done = python(tmp_path, script, "nowhere")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
