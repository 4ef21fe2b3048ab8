"""The tick loop and the sensors, with the genuine client."""

from __future__ import annotations

import math
import time
from typing import Any

import carla
import numpy as np
import pytest
from harness import TOWN, Inbox, ServerProcess, run_client, running_server, spawn_car, spawn_sensor, synchronous

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.town import Town


def pixels(image: Any) -> np.ndarray:
    return np.frombuffer(image.raw_data, np.uint8).reshape(image.height, image.width, 4)


def test_pattern_of_the_official_examples(server: ServerProcess) -> None:
    out = run_client(
        """
        import queue, random
        random.seed(1)
        world = client.load_world("Circuit01")
        blueprints = world.get_blueprint_library()
        car_blueprint = random.choice(blueprints.filter("vehicle.*"))
        if car_blueprint.has_attribute("color"):
            colors = car_blueprint.get_attribute("color").recommended_values
            car_blueprint.set_attribute("color", random.choice(colors))
        start = random.choice(world.get_map().get_spawn_points())
        car = world.try_spawn_actor(car_blueprint, start)
        assert car is not None and world.try_spawn_actor(car_blueprint, start) is None
        settings = world.get_settings()
        settings.synchronous_mode = True
        settings.fixed_delta_seconds = 0.05
        world.apply_settings(settings)
        camera_blueprint = blueprints.find("sensor.camera.rgb")
        camera_blueprint.set_attribute("image_size_x", "200")
        camera_blueprint.set_attribute("image_size_y", "100")
        place = carla.Transform(carla.Location(x=1.5, z=2.4))
        camera = world.spawn_actor(camera_blueprint, place, attach_to=car, attachment_type=carla.AttachmentType.Rigid)
        images = queue.Queue()
        camera.listen(images.put)
        for _ in range(20):
            car.apply_control(carla.VehicleControl(throttle=1.0))
            frame = world.tick()
            image = images.get(timeout=5)
            assert image.frame == frame and (image.width, image.height) == (200, 100)
        assert car.get_velocity().length() > 1.0
        assert car.get_control().throttle == 1.0
        assert sorted(a.id for a in world.get_actors().filter("*car*")) == []
        assert {a.type_id for a in world.get_actors()} == {"spectator", camera.type_id, car.type_id}
        camera.stop()
        assert camera.destroy() and car.destroy()
        settings.synchronous_mode = False
        world.apply_settings(settings)
        print("done")
        """,
        server.port,
    )
    assert out.endswith("done\n")


def test_every_tick_brings_its_own_image_and_snapshot(world: Any) -> None:
    car = spawn_car(world)
    inbox = Inbox(spawn_sensor(world, car, "camera.rgb"))
    last_frame, last_x = 0, None
    for step in range(250):
        car.apply_control(carla.VehicleControl(throttle=0.5, steer=0.05 * math.sin(step / 10)))
        frame = world.tick()
        image = inbox.get()
        snapshot = world.get_snapshot()
        assert image.frame == frame == snapshot.frame
        assert frame > last_frame
        assert image.timestamp == pytest.approx(snapshot.timestamp.elapsed_seconds)
        assert snapshot.timestamp.delta_seconds == pytest.approx(0.05)
        # The picture was taken where the snapshot has the camera.
        camera = snapshot.find(inbox.sensor.id).get_transform().location
        assert camera.distance(image.transform.location) < 1e-4
        assert last_x is None or camera.x != last_x
        last_frame, last_x = frame, camera.x
    assert inbox.queue.empty()


def test_a_tick_right_after_listen_has_an_image(world: Any) -> None:
    car = spawn_car(world)
    camera = spawn_sensor(world, car, "camera.rgb")
    for _ in range(50):
        inbox = Inbox(camera)
        frame = world.tick()
        assert inbox.get().frame == frame
        camera.stop()


def test_sensor_tick_spaces_the_images(world: Any) -> None:
    car = spawn_car(world)
    inbox = Inbox(spawn_sensor(world, car, "camera.rgb", sensor_tick=0.1))
    frames = [world.tick() for _ in range(20)]
    images = [inbox.get().frame for _ in range(10)]
    assert images == frames[::2]


