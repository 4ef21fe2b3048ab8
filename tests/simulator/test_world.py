"""Actors, contacts, sensors and the clock, without a server."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sb3_carla.errors import SpawnError
from sb3_carla.simulator.actors import AckermannControl, VehicleActor
from sb3_carla.simulator.blueprints import BLUEPRINTS, AttributeKind
from sb3_carla.simulator.geometry import Pose, compose, follow, relative_pose
from sb3_carla.simulator.obstacles import Obstacles
from sb3_carla.simulator.physics.collision import boxes_overlap
from sb3_carla.simulator.physics.contacts import penetration
from sb3_carla.simulator.physics.dynamics import VEHICLE_MODELS, Ground, VehicleControl
from sb3_carla.simulator.physics.rays import ray_to_box, ray_to_ground
from sb3_carla.simulator.sensors import CameraSensor, GnssSensor, ImuSensor, ObstacleSensor
from sb3_carla.simulator.town import Town
from sb3_carla.simulator.world import World

MODEL = "vehicle.tesla.model3"
MASS = VEHICLE_MODELS[MODEL].mass
LENGTH = 2.0 * VEHICLE_MODELS[MODEL].half_extents[0]
DT = 0.05


@pytest.fixture(scope="module")
def town() -> Town:
    return Town.load("Circuit01")


@pytest.fixture
def world(town: Town) -> World:
    return World(town)


@pytest.fixture
def bare_world() -> World:
    """Nothing stands beside the roads."""
    town = Town.load("Circuit01")
    town.obstacles = Obstacles(np.zeros((0, 7)), np.zeros(0, np.int64))
    return World(town)


def car_at(world: World, x: float, y: float = 0.0, yaw: float = 0.0, model: str = MODEL) -> VehicleActor:
    """A car far from everything else, on the flat ground of the town."""
    z = world.town.ground(x, y, 0.0).z
    actor = world.spawn(model, {}, Pose(x, y, z, yaw=yaw))
    assert isinstance(actor, VehicleActor)
    return actor


def test_the_library_speaks_carlas_language() -> None:
    vehicles = [name for name in BLUEPRINTS if name.startswith("vehicle.")]
    assert len(vehicles) >= 10
    for name in vehicles:
        attributes = BLUEPRINTS[name].attributes
        assert {"color", "role_name", "number_of_wheels", "base_type", "generation"} <= set(attributes)
        assert attributes["number_of_wheels"].value == "4"
        assert not attributes["number_of_wheels"].modifiable
    assert BLUEPRINTS[MODEL].tags == "vehicle,tesla,model3"
    for name in ("rgb", "depth", "semantic_segmentation"):
        fov = BLUEPRINTS[f"sensor.camera.{name}"].attributes["fov"]
        assert (fov.kind, fov.value) == (AttributeKind.FLOAT, "90.0")


def test_frames_and_time_count_up(world: World) -> None:
    for expected in range(1, 41):
        world.tick(DT)
        assert world.frame == expected
    assert world.time == pytest.approx(2.0)
    with pytest.raises(ValueError, match="positive duration"):
        world.tick(0.0)


def test_spawning_checks_what_it_is_given(world: World) -> None:
    car = car_at(world, 0.0)
    with pytest.raises(SpawnError, match=rf"would touch actor {car.id}"):
        car_at(world, LENGTH - 0.1)
    with pytest.raises(SpawnError, match=r"unknown blueprint 'vehicle\.trabant'"):
        world.spawn("vehicle.trabant", {}, Pose())
    with pytest.raises(SpawnError, match="'color': expected color, got 'red'"):
        world.spawn(MODEL, {"color": "red"}, Pose(50.0))
    with pytest.raises(SpawnError, match="there is no such actor"):
        world.spawn("sensor.camera.rgb", {}, Pose(), parent_id=999)
    with pytest.raises(SpawnError, match="camera of 0 x 600"):
        world.spawn("sensor.camera.rgb", {"image_size_x": "0"}, Pose())
    before = set(world.actors)
    assert before == {world.spectator.id, car.id}, "what fails leaves nothing behind"
    assert car_at(world, LENGTH + 0.1).id > car.id


def test_destroyed_actors_are_listed_once(world: World) -> None:
    car = car_at(world, 0.0)
    assert world.destroy(car.id)
    assert not world.destroy(car.id)
    assert not world.destroy(world.spectator.id)
    assert world.just_destroyed == []
    world.tick(DT)
    assert world.just_destroyed == [car]
    world.tick(DT)
    assert world.just_destroyed == []
    assert car_at(world, 0.0).id != car.id


@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_mounted_actors_follow(tilt: float) -> None:
    parent = Pose(10.0, -5.0, 1.0, roll=tilt, pitch=-tilt, yaw=2.0)
    relative = Pose(1.2, 0.4, 2.0, roll=0.1, pitch=-0.2, yaw=0.3)
    placed, expected = follow(parent, relative), compose(parent, relative)
    for name in ("x", "y", "z", "roll", "pitch", "yaw"):
        assert getattr(placed, name) == pytest.approx(getattr(expected, name), abs=1e-12)
        assert getattr(relative_pose(parent, placed), name) == pytest.approx(getattr(relative, name), abs=1e-12)


def test_sensors_ride_along_and_stay_when_the_car_goes(world: World) -> None:
    car = car_at(world, 0.0)
    camera = world.spawn("sensor.camera.rgb", {}, Pose(1.2, z=2.0), car.id)
    for _ in range(40):
        car.apply_control(VehicleControl(throttle=1.0, steer=0.1))
        world.tick(DT)
        assert camera.pose == follow(car.pose, Pose(1.2, z=2.0))
    place = camera.pose
    world.destroy(car.id)
    world.tick(DT)
    assert camera.pose == place
    assert camera.parent is None


def test_penetration_of_boxes_by_hand() -> None:
    extents = (2.0, 1.0, 0.5)
    assert penetration(Pose(), extents, Pose(3.5), extents) == pytest.approx((1.0, 0.0, 0.5))
    assert penetration(Pose(), extents, Pose(0.5, -1.6), extents) == pytest.approx((0.0, -1.0, 0.4))
    # A box turned by 90 degrees reaches 1 m along x.
    turned = Pose(2.9, yaw=math.pi / 2)
    assert penetration(Pose(), extents, turned, extents) == pytest.approx((1.0, 0.0, 0.1))


def test_a_rear_end_hit_shares_the_momentum(world: World) -> None:
    behind, ahead = car_at(world, 0.0), car_at(world, LENGTH + 0.2)
    behind.vehicle.set_velocity(10.0, 0.0, 0.0)
    collisions = world.tick(DT)
    assert [(c.actor.id, c.other.id) for c in collisions] == [(behind.id, ahead.id), (ahead.id, behind.id)]
    # Plastic hit of equal masses: both go on with half the speed.
    assert behind.velocity[0] == pytest.approx(5.0, abs=0.1)
    assert ahead.velocity[0] == pytest.approx(5.0, abs=0.1)
    assert collisions[0].impulse[0] == pytest.approx(-MASS * 5.0, rel=0.02)
    assert collisions[1].impulse[0] == pytest.approx(MASS * 5.0, rel=0.02)
    assert not boxes_overlap(behind.pose, behind.half_extents, ahead.pose, ahead.half_extents)
    assert world.tick(DT) == [], "once apart, they touch no more"


def test_a_car_that_pushes_reports_contact_at_every_tick(world: World) -> None:
    pusher, prop = car_at(world, 0.0), world.spawn("static.prop.container", {}, Pose(LENGTH / 2 + 2.0))
    contacts = 0
    for _ in range(100):
        pusher.apply_control(VehicleControl(throttle=1.0))
        contacts += any(c.actor is pusher and c.other is prop for c in world.tick(DT))
    assert contacts > 60
    assert pusher.pose.x + LENGTH / 2 < prop.pose.x - 1.4
    assert prop.pose.x == LENGTH / 2 + 2.0


def test_a_teleported_car_without_physics_is_hit_and_does_not_move(world: World) -> None:
    car, ghost = car_at(world, 0.0), car_at(world, 30.0)
    ghost.vehicle.physics_enabled = False
    ghost.teleport(Pose(LENGTH + 0.1))
    car.vehicle.set_velocity(8.0, 0.0, 0.0)
    collisions = world.tick(DT)
    assert {c.actor.id for c in collisions} == {car.id, ghost.id}
    assert collisions[0].impulse[0] == pytest.approx(-MASS * 8.0, rel=0.05)
    assert ghost.pose.x == pytest.approx(LENGTH + 0.1)
    assert car.velocity[0] == pytest.approx(0.0, abs=0.1)
    ghost.collisions_enabled = False
    car.teleport(Pose(LENGTH))
    assert world.tick(DT) == []


def test_random_crowds_come_apart(bare_world: World) -> None:
    world = bare_world
    rng = np.random.default_rng(0)
    cars = [car_at(world, 12.0 * i - 60.0) for i in range(10)]
    for car in cars:
        x, y, yaw = rng.uniform(-8.0, 8.0), rng.uniform(-8.0, 8.0), rng.uniform(-3.0, 3.0)
        car.teleport(Pose(x, y, yaw=yaw))
    for _ in range(400):
        for car in cars:
            car.apply_control(VehicleControl(brake=1.0))
        if not world.tick(DT):
            break
    assert world.tick(DT) == []
    assert all(math.isfinite(car.pose.x) and abs(car.pose.x) < 200.0 for car in cars)


def test_distant_and_stacked_bodies_do_not_touch(world: World) -> None:
    low, high = car_at(world, 0.0), car_at(world, 40.0)
    high.vehicle.physics_enabled = False
    high.teleport(Pose(0.0, 0.0, 6.0))
    assert world.tick(DT) == []
    assert low.pose.x == 0.0


def test_two_worlds_with_the_same_calls_are_equal(town: Town) -> None:
    def run() -> list[object]:
        world = World(town, seed=3)
        start = town.spawn_points[0]
        car = world.spawn(MODEL, {}, start)
        other = world.spawn("vehicle.audi.tt", {}, town.spawn_points[1])
        assert isinstance(car, VehicleActor)
        mount = Pose(1.2, z=2.0, pitch=-0.26)
        camera = world.spawn("sensor.camera.rgb", {"image_size_x": "84", "image_size_y": "84"}, mount, car.id)
        gnss = world.spawn("sensor.other.gnss", {"noise_lat_stddev": "0.1"}, Pose(), car.id)
        assert isinstance(gnss, GnssSensor)
        out: list[object] = []
        for step in range(100):
            car.apply_control(VehicleControl(throttle=0.8, steer=math.sin(step / 9)))
            if step % 20 == 0:
                other.teleport(follow(car.pose, Pose(8.0)))
            world.tick(DT)
            out += [car.pose.x, car.pose.yaw, world.gnss(gnss), world.render(camera).tobytes()]
        return out

    assert run() == run()


def test_the_camera_sees_other_cars_but_not_its_own(world: World) -> None:
    start = world.town.spawn_points[0]
    car = world.spawn(MODEL, {"color": "255,0,0"}, start)
    size = {"image_size_x": "84", "image_size_y": "84"}

    def labels(mount: Pose) -> set[int]:
        camera = world.spawn("sensor.camera.semantic_segmentation", size, mount, car.id)
        picture = world.render(camera)
        world.destroy(camera.id)
        return set(picture[:, :, 2].ravel().tolist())

    inside, chase = Pose(0.3, z=1.2), Pose(-7.0, z=3.0, pitch=-0.2)
    assert 14 not in labels(inside)
    assert 14 in labels(chase)
    ahead = follow(start, Pose(10.0))
    world.spawn("vehicle.carlamotors.firetruck", {}, ahead)
    assert 15 in labels(inside)


def test_camera_attributes_and_kinds(world: World) -> None:
    attributes = {"image_size_x": "40", "image_size_y": "30", "fov": "60"}
    for kind in ("rgb", "depth", "semantic_segmentation"):
        camera = world.spawn(f"sensor.camera.{kind}", attributes, Pose(z=5.0, pitch=-0.5))
        assert isinstance(camera, CameraSensor)
        assert camera.fov == pytest.approx(math.pi / 3)
        picture = world.render(camera)
        assert picture.shape == (30, 40, 4)
        assert picture.dtype == np.uint8
        assert picture.flags.c_contiguous
    with pytest.raises(TypeError, match="expected a camera, got spectator"):
        world.render(world.spectator)


def test_sensor_tick_counts_simulated_time(world: World) -> None:
    sensor = world.spawn("sensor.camera.rgb", {"sensor_tick": "0.1"}, Pose())
    assert isinstance(sensor, CameraSensor)
    fired = []
    for _ in range(41):
        world.tick(DT)
        fired.append(sensor.due(world.time, DT))
    assert fired == [True, False] * 20 + [True]


def test_sensor_tick_does_not_drift_and_goes_on_while_nobody_listens(world: World) -> None:
    sensor = world.spawn("sensor.camera.rgb", {"sensor_tick": "0.2"}, Pose())
    assert isinstance(sensor, CameraSensor)
    sensor.begin(0.05)
    time, fired = 0.05, 0
    for step in range(1, 2_000_000):
        time += 0.05  # as the world's clock, whose rounding adds up to microseconds
        if step < 1_000_000 or step % 1000 > 498:
            due = sensor.due(time, 0.05)
            assert due == (step % 4 == 0), step
            fired += due
    assert fired == 249_999 + 125_000


def test_imu_feels_gravity_and_the_engine(world: World) -> None:
    car = car_at(world, 0.0)
    imu = world.spawn("sensor.other.imu", {}, Pose(), car.id)
    assert isinstance(imu, ImuSensor)
    world.tick(DT)
    still = world.imu(imu)
    assert still.accelerometer == pytest.approx((0.0, 0.0, 9.81), abs=1e-6)
    assert still.compass == pytest.approx(math.pi / 2), "a car that looks along x looks east"
    for _ in range(10):
        car.apply_control(VehicleControl(throttle=1.0))
        world.tick(DT)
    assert world.imu(imu).accelerometer[0] == pytest.approx(car.acceleration[0])
    assert car.acceleration[0] > 1.0


def test_noise_is_seeded(town: Town) -> None:
    def readings(world_seed: int, noise_seed: int) -> list[float]:
        world = World(town, seed=world_seed)
        imu = world.spawn("sensor.other.imu", {"noise_gyro_stddev_z": "1", "noise_seed": str(noise_seed)}, Pose())
        assert isinstance(imu, ImuSensor)
        return [world.imu(imu).gyroscope[2] for _ in range(5)]

    assert readings(1, 2) == readings(1, 2)
    assert readings(1, 2) != readings(1, 3)
    assert readings(1, 2) != readings(2, 2)


def test_obstacle_sensor_measures_to_the_nearest_body(world: World) -> None:
    car = car_at(world, 0.0)
    place = {"distance": "20", "hit_radius": "0"}
    sensor = world.spawn("sensor.other.obstacle", place, Pose(LENGTH / 2, z=0.5), car.id)
    assert isinstance(sensor, ObstacleSensor)
    assert world.obstacle(sensor) is None
    car_at(world, 18.0)
    near = car_at(world, 10.0)
    found = world.obstacle(sensor)
    assert found is not None
    assert found[0] is near
    assert found[1] == pytest.approx(10.0 - LENGTH)


def test_rays_by_hand(world: World) -> None:
    car = car_at(world, 10.0)
    half = LENGTH / 2
    assert ray_to_box((0.0, 0.0, 0.5), (1.0, 0.0, 0.0), car.pose, car.half_extents) == pytest.approx(10.0 - half)
    assert ray_to_box((0.0, 0.0, 5.0), (1.0, 0.0, 0.0), car.pose, car.half_extents) is None
    assert ray_to_box((20.0, 0.0, 0.5), (1.0, 0.0, 0.0), car.pose, car.half_extents) is None
    assert ray_to_box((10.0, 0.0, 0.5), (1.0, 0.0, 0.0), car.pose, car.half_extents) == 0.0
    down = (0.6, 0.0, -0.8)

    def slope(x: float, y: float, z: float) -> Ground:
        return Ground(0.1 * x, 0.1, 0.0)

    # 4 - 0.8 s = 0.1 * 0.6 s
    assert ray_to_ground((0.0, 0.0, 4.0), down, slope) == pytest.approx(4.0 / 0.86)
    assert ray_to_ground((0.0, 0.0, 4.0), (0.0, 0.0, 1.0), slope) is None
    assert ray_to_ground((0.0, 0.0, -4.0), (0.0, 0.0, -1.0), slope) is None


@pytest.mark.parametrize("target", [6.0, -3.0, 0.0])
def test_ackermann_control_holds_a_speed(world: World, target: float) -> None:
    car = car_at(world, 0.0)
    car.vehicle.set_velocity(3.0, 0.0, 0.0)
    car.ackermann = AckermannControl(steer=0.0, speed=target, acceleration=2.0)
    for _ in range(200):
        world.tick(DT)
    assert car.vehicle.speed == pytest.approx(target, abs=0.4)
    car.apply_control(VehicleControl())
    assert car.ackermann is None


def test_ackermann_steering_is_an_angle_with_a_rate(world: World) -> None:
    car = car_at(world, 0.0)
    car.ackermann = AckermannControl(steer=0.3, steer_speed=0.1, speed=2.0)
    for _ in range(20):
        world.tick(DT)
    assert car.vehicle.wheel_angle == pytest.approx(0.1, abs=0.02)
    for _ in range(100):
        world.tick(DT)
    assert car.vehicle.wheel_angle == pytest.approx(0.3, abs=0.03)


def test_the_number_of_actors_is_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_carla.simulator.world.MAX_ACTORS", len(world.actors) + 1)
    first = world.spawn("sensor.other.gnss", {}, Pose())
    with pytest.raises(SpawnError, match="actors already"):
        world.spawn("sensor.other.gnss", {}, Pose())
    world.destroy(first.id)
    world.spawn("sensor.other.gnss", {}, Pose())
