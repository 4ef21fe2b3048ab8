"""Scenery that cars hit, rays meet and spawning avoids."""

from __future__ import annotations

import math

import carla
import numpy as np
import pytest

from sb3_carla.errors import SpawnError
from sb3_carla.simulator.actors import VehicleActor
from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.obstacles import Obstacle, Obstacles
from sb3_carla.simulator.physics.collision import boxes_overlap
from sb3_carla.simulator.physics.dynamics import VEHICLE_MODELS, VehicleControl
from sb3_carla.simulator.sensors import ObstacleSensor
from sb3_carla.simulator.town import Town
from sb3_carla.simulator.world import World

MODEL = "vehicle.tesla.model3"
MASS, HALF_LENGTH = VEHICLE_MODELS[MODEL].mass, VEHICLE_MODELS[MODEL].half_extents[0]
WALL = (20.0, 0.0, 0.0, 0.5 * math.pi, 4.0, 0.2, 1.0)
"""Across the x axis at x = 20 m: 8 m long, 0.4 m thick, 2 m high."""
DT = 0.05


def obstacles(*solids: tuple[float, ...], tag: carla.CityObjectLabel = carla.CityObjectLabel.Walls) -> Obstacles:
    return Obstacles(np.array(solids, np.float64).reshape(-1, 7), np.full(len(solids), int(tag), np.int64))


@pytest.fixture
def world() -> World:
    """A flat town with one wall, and nothing else beside the road."""
    town = Town.load("Circuit01")
    town.obstacles = obstacles(WALL)
    return World(town)


def test_a_car_stops_at_a_wall(world: World) -> None:
    car = world.spawn(MODEL, {}, Pose())
    assert isinstance(car, VehicleActor)
    contacts = []
    for _ in range(80):
        car.apply_control(VehicleControl(throttle=1.0))
        contacts += world.tick(DT)
    # The wall's near side is at 20 - 0.2 m; the engine pushes the car against it, a tick at a time.
    assert car.pose.x == pytest.approx(19.8 - HALF_LENGTH, abs=0.1)
    first = contacts[0]
    assert first.actor is car
    assert (first.other.id, first.other.type_id) == (0, "static.wall")
    # All of the momentum: about sqrt(2 * 4 m/s^2 * 17 m) = 12 m/s at most.
    assert -12.0 * MASS < first.impulse[0] < -3.0 * MASS
    assert first.impulse[1] == pytest.approx(0.0, abs=1e-6 * MASS)


def test_no_contact_without_collisions_or_physics(world: World) -> None:
    ghost = world.spawn(MODEL, {}, Pose())
    still = world.spawn(MODEL, {}, Pose(-10.0))
    assert isinstance(ghost, VehicleActor)
    assert isinstance(still, VehicleActor)
    ghost.collisions_enabled = False
    ghost.teleport(Pose(20.0))
    assert world.tick(DT) == []
    ghost.teleport(Pose(-30.0))
    still.vehicle.physics_enabled = False
    still.teleport(Pose(20.0))
    assert world.tick(DT) == []


def test_spawning_into_the_scenery_is_an_error(world: World) -> None:
    with pytest.raises(SpawnError, match=r"collision at spawn position.*would touch the scenery \(static\.wall\)"):
        world.spawn(MODEL, {}, Pose(20.0))
    world.spawn(MODEL, {}, Pose(20.0, 4.0 + 1.2))  # beside the wall's end at y = 4 m; the car is 1.08 m wide to a side
    world.spawn("sensor.camera.rgb", {}, Pose(20.0))  # a sensor has no body


def test_rays_meet_the_scenery(world: World) -> None:
    hits = world.cast_ray((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), 50.0)
    assert hits[0][0] == pytest.approx((19.8, 0.0, 1.0))
    assert hits[0][1] == int(carla.CityObjectLabel.Walls)
    assert world.cast_ray((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), 19.0) == []
    assert world.cast_ray((0.0, 0.0, 2.5), (1.0, 0.0, 0.0), 50.0) == [], "over the wall"
    car = world.spawn(MODEL, {}, Pose())
    for only, expected in (("False", "static.wall"), ("True", None)):
        attributes = {"distance": "30", "only_dynamics": only}
        sensor = world.spawn("sensor.other.obstacle", attributes, Pose(HALF_LENGTH, z=1.0), car.id)
        assert isinstance(sensor, ObstacleSensor)
        seen = world.obstacle(sensor)
        assert (None if seen is None else seen[0].type_id) == expected
        if seen is not None:
            assert seen[1] == pytest.approx(19.8 - HALF_LENGTH - sensor.radius)


def test_search_finds_what_testing_all_finds() -> None:
    random = np.random.default_rng(2)
    count = 300
    solids = np.concatenate(
        [
            random.uniform(-60.0, 60.0, (count, 2)),
            np.zeros((count, 1)),
            random.uniform(-4.0, 4.0, (count, 1)),
            random.uniform(0.1, 9.0, (count, 3)),
        ],
        axis=1,
    )
    some = obstacles(*map(tuple, solids))
    every = some.touching(Pose(), (500.0, 500.0, 50.0))
    assert len(every) == len(some) == count
    for x, y, yaw in random.uniform(-50.0, 50.0, (50, 3)).tolist():
        pose, half = Pose(x, y, yaw=yaw), (2.4, 1.1, 0.75)
        one_by_one = [o for o in every if obstacles_overlap(pose, half, o)]
        assert some.touching(pose, half) == one_by_one
        # Level rays at 0.05 m meet every solid in their way.
        direction = (math.cos(yaw), math.sin(yaw), 0.0)
        found = some.along((x, y, 0.05), direction, 40.0)
        assert [distance for distance, _ in found] == sorted(distance for distance, _ in found)
        thin = (20.0, 1e-6, 0.01)
        middle = Pose(x + 20.0 * direction[0], y + 20.0 * direction[1], 0.04, yaw=yaw)
        assert {id(o) for _, o in found} == {id(o) for o in every if obstacles_overlap(middle, thin, o)}


def obstacles_overlap(pose: Pose, half: tuple[float, float, float], obstacle: Obstacle) -> bool:
    return boxes_overlap(pose, half, obstacle.pose, obstacle.half_extents)


@pytest.mark.parametrize(
    ("label", "expected"),
    [("Buildings", "static.building"), ("GuardRail", "static.guardrail"), ("TrafficSigns", "static.trafficsign"),
     ("Vegetation", "static.vegetation"), ("Car", "static.car")],
)  # fmt: skip
def test_types_are_carlas(label: str, expected: str) -> None:
    tag = int(getattr(carla.CityObjectLabel, label))
    assert Obstacle(Pose(), (1.0, 1.0, 1.0), tag).type_id == expected
