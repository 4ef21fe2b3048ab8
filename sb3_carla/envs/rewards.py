"""
The reward, as named terms of comparable size.

After each decision every term is computed from a :class:`Motion`, multiplied by its weight, and reported under its name
in ``info["reward_terms"]``. The reward is their sum. To add a term: a weight in :class:`RewardWeights`, a line in
:func:`reward_terms`, and its name in the docstring of :class:`sb3_carla.envs.carla_lane.CarlaLaneEnv`.

``lane_centering`` and ``heading`` are scaled by the progress: a car that stands off-centre is not punished for it, so
ending the episode early never pays. Standing still until the episode ends as ``stuck`` costs about twice as much as
leaving the lane at once. When both cost the same, policies stopped before junctions where they had failed.

Source of the shape: progress times (1 - lateral error) keeps the lane in DonkeyCar and in CARLA lane-keeping work. A
progress weight of 95 % taught a published system to drive too fast, so here no term of a decision outweighs the sum of
the others, except ``safety``, once an episode.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

__all__ = ["REWARD_TERMS", "Motion", "RewardWeights", "comfortable_speed", "reward_terms"]

COMFORTABLE_LATERAL_ACCELERATION = 2.5
"""Limit for the speed in bends [m/s^2]; drivers accept 2 to 3 (Reymond et al., Human Factors 2001)."""
STANDING_SPEED = 1.0
"""If the recommended speed is lower [m/s], as behind a standing car, standing still is not idling."""


@dataclass(frozen=True)
class RewardWeights:
    """
    Weight of each term [-].

    :param progress: distance along the lane, 1 at the recommended speed
    :param lane_centering: distance from the lane's centre, -1 at the edge of the lane
    :param heading: angle to the lane, -1 at 45 degrees
    :param smoothness: change of the steering, -1 for one full lock
    :param speed: driving faster than recommended, -1 at twice that speed
    :param idling: -1 at a standstill, 0 from a quarter of the recommended speed on
    :param safety: -1 when the episode ends in a failure
    :raises ValueError: if a weight is not a finite number
    """

    progress: float = 1.0
    lane_centering: float = 0.7
    heading: float = 0.3
    smoothness: float = 0.2
    speed: float = 1.5
    idling: float = 0.5
    safety: float = 5.0

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if not isinstance(weight, (int, float)) or not math.isfinite(weight):
                raise ValueError(f"reward.{name}: expected a finite number, got {weight!r}")


REWARD_TERMS = tuple(field.name for field in fields(RewardWeights))


@dataclass(frozen=True, slots=True)
class Motion:
    """
    What the reward depends on: the car after a decision.

    :param progress_speed: mean speed along the lane since the last decision [m/s]
    :param speed: car's speed now [m/s]
    :param recommended_speed: comfortable in the bends ahead and behind the car ahead [m/s], >= 0
    :param lateral_offset: distance from the lane's centre [m]
    :param half_width: half of the lane's width [m]
    :param heading_error: angle to the lane [rad]
    :param steering_change: since the last decision, in steering actions [-], 0 to 2
    :param failed: the episode ended in a failure: collision, off_lane, wrong_way or stuck
    """

    progress_speed: float
    speed: float
    recommended_speed: float
    lateral_offset: float
    half_width: float
    heading_error: float
    steering_change: float
    failed: bool


def comfortable_speed(curvature: float, target_speed: float) -> float:
    """
    Speed at which a bend is comfortable: v = sqrt(a / curvature), at most the target speed.

    :param curvature: sharpest curvature ahead [1/m], >= 0
    :param target_speed: [m/s]
    :return: [m/s]
    """
    if curvature * target_speed * target_speed <= COMFORTABLE_LATERAL_ACCELERATION:
        return target_speed
    return math.sqrt(COMFORTABLE_LATERAL_ACCELERATION / curvature)


def reward_terms(motion: Motion, weights: RewardWeights) -> dict[str, float]:
    """
    The weighted terms; their sum is the reward.

    :param motion: the car after the decision
    :param weights: weight of each term
    :return: term by name
    """
    limit = motion.recommended_speed
    progress = max(-1.0, min(motion.progress_speed, limit) / max(limit, STANDING_SPEED))
    moving = max(0.0, progress)
    idle = 0.0 if limit < STANDING_SPEED else max(0.0, 1.0 - 4.0 * moving)
    off_centre = min(abs(motion.lateral_offset) / motion.half_width, 1.0)
    askew = min(abs(motion.heading_error) / (math.pi / 4.0), 1.0)
    too_fast = min(max(0.0, motion.speed - limit) / max(limit, STANDING_SPEED), 1.0)
    return {
        "progress": weights.progress * progress,
        "lane_centering": -weights.lane_centering * off_centre * moving,
        "heading": -weights.heading * askew * moving,
        "smoothness": -weights.smoothness * motion.steering_change,
        "speed": -weights.speed * too_fast,
        "idling": -weights.idling * idle,
        "safety": -weights.safety * motion.failed,
    }