def test_asynchronous_mode_runs_by_itself(client: Any, world: Any) -> None:
    settings = world.get_settings()
    settings.synchronous_mode = False
    settings.fixed_delta_seconds = 0.02
    world.apply_settings(settings)
    for _ in range(10):  # a busy machine may spoil some of the measurements
        start, first = time.monotonic(), world.wait_for_tick().frame
        while world.wait_for_tick().frame < first + 25:
            pass
        seconds = time.monotonic() - start
        assert seconds > 0.3
        if seconds < 2.0:
            break
    assert seconds < 2.0
    assert world.get_snapshot().timestamp.delta_seconds == pytest.approx(0.02)
    # A client that comes now sees the world too.
    assert client.get_world().get_snapshot().frame > first


@pytest.mark.long
def test_two_servers_give_identical_images(server: ServerProcess) -> None:
    def drive(port: int) -> list[bytes]:
        client = carla.Client("127.0.0.1", port)
        client.set_timeout(10.0)
        world = client.load_world("Circuit02")
        synchronous(world)
        world.set_weather(carla.WeatherParameters.SoftRainSunset)
        car, other = spawn_car(world, 0), spawn_car(world, 1, "vehicle.audi.tt")
        rgb = Inbox(spawn_sensor(world, car, "camera.rgb"))
        gnss = Inbox(spawn_sensor(world, car, "other.gnss", noise_lat_stddev=0.001))
        out = []
        for step in range(60):
            car.apply_control(carla.VehicleControl(throttle=0.7, steer=0.3 * math.sin(step / 7)))
            other.set_transform(world.get_map().get_spawn_points()[1 + step % 2])
            world.tick()
            out += [bytes(rgb.get().raw_data), repr(gnss.get().latitude).encode()]
        for inbox in (rgb, gnss):
            inbox.sensor.stop()
        return out

    with running_server("--town", "Circuit02") as second:
        assert drive(server.port) == drive(second.port)


def test_transforms_velocities_and_steering_signs(world: Any) -> None:
    car = spawn_car(world)
    start = world.get_map().get_spawn_points()[0]
    for _ in range(40):  # and it is still on the road
        car.apply_control(carla.VehicleControl(throttle=0.6, steer=0.2))
        world.tick()
    turned = (car.get_transform().rotation.yaw - start.rotation.yaw + 180.0) % 360.0 - 180.0
    assert turned > 10.0, "steering right turns to larger yaw"
    assert car.get_angular_velocity().z > 1.0
    assert car.get_wheel_steer_angle(carla.VehicleWheelLocation.FL_Wheel) > 5.0
    velocity, forward = car.get_velocity(), car.get_transform().get_forward_vector()
    assert velocity.dot(forward) == pytest.approx(velocity.length(), rel=0.05)
    car.apply_control(carla.VehicleControl(brake=1.0))
    for _ in range(100):
        world.tick()
    assert car.get_velocity().length() == pytest.approx(0.0, abs=1e-3)


def test_teleport_constant_velocity_ackermann_and_physics(world: Any) -> None:
    car = spawn_car(world)
    target = world.get_map().get_spawn_points()[5]
    car.set_transform(target)
    world.tick()
    assert car.get_location().distance(target.location) < 0.1
    car.enable_constant_velocity(carla.Vector3D(x=7.0))
    for _ in range(5):
        world.tick()
    assert car.get_velocity().length() == pytest.approx(7.0, abs=0.05)
    car.disable_constant_velocity()
    car.apply_ackermann_control(carla.VehicleAckermannControl(speed=5.0))
    for _ in range(100):
        world.tick()
    assert car.get_velocity().length() == pytest.approx(5.0, abs=0.5)
    car.set_simulate_physics(False)
    car.set_location(target.location)
    for _ in range(3):
        world.tick()
    assert car.get_location().distance(target.location) < 1e-3


