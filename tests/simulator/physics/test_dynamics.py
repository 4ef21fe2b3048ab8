"""Vehicle dynamics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.dynamics import (
    GRAVITY,
    VEHICLE_MODELS,
    Ground,
    Vehicle,
    VehicleControl,
    VehicleParameters,
    steering_share,
)

DT = 0.05


def flat(x: float, y: float, z: float) -> Ground:
    return Ground(0.0)


def drive(vehicle: Vehicle, seconds: float, ground=flat, **inputs: float) -> Vehicle:
    vehicle.control = VehicleControl(**inputs)
    for _ in range(round(seconds / DT)):
        vehicle.step(DT, ground)
    return vehicle


def moving(speed: float, **parameters: float) -> Vehicle:
    vehicle = Vehicle(VehicleParameters(**parameters), Pose())
    vehicle.set_velocity(speed, 0.0, 0.0)
    return vehicle


def test_full_throttle_from_standstill_follows_v_equals_a_t() -> None:
    vehicle = drive(moving(0.0, drag_area=0.0, rolling_resistance=0.0), 2.0, throttle=1.0)
    assert vehicle.speed == pytest.approx(4.0 * 2.0)
    assert vehicle.pose.x == pytest.approx(0.5 * 4.0 * 2.0**2, rel=0.02)
    assert vehicle.acceleration[0] == pytest.approx(4.0)


def test_power_limits_acceleration_at_speed() -> None:
    vehicle = drive(moving(30.0, drag_area=0.0, rolling_resistance=0.0), DT, throttle=1.0)
    assert vehicle.acceleration[0] == pytest.approx(150e3 / (1845.0 * 30.0), rel=0.01)


def test_top_speed_is_where_drag_eats_the_power() -> None:
    vehicle = drive(moving(55.0), 120.0, throttle=1.0)
    resistance = 0.5 * 1.204 * 0.66 * vehicle.speed**2 + 0.012 * 1845.0 * GRAVITY
    assert resistance * vehicle.speed == pytest.approx(150e3, rel=0.01)


def test_braking_distance_is_v_squared_over_two_a_and_ends_at_rest() -> None:
    vehicle = drive(moving(20.0, drag_area=0.0, rolling_resistance=0.0), 5.0, brake=1.0)
    assert vehicle.speed == 0.0
    assert vehicle.pose.x == pytest.approx(20.0**2 / (2.0 * 8.0), rel=0.02)


def test_hand_brake_brakes_less_than_the_brake_and_more_than_coasting() -> None:
    foot, hand, none = (drive(moving(15.0), 1.0, **inputs) for inputs in ({"brake": 1.0}, {"hand_brake": True}, {}))
    assert foot.speed < hand.speed < none.speed < 15.0


def test_reverse_drives_backwards_and_steering_then_swings_the_other_way() -> None:
    vehicle = drive(moving(0.0), 2.0, throttle=0.5, reverse=True, steer=0.3)
    assert vehicle.speed < -2.0
    assert vehicle.pose.x < 0.0
    assert vehicle.angular_velocity[2] < 0.0


def test_slow_circle_has_the_radius_of_the_bicycle_model() -> None:
    vehicle = moving(2.0, drag_area=0.0, rolling_resistance=0.0)
    drive(vehicle, 1.0, steer=0.25)  # the wheels reach their angle
    angle = 0.25 * steering_share(vehicle.speed) * math.radians(70.0)
    assert vehicle.wheel_angle == pytest.approx(angle)
    rear_radius = 2.875 / math.tan(angle)
    start, heading = Pose(vehicle.pose.x, vehicle.pose.y), vehicle.pose.yaw
    half_turn = math.pi * math.hypot(rear_radius, 1.4375) / vehicle.speed
    drive(vehicle, round(half_turn / DT) * DT, steer=0.25)
    across = math.hypot(vehicle.pose.x - start.x, vehicle.pose.y - start.y)
    assert across == pytest.approx(2.0 * math.hypot(rear_radius, 1.4375), rel=0.01)
    assert abs(vehicle.pose.yaw - heading) == pytest.approx(math.pi, abs=0.05)


def test_grip_limits_lateral_acceleration_and_widens_the_path() -> None:
    vehicle = drive(moving(25.0), 1.0, steer=0.5, throttle=0.2)
    lateral = vehicle.speed * vehicle.angular_velocity[2]
    assert lateral <= 0.9 * GRAVITY + 1e-6
    assert lateral > 0.7 * 0.9 * GRAVITY


def test_steering_moves_at_its_rate_and_right_is_positive() -> None:
    vehicle = drive(moving(0.0), DT, steer=1.0)
    assert vehicle.wheel_angle == pytest.approx(1.5 * DT)
    vehicle = drive(moving(3.0), 1.0, steer=0.2, throttle=0.2)
    assert vehicle.pose.yaw > 0.0
    assert vehicle.pose.y > 0.0


@pytest.mark.parametrize(("speed_kmh", "share"), [(0, 1.0), (20, 0.9), (40, 0.85), (60, 0.8), (120, 0.7), (200, 0.7)])
def test_steering_curve_is_interpolated(speed_kmh: float, share: float) -> None:
    assert steering_share(speed_kmh / 3.6) == pytest.approx(share)


def test_slope_pitches_the_body_and_pulls_the_car_back() -> None:
    slope = 0.05

    def hill(x: float, y: float, z: float) -> Ground:
        return Ground(slope * x, slope_x=slope)

    vehicle = moving(10.0, drag_area=0.0, rolling_resistance=0.0)
    drive(vehicle, DT, hill)
    assert vehicle.pose.pitch == pytest.approx(math.atan(slope))
    speed = vehicle.speed
    drive(vehicle, 1.0, hill)
    assert speed - vehicle.speed == pytest.approx(GRAVITY * math.sin(math.atan(slope)), rel=0.01)
    assert vehicle.pose.z == pytest.approx(slope * vehicle.pose.x)


def test_cross_slope_rolls_the_body() -> None:
    vehicle = Vehicle(VehicleParameters(), Pose())
    drive(vehicle, DT, lambda x, y, z: Ground(0.1 * y, slope_y=0.1))
    assert vehicle.pose.roll == pytest.approx(-math.atan(0.1))  # the right side is the higher one


def test_car_above_the_road_falls_and_lands() -> None:
    vehicle = Vehicle(VehicleParameters(), Pose(z=5.0))
    drive(vehicle, 0.5)
    assert vehicle.pose.z == pytest.approx(5.0 - 0.5 * GRAVITY * 0.5**2, rel=0.1)
    drive(vehicle, 2.0)
    assert vehicle.pose.z == 0.0


def test_sideways_velocity_is_eaten_by_friction() -> None:
    vehicle = Vehicle(VehicleParameters(), Pose())
    vehicle.set_velocity(0.0, 3.0, 0.0)
    drive(vehicle, 1.0)
    assert vehicle.pose.y == pytest.approx(3.0**2 / (2.0 * 0.9 * GRAVITY), rel=0.1)
    assert vehicle.velocity[:2] == pytest.approx((0.0, 0.0))


def test_teleport_keeps_velocity_in_the_world() -> None:
    vehicle = moving(10.0)
    vehicle.teleport(Pose(x=100.0, yaw=math.pi / 2.0))
    assert vehicle.speed == pytest.approx(0.0, abs=1e-9)
    drive(vehicle, DT)
    assert vehicle.pose.x > 100.0


def test_without_physics_nothing_moves() -> None:
    vehicle = moving(10.0)
    vehicle.physics_enabled = False
    drive(vehicle, 1.0, throttle=1.0)
    assert vehicle.pose == Pose()


def test_constant_velocity_overrides_the_engine() -> None:
    vehicle = Vehicle(VehicleParameters(), Pose())
    vehicle.constant_velocity = (7.0, 0.0, 0.0)
    drive(vehicle, 2.0, brake=1.0)
    assert vehicle.pose.x == pytest.approx(14.0)


@pytest.mark.parametrize("model", sorted(VEHICLE_MODELS))
def test_every_model_accelerates_turns_and_stops(model: str) -> None:
    vehicle = Vehicle(VEHICLE_MODELS[model], Pose())
    drive(vehicle, 6.0, throttle=1.0)
    assert 8.0 < vehicle.speed < 30.0
    drive(vehicle, 1.0, steer=0.1)
    assert 0.0 < vehicle.pose.yaw < math.pi
    drive(vehicle, 8.0, brake=1.0)
    assert vehicle.speed == 0.0
