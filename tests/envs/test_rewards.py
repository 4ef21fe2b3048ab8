"""Reward terms against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from sb3_carla.checks import from_mapping
from sb3_carla.envs.rewards import REWARD_TERMS, Motion, RewardWeights, comfortable_speed, reward_terms

PERFECT = Motion(
    progress_speed=8.0,
    speed=8.0,
    recommended_speed=8.0,
    lateral_offset=0.0,
    half_width=1.75,
    heading_error=0.0,
    steering_change=0.0,
    failed=False,
)


def terms(**changes: float | bool) -> dict[str, float]:
    return reward_terms(dataclasses.replace(PERFECT, **changes), RewardWeights())


def test_perfect_driving_earns_one() -> None:
    assert sum(terms().values()) == pytest.approx(1.0)
    assert tuple(terms()) == REWARD_TERMS


@pytest.mark.parametrize(
    ("changes", "term", "value"),
    [
        ({"progress_speed": 4.0}, "progress", 0.5),
        ({"progress_speed": 16.0}, "progress", 1.0),
        ({"progress_speed": -4.0}, "progress", -0.5),
        ({"lateral_offset": -0.875}, "lane_centering", -0.35),
        ({"lateral_offset": 9.0}, "lane_centering", -0.7),
        ({"heading_error": math.pi / 8.0}, "heading", -0.15),
        ({"steering_change": 0.5}, "smoothness", -0.1),
        ({"speed": 10.0}, "speed", -0.375),
        ({"speed": 6.0, "recommended_speed": 4.0}, "speed", -0.75),
        ({"speed": 9.0, "recommended_speed": 4.0}, "speed", -1.5),
        ({"progress_speed": 0.0}, "idling", -0.5),
        ({"progress_speed": 1.0}, "idling", -0.25),
        ({"progress_speed": -1.0}, "idling", -0.5),
        ({"progress_speed": 2.0}, "idling", 0.0),
        ({"failed": True}, "safety", -5.0),
    ],
)
def test_each_term(changes: dict[str, float], term: str, value: float) -> None:
    assert terms(**changes)[term] == pytest.approx(value)


def test_neither_ending_early_nor_standing_still_pays() -> None:
    """Per decision of 0.2 s, discounted by 0.96: 30 decisions until an episode ends as stuck."""
    standing = sum(terms(progress_speed=0.0, speed=0.0, lateral_offset=1.5, heading_error=0.5).values())
    assert standing == pytest.approx(-0.5), "where one stands costs nothing"
    until_stuck = sum(standing * 0.96**i for i in range(30)) - 5.0 * 0.96**30
    leaving_at_once = -5.0
    assert until_stuck == pytest.approx(2.0 * leaving_at_once, abs=0.5)
    creeping_into_failure = sum(sum(terms(progress_speed=4.0).values()) * 0.96**i for i in range(5)) - 5.0 * 0.96**5
    assert creeping_into_failure > until_stuck + 1.0


def test_standing_behind_a_standing_car_is_not_idling() -> None:
    assert sum(terms(progress_speed=0.0, speed=0.0, recommended_speed=0.0).values()) == 0.0
    creeping = terms(progress_speed=0.5, speed=0.5, recommended_speed=0.5)
    assert creeping["progress"] == pytest.approx(0.5)
    assert terms(progress_speed=3.0, speed=3.0, recommended_speed=0.0)["speed"] == pytest.approx(-1.5)


def test_no_term_drowns_the_others() -> None:
    weights = dataclasses.asdict(RewardWeights())
    weights.pop("safety")  # paid once, at the end
    assert max(weights.values()) < sum(weights.values()) / 2.0


def test_rushing_through_a_bend_pays_less_than_slowing_down() -> None:
    slow = terms(progress_speed=5.0, speed=5.0, recommended_speed=5.0)
    fast = terms(progress_speed=8.0, speed=8.0, recommended_speed=5.0)
    assert sum(fast.values()) < sum(slow.values())


def test_comfortable_speed_of_a_bend() -> None:
    assert comfortable_speed(0.0, 8.0) == 8.0
    assert comfortable_speed(0.1, 8.0) == pytest.approx(5.0)  # sqrt(2.5 / 0.1)


def test_weights_replace_defaults_by_name() -> None:
    assert from_mapping(RewardWeights, "reward", {"heading": 2.0}) == dataclasses.replace(RewardWeights(), heading=2.0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"speeed": 1.0}, "reward: unknown key 'speeed', did you mean 'speed'"),
        ({"speed": math.nan}, "reward.speed: expected a finite number, got nan"),
    ],
)
def test_bad_weights(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_mapping(RewardWeights, "reward", weights)