def test_depth_and_semantic_cameras(world: Any) -> None:
    car = spawn_car(world)
    place = world.get_map().get_spawn_points()[0]
    ahead = carla.Transform(place.location + 12.0 * place.get_forward_vector(), place.rotation)
    spawn_car(world, ahead, "vehicle.carlamotors.firetruck")
    depth = Inbox(spawn_sensor(world, car, "camera.depth"))
    semantic = Inbox(spawn_sensor(world, car, "camera.semantic_segmentation"))
    world.tick()
    labels = pixels(semantic.get())[:, :, 2]
    assert {int(carla.CityObjectLabel.Roads), int(carla.CityObjectLabel.Truck)} <= set(labels.ravel().tolist())
    code = pixels(depth.get()).astype(np.float64)
    metres = (code[:, :, 2] + 256.0 * code[:, :, 1] + 65536.0 * code[:, :, 0]) / (2**24 - 1) * 1000.0
    truck = labels == int(carla.CityObjectLabel.Truck)
    # From the camera (1.2 m ahead of the centre) to the truck's rear (4.23 m behind its own), tilted by 15 degrees.
    assert np.median(metres[truck]) == pytest.approx((12.0 - 1.2 - 4.23) / math.cos(math.radians(15.0)), abs=1.5)


def test_collision_reports_both_cars(world: Any) -> None:
    car = spawn_car(world)
    place = world.get_map().get_spawn_points()[0]
    wall = carla.Transform(place.location + 12.0 * place.get_forward_vector(), place.rotation)
    other = spawn_car(world, wall, "vehicle.audi.tt")
    inbox = Inbox(spawn_sensor(world, car, "other.collision"))
    obstacle = Inbox(spawn_sensor(world, car, "other.obstacle", distance=30))
    for _ in range(80):
        car.apply_control(carla.VehicleControl(throttle=1.0))
        world.tick()
    event = inbox.get()
    assert (event.actor.id, event.other_actor.id) == (car.id, other.id)
    assert event.normal_impulse.dot(place.get_forward_vector()) < -1000.0
    seen = obstacle.get()
    assert seen.other_actor.id == other.id
    assert 2.0 < seen.distance < 12.0
    car_place, other_place = car.get_location(), other.get_location()
    gap = car_place.distance(other_place) - car.bounding_box.extent.x - other.bounding_box.extent.x
    assert gap > -0.05, "they must not stand in each other"
    assert other_place.distance(wall.location) > 0.1, "the other one is pushed"


def free_front(town: Town) -> list[float]:
    """A building with nothing in the 9.5 m before its front: x, y, z [m], yaw [rad], half length [m]."""
    for number in range(len(town.obstacles)):
        solid = town.obstacles[number]
        if solid.tag != int(carla.CityObjectLabel.Buildings):
            continue
        x, y, z, yaw, half_length = solid.pose.x, solid.pose.y, solid.pose.z, solid.pose.yaw, solid.half_extents[0]
        away = half_length + 5.0
        before = Pose(x + away * math.cos(yaw), y + away * math.sin(yaw), z, yaw=yaw)
        if not town.obstacles.touching(before, (4.5, 1.3, 1.0)):
            return [x, y, z, yaw, half_length]
    raise AssertionError("no building has a free front")


def test_a_car_that_leaves_the_road_hits_the_scenery(world: Any) -> None:
    x, y, z, yaw, half_length = free_front(Town.load(TOWN))
    # Buildings face the road: a car in front of one looks at it.
    towards = carla.Rotation(yaw=math.degrees(yaw) + 180.0)
    away = half_length + 6.5
    start = carla.Location(x + away * math.cos(yaw), y + away * math.sin(yaw), z)
    hits = world.cast_ray(start + carla.Location(z=1.0), carla.Location(x, y, z + 1.0))
    assert hits[0].label == carla.CityObjectLabel.Buildings
    car = spawn_car(world)
    car.set_transform(carla.Transform(start, towards))
    inbox = Inbox(spawn_sensor(world, car, "other.collision"))
    for _ in range(100):
        car.apply_control(carla.VehicleControl(throttle=0.6))
        world.tick()
    event = inbox.get()
    assert (event.actor.id, event.other_actor.id, event.other_actor.type_id) == (car.id, 0, "static.building")
    assert event.other_actor.semantic_tags == [int(carla.CityObjectLabel.Buildings)]
    assert event.normal_impulse.dot(towards.get_forward_vector()) < -1000.0
    assert car.get_location().distance(carla.Location(x, y, z)) > half_length + 1.5, "it stands in front of the house"
    with pytest.raises(RuntimeError, match=r"collision at spawn position.*scenery \(static\.building\)"):
        spawn_car(world, carla.Transform(carla.Location(x, y, z), towards))


