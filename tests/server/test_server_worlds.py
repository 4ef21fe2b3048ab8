"""Loading towns, batches, and what is refused."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import carla
import pytest
from harness import TOWN, Inbox, ServerProcess, await_snapshot, run_client, spawn_car, spawn_sensor, synchronous

from sb3_carla.simulator.roads.built_in_towns import BUILT_IN_TOWNS, built_in_opendrive

SpawnActor, FutureActor = carla.command.SpawnActor, carla.command.FutureActor


def test_every_built_in_town_is_listed_and_loads(client: Any) -> None:
    names = client.get_available_maps()
    assert names == [f"/Game/Carla/Maps/{name}" for name in BUILT_IN_TOWNS]
    for name in (BUILT_IN_TOWNS[1], "/Game/Carla/Maps/" + BUILT_IN_TOWNS[0]):
        world = client.load_world(name)
        assert world.get_map().name == "Carla/Maps/" + name.rsplit("/", 1)[-1]
        assert len(world.get_map().get_spawn_points()) >= 8


def test_an_unknown_town_is_refused_and_the_old_world_goes_on(client: Any, world: Any) -> None:
    car = spawn_car(world)
    with pytest.raises(RuntimeError, match=f"Town not found: 'Nowhere'; available: {TOWN}"):
        client.load_world("Nowhere")
    world.tick()
    assert world.get_actor(car.id).is_alive


def test_load_and_reload_change_the_episode(client: Any, world: Any) -> None:
    spawn_car(world)
    frame = world.tick()
    again = client.reload_world(False)
    assert again.id != world.id
    assert again.get_settings().synchronous_mode, "reset_settings was False"
    assert again.tick() > frame
    assert [actor.type_id for actor in again.get_actors()] == ["spectator"]
    # The client ticks once by itself while it loads.
    assert again.get_snapshot().timestamp.elapsed_seconds == pytest.approx(0.1)
    default = client.load_world(TOWN)
    assert not default.get_settings().synchronous_mode
    assert default.get_settings().fixed_delta_seconds is None


def test_maps_from_files_and_from_the_client(client: Any, tmp_path: Any) -> None:
    path = tmp_path / "Mine.xodr"
    path.write_text(built_in_opendrive(TOWN))
    assert client.load_world(str(path)).get_map().name == "Carla/Maps/Mine"
    world = client.generate_opendrive_world(built_in_opendrive(BUILT_IN_TOWNS[1]))
    assert world.get_map().name.endswith("OpenDriveMap")
    car = spawn_car(world)
    await_snapshot(world, car)
    assert car.is_alive
    (tmp_path / "Broken.xodr").write_text("<OpenDRIVE>")
    for name in (str(tmp_path / "Broken.xodr"), str(tmp_path / "Missing.xodr")):
        with pytest.raises(RuntimeError, match=r"\.xodr"):
            client.load_world(name)
    with pytest.raises(RuntimeError, match="no driving lanes"):
        client.generate_opendrive_world("<OpenDRIVE></OpenDRIVE>")


def test_maps_that_crash_the_parser_are_refused(client: Any, world: Any, tmp_path: Any) -> None:
    """A lane whose successor does not exist is enough."""
    document = ElementTree.fromstring(built_in_opendrive(TOWN))
    left = document.find("road/lanes/laneSection/left")
    assert left is not None
    left.remove(left[0])
    lethal = ElementTree.tostring(document, encoding="unicode")
    with pytest.raises(RuntimeError, match="crashes CARLA's parser"):
        client.generate_opendrive_world(lethal)
    (tmp_path / "Lethal.xodr").write_text(lethal)
    with pytest.raises(RuntimeError, match="crashes CARLA's parser"):
        client.load_world(str(tmp_path / "Lethal.xodr"))
    world.tick()


def test_batches(client: Any, world: Any) -> None:
    blueprint = world.get_blueprint_library().find("vehicle.audi.tt")
    points = world.get_map().get_spawn_points()
    frozen = SpawnActor(blueprint, points[0]).then(carla.command.SetSimulatePhysics(FutureActor, False))
    frozen = frozen.then(carla.command.ApplyTransform(FutureActor, points[4]))
    commands = [frozen, SpawnActor(blueprint, points[2]), SpawnActor(blueprint, points[2])]
    commands += [carla.command.DestroyActor(99999)]
    answers = client.apply_batch_sync(commands, False)
    assert [bool(answer.error) for answer in answers] == [False, False, True, True]
    assert "collision at spawn position" in answers[2].error
    first, second = answers[0].actor_id, answers[1].actor_id
    world.tick()
    assert world.get_actor(first).get_location().distance(points[4].location) < 1e-3
    client.apply_batch(
        [
            carla.command.ApplyVehicleControl(second, carla.VehicleControl(throttle=1.0)),
            carla.command.ApplyTransform(first, points[6]),
            carla.command.ApplyTargetVelocity(second, carla.Vector3D(x=0.0)),
            carla.command.SetVehicleLightState(second, carla.VehicleLightState.Position),
        ]
    )
    for _ in range(10):
        world.tick()
    car = world.get_actor(second)
    assert car.get_velocity().length() > 0.5
    assert car.get_light_state() == carla.VehicleLightState.Position
    assert world.get_actor(first).get_location().distance(points[6].location) < 1e-3
    answers = client.apply_batch_sync([carla.command.DestroyActor(i) for i in (first, second)])
    assert [answer.error for answer in answers] == ["", ""]
    world.tick()
    assert not car.is_alive
    world.tick()
    assert len(world.get_actors()) == 1


def test_what_fails_after_a_spawn_does_not_hide_the_actor(client: Any, world: Any) -> None:
    spawn = SpawnActor(world.get_blueprint_library().find("vehicle.audi.tt"), world.get_map().get_spawn_points()[0])
    (answer,) = client.apply_batch_sync([spawn.then(carla.command.DestroyActor(99999))], True)
    assert not answer.error
    assert world.get_actor(answer.actor_id).type_id == "vehicle.audi.tt"


def test_attributes_have_a_greatest_length(world: Any) -> None:
    blueprint = world.get_blueprint_library().find("vehicle.audi.tt")
    blueprint.set_attribute("role_name", "x" * 20_000)
    with pytest.raises(RuntimeError, match="attributes of at most 16384 characters"):
        world.spawn_actor(blueprint, world.get_map().get_spawn_points()[0])


def test_the_batch_can_tick(client: Any, world: Any) -> None:
    frame = world.tick()
    client.apply_batch_sync([], True)
    assert world.get_snapshot().frame == frame + 1


def test_spawn_errors_say_what_is_wrong(world: Any) -> None:
    library = world.get_blueprint_library()
    points = world.get_map().get_spawn_points()
    car = spawn_car(world)
    with pytest.raises(RuntimeError, match="collision at spawn position"):
        spawn_car(world)
    camera = library.find("sensor.camera.rgb")
    camera.set_attribute("image_size_x", "0")
    with pytest.raises(RuntimeError, match="camera of 0 x 600"):
        world.spawn_actor(camera, carla.Transform(), attach_to=car)
    camera = library.find("sensor.camera.rgb")
    camera.set_attribute("fov", "180.0")
    with pytest.raises(RuntimeError, match="field of view"):
        world.spawn_actor(camera, carla.Transform(), attach_to=car)
    with pytest.raises(RuntimeError, match="only sensors and props"):
        world.spawn_actor(library.find("vehicle.audi.tt"), points[3], attach_to=car)
    world.tick()
    assert car.destroy()
    with pytest.raises(RuntimeError):
        world.spawn_actor(library.find("sensor.other.gnss"), carla.Transform(), attach_to=car)


def test_a_destroyed_parent_leaves_its_camera_behind(world: Any) -> None:
    car = spawn_car(world)
    inbox = Inbox(spawn_sensor(world, car, "camera.rgb"))
    world.tick()
    place = inbox.get().transform
    assert car.destroy()
    frame = world.tick()
    image = inbox.get()
    assert image.frame == frame
    assert image.transform.location.distance(place.location) < 1e-3


def test_missing_features_raise_errors_in_the_client(server: ServerProcess) -> None:
    out = run_client(
        """
        world = client.load_world("Circuit01")
        blueprint = world.get_blueprint_library().find("vehicle.audi.tt")
        car = world.spawn_actor(blueprint, world.get_map().get_spawn_points()[0])
        for call in (lambda: car.set_autopilot(True), client.get_trafficmanager, lambda: client.start_recorder("x"),
                     car.get_component_names):
            try:
                call()
            except RuntimeError as error:
                print(error)
        world.freeze_all_traffic_lights(True)
        world.debug.draw_point(carla.Location(), 0.1, carla.Color(255, 0, 0), 1.0)
        assert list(world.get_level_bbs(carla.CityObjectLabel.Any)) == []
        while not world.wait_for_tick(5.0).has_actor(car.id):
            pass
        assert car.destroy()
        """,
        server.port,
    ).splitlines()
    assert [line.startswith("this server has no traffic manager") for line in out[:2]] == [True, True]
    assert out[2] == "this server has no recorder"
    assert "get_actor_component_names" in out[3]


def test_settings_are_kept_and_checked(world: Any) -> None:
    settings = world.get_settings()
    settings.fixed_delta_seconds = 0.1
    settings.no_rendering_mode = True
    frame = world.tick()
    assert world.apply_settings(settings) == frame
    assert world.get_settings() == settings
    world.tick()
    assert world.get_snapshot().timestamp.delta_seconds == pytest.approx(0.1)
    settings.fixed_delta_seconds = 100.0
    with pytest.raises(RuntimeError, match="fixed_delta_seconds"):
        world.apply_settings(settings)
    synchronous(world)
