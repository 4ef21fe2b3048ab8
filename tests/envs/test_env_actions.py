"""What the two actions of CarlaLane-v0 do to the car."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sb3_carla.client.vehicle import MAX_WHEEL_ANGLE, WHEELBASE
from sb3_carla.envs.carla_lane import CarlaLaneEnv
from sb3_carla.envs.driver import PurePursuitDriver
from sb3_carla.envs.towns import HELD_OUT_TOWNS
from sb3_carla.evaluation import Case, run_episode, scripted_policy


def test_wheels_turn_no_faster_than_the_steering_rate() -> None:
    with CarlaLaneEnv(control={"steering_rate": 2.0}, action_repeat=2) as env:
        env.reset(seed=0, options={"scenario": 0})
        session = env._session
        assert session is not None
        wheels, costs = [], []
        for steering in (1.0, 1.0, -1.0, 0.15, 0.15):
            terms = env.step(np.array([steering, 0.0], np.float32))[4]["reward_terms"]
            wheels.append(session.vehicle.get_control().steer / session.physics.steering_scale)
            costs.append(-terms["smoothness"])
    assert wheels == pytest.approx([0.2, 0.4, 0.2, 0.15, 0.15], abs=1e-6)
    assert costs == pytest.approx([0.2 * change for change in (0.2, 0.2, 0.2, 0.05, 0.0)])


@pytest.mark.long
def test_speed_control_keeps_the_speed_that_was_asked_for() -> None:
    with CarlaLaneEnv(control={"longitudinal": "speed", "lateral_acceleration": 4.0}, action_repeat=4) as env:
        assert env.action_names == ("steering", "speed")
        driver = PurePursuitDriver(env)
        env.reset(seed=0, options={"town": "Circuit01", "scenario": 0})
        for action, speed in ((0.0, 4.0), (0.5, 6.0), (-0.5, 2.0), (-1.0, 0.0)):
            for _ in range(18):
                env.step(np.array([driver.act()[0], action], np.float32))
            assert env.simulation.vehicle_state.speed == pytest.approx(speed, abs=0.2)
        for town in HELD_OUT_TOWNS:
            record = run_episode(env, Case(town, scenario=1, seed=0), scripted_policy)
            assert record.end_reason == "route_end"
            assert record.trace.deviations.mean() < 0.25


def test_full_steering_makes_the_lateral_acceleration_at_speed() -> None:
    with CarlaLaneEnv(control={"lateral_acceleration": 4.0}) as env:
        env.reset(seed=0, options={"town": "Circuit01", "scenario": 0})
        assert env.simulation.max_wheel_angle == MAX_WHEEL_ANGLE, "at a standstill there is no limit"
        driver = PurePursuitDriver(env)
        for _ in range(80):
            env.step(driver.act())
        speed = env.simulation.vehicle_state.speed
        assert speed > 6.0
        assert speed**2 * math.tan(env.simulation.max_wheel_angle) / WHEELBASE == pytest.approx(4.0)
        # The car itself goes round that fast, but for its tyres' slip.
        env.step(np.array([0.5, 0.0], np.float32))
        env.step(np.array([0.5, 0.0], np.float32))
        session = env._session
        assert session is not None
        for _ in range(8):
            session.tick()
        rate = math.radians(session.vehicle.get_angular_velocity().z)
        assert abs(rate) * speed == pytest.approx(2.0, rel=0.25)