def test_a_tiny_sensor_tick_means_every_step(world: Any) -> None:
    """Time divided by it is not finite; this once closed the connection that ticked."""
    car = spawn_car(world)
    gnss = Inbox(spawn_sensor(world, car, "other.gnss", sensor_tick="1e-310"))
    for _ in range(3):
        frame = world.tick()
        assert gnss.get().frame == frame


def test_gnss_imu_and_lane_invasion(world: Any) -> None:
    car = spawn_car(world)
    gnss = Inbox(spawn_sensor(world, car, "other.gnss"))
    imu = Inbox(spawn_sensor(world, car, "other.imu"))
    lanes = Inbox(spawn_sensor(world, car, "other.lane_invasion"))
    world.tick()
    fix, reading = gnss.get(), imu.get()
    expected = world.get_map().transform_to_geolocation(fix.transform.location)
    assert (fix.latitude, fix.longitude) == pytest.approx((expected.latitude, expected.longitude), abs=1e-9)
    assert fix.altitude == pytest.approx(expected.altitude, abs=1e-3)
    # At rest, 15 degrees nose down: gravity's reaction points up and back.
    assert reading.accelerometer.z == pytest.approx(9.81 * math.cos(math.radians(15.0)), abs=0.05)
    assert reading.accelerometer.x == pytest.approx(-9.81 * math.sin(math.radians(15.0)), abs=0.05)
    yaw = math.radians(car.get_transform().rotation.yaw)
    assert reading.compass == pytest.approx((yaw + math.pi / 2) % (2 * math.pi), abs=1e-3)
    for _ in range(60):
        car.apply_control(carla.VehicleControl(throttle=0.8, steer=0.2))
        world.tick()
    assert lanes.get().crossed_lane_markings
    assert any(imu.get().gyroscope.z > 0.1 for _ in range(60))


def test_weather_changes_the_picture_and_is_given_back(world: Any) -> None:
    car = spawn_car(world)
    inbox = Inbox(spawn_sensor(world, car, "camera.rgb"))
    world.tick()
    noon = pixels(inbox.get()).mean()
    world.set_weather(carla.WeatherParameters.WetCloudyNight)
    world.tick()
    assert pixels(inbox.get()).mean() < noon - 10.0
    assert world.get_weather() == carla.WeatherParameters.WetCloudyNight


def test_spectator_moves(world: Any) -> None:
    place = carla.Transform(carla.Location(1.0, 2.0, 30.0), carla.Rotation(pitch=-80.0, yaw=20.0))
    spectator = world.get_spectator()
    spectator.set_transform(place)
    world.tick()
    assert spectator.get_transform().location == place.location
    assert spectator.get_transform().rotation.yaw == pytest.approx(20.0, abs=1e-4)
    assert not spectator.destroy()


def test_rays_meet_the_road_and_the_cars(world: Any) -> None:
    car = spawn_car(world)
    world.tick()
    above = car.get_location() + carla.Location(z=5.0)
    hits = world.cast_ray(above, above - carla.Location(z=10.0))
    assert [hit.label for hit in hits] == [carla.CityObjectLabel.Car, carla.CityObjectLabel.Roads]
    aside = above + carla.Location(x=30.0, y=30.0)
    ground = world.ground_projection(aside, 20.0)
    assert ground.location.z == pytest.approx(car.get_location().z, abs=0.1)
    assert world.ground_projection(aside, 1.0) is None


def test_light_state_physics_and_telemetry(world: Any) -> None:
    car = spawn_car(world)
    lights = carla.VehicleLightState(carla.VehicleLightState.LowBeam | carla.VehicleLightState.Brake)
    car.set_light_state(lights)
    assert world.get_vehicles_light_states() == {car.id: lights}
    physics = car.get_physics_control()
    assert physics.mass > 500.0
    assert [wheel.max_steer_angle > 30.0 for wheel in physics.wheels] == [True, True, False, False]
    car.apply_control(carla.VehicleControl(throttle=1.0))
    for _ in range(20):
        world.tick()
    telemetry = car.get_telemetry_data()
    assert telemetry.speed == pytest.approx(car.get_velocity().length(), abs=1e-3)
    assert len(telemetry.wheels) == 4
    assert car.get_speed_limit() == 30.0
    assert not car.is_at_traffic_light()
