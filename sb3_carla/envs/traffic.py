"""
Other cars: they follow lanes, keep their distance, and are moved along waypoints in one batch each tick. They cost as
much as the camera, so they decide in turn, and those that are small in the picture move less often.

CARLA's Traffic Manager is not used: it opens a socket that is not on loopback, and can deadlock in 0.9.16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.session import CarlaSession
from sb3_carla.client.vehicle import VehicleState
from sb3_carla.envs.rewards import comfortable_speed
from sb3_carla.envs.route import LaneRoute, Scenarios, follow_lane
from sb3_carla.errors import ServerError

__all__ = ["CarAhead", "IntelligentDriver", "Traffic", "find_car_ahead", "recommended_speed"]

ROUTE_CHUNK = 150.0
"""A car's route is extended by pieces of this length [m]."""
VIEW = 40
"""How far ahead a driver looks for others [m]."""
CAR_LENGTH = 4.8
"""[m]"""
BLOCKING_WIDTH = 1.9
"""A car is in the way where its centre is closer than this to the route [m]."""
BEND_PREVIEW, BEND_PREVIEW_TIME = 2.0, 1.2
"""Bends limit the recommended speed this far ahead: distance [m], and growth with the speed [s]."""
CLEARANCE = 12.0
"""Free space around each car when an episode begins [m]."""
PERIOD = 4
"""A car decides on its acceleration every so many ticks, the cars in turn."""
AWAY, FAR = 60.0, 130.0
"""Cars that are farther from the agent's than these, along x or y, move every second tick, and when they decide [m]."""
WAITING_HEIGHT, WAITING_GAP = 30.0, 5.0
"""Height over the ground of the first car that waits for its place, and from each to the next one [m]."""


@dataclass(frozen=True)
class IntelligentDriver:
    """
    Car following by the Intelligent Driver Model.

    Source: Treiber, Hennecke, Helbing, Congested traffic states, Phys. Rev. E 62, 2000, equations 1 to 3; city values.

    :param time_headway: [s]
    :param minimum_gap: bumper to bumper [m]
    :param acceleration: [m/s^2]
    :param deceleration: comfortable braking [m/s^2]
    """

    time_headway: float = 1.5
    minimum_gap: float = 2.0
    acceleration: float = 1.5
    deceleration: float = 2.0

    def __call__(self, speed: float, desired_speed: float, *, gap: float, closing_speed: float) -> float:
        """
        :param speed: [m/s]
        :param desired_speed: [m/s], > 0
        :param gap: to the car ahead, bumper to bumper [m]; infinite if there is none
        :param closing_speed: how fast the gap shrinks [m/s]
        :return: acceleration [m/s^2], at least -8
        """
        braking = 2.0 * math.sqrt(self.acceleration * self.deceleration)
        wanted_gap = self.minimum_gap + max(0.0, speed * self.time_headway + speed * closing_speed / braking)
        free = 1.0 - (speed / desired_speed) ** 4
        return max(-8.0, self.acceleration * (free - (wanted_gap / max(gap, 0.1)) ** 2))

    def following_speed(self, gap: float) -> float:
        """
        :param gap: to the car ahead, bumper to bumper [m]; infinite if there is none
        :return: speed at which this gap is the one to keep [m/s]
        """
        return max(0.0, gap - self.minimum_gap) / self.time_headway


class CarAhead(NamedTuple):
    """
    The next car on a route.

    :param gap: distance to it, bumper to bumper [m]; infinite if the road is free
    :param speed: its speed along the route [m/s]
    """

    gap: float = math.inf
    speed: float = 0.0


def find_car_ahead(route: LaneRoute, station: float, cars: NDArray[np.float64]) -> CarAhead:
    """
    Find the next car on a route, up to ``VIEW`` metres ahead.

    :param route: of the car that looks ahead
    :param station: its place on the route [m]
    :param cars: the others: shape (n, 4), float64 [x m, y m, velocity x m/s, velocity y m/s]
    :return: the nearest of them that is in the way
    """
    if not len(cars):
        return CarAhead()
    bumper = station + 0.5 * CAR_LENGTH
    first, last = np.searchsorted(route.stations, (bumper, bumper + VIEW))
    ahead = route.points[first:last, :2]  # (k, 2)
    if not len(ahead):
        return CarAhead()
    squared = ((ahead[:, None, :] - cars[None, :, :2]) ** 2).sum(axis=2)  # (k, n)
    blocked = np.flatnonzero((squared < BLOCKING_WIDTH**2).any(axis=1))
    if not len(blocked):
        return CarAhead()
    point = int(blocked[0])
    car = cars[int(squared[point].argmin())]
    heading = route.headings[min(first + point, len(route.headings) - 1)]
    speed = car[2] * math.cos(heading) + car[3] * math.sin(heading)
    distance = route.stations[first + point] - station + BLOCKING_WIDTH
    return CarAhead(max(0.0, float(distance) - CAR_LENGTH), float(speed))


def recommended_speed(route: LaneRoute, station: float, *, speed: float, target_speed: float, gap: float) -> float:
    """
    Speed that is comfortable in the bends ahead and behind the car ahead.

    :param route: that the car follows
    :param station: its place on the route [m]
    :param speed: its speed [m/s]
    :param target_speed: on a free straight [m/s]
    :param gap: to the car ahead [m]; infinite if the road is free
    :return: [m/s]
    """
    curvature = route.curvature_ahead(station, BEND_PREVIEW + BEND_PREVIEW_TIME * speed)
    return min(comfortable_speed(curvature, target_speed), IntelligentDriver().following_speed(gap))


@dataclass
class _Car:
    actor_id: int
    route: LaneRoute
    desired_speed: float
    station: float = 0.0
    speed: float = 0.0
    acceleration: float = 0.0


class Traffic:
    """
    Lane-following cars around the agent's.

    :param session: with the server; its town is loaded
    :param count: number of cars
    :param target_speed: their mean desired speed [m/s]
    :raises ServerError: if the town has too few free places
    """

    def __init__(self, session: CarlaSession, count: int, target_speed: float) -> None:
        self._session = session
        self._target_speed = target_speed
        self._driver = IntelligentDriver()
        self._cars: list[_Car] = []
        self._positions: NDArray[np.float64] = np.empty((0, 4))
        self._ticks = 0
        self._actor_ids = self._spawn(count)

    def _models(self) -> list[Any]:
        """Blueprints of cars."""
        library = self._session.world.get_blueprint_library()
        models = sorted((b for b in library.filter("vehicle.*") if _is_car(b)), key=lambda b: b.id)
        if not models:
            raise ServerError("n_npcs: the server has no blueprint of a car")
        for model in models:
            self._session.set_owner(model)
        return models

    def _spawn(self, count: int) -> list[int]:
        models, ids = self._models(), list[int]()
        for place in self._session.world.get_map().get_spawn_points():
            if len(ids) == count:
                break
            ids += self._spawn_one(models[len(ids) % len(models)], place)
        if len(ids) < count:
            raise ServerError(f"n_npcs: the town has room for {len(ids)} cars beside the agent's, not for {count}")
        return ids

    def _spawn_one(self, model: Any, place: Any) -> list[int]:
        """Spawn a car that stands still; its id in a list, which is empty if the server has not spawned it."""
        command = carla.command
        spawn = command.SpawnActor(model, place).then(command.SetSimulatePhysics(command.FutureActor, False))
        response = self._session.client.apply_batch_sync([spawn])[0]
        if response.error:
            return []
        self._session.adopt(response.actor_id)  # now: the next answer may not come
        return [response.actor_id]

    def resize(self, count: int) -> None:
        """
        Spawn or destroy cars, until :meth:`restart`. The new ones hang above each other high in the air, where there is
        room for them whatever stands on the roads.

        :param count: number of cars from now on
        """
        surplus, self._actor_ids = self._actor_ids[count:], self._actor_ids[:count]
        if surplus:
            self._session.destroy_adopted(surplus)
        if len(self._actor_ids) < count:
            models, (above, *_) = self._models(), self._session.world.get_map().get_spawn_points()
            for number in range(len(self._actor_ids), count):
                height = above.location.z + WAITING_HEIGHT + WAITING_GAP * number
                place = carla.Transform(carla.Location(above.location.x, above.location.y, height))
                self._actor_ids += self._spawn_one(models[number % len(models)], place)

    def restart(
        self, scenarios: Scenarios, route: LaneRoute, rng: np.random.Generator, *, all_of_them: bool = True
    ) -> None:
        """
        Spread the cars over the town, with free space around each and around the agent's start.

        :param scenarios: the town's starts
        :param route: the agent's route
        :param rng: source of randomness
        :param all_of_them: otherwise those for which there is no room are destroyed
        :raises ServerError: if there is no room for all of them
        """
        taken = [(float(route.points[0, 0]), float(route.points[0, 1]))]
        self._cars = []
        starts = scenarios.shuffled_starts(rng)
        for actor_id in self._actor_ids:
            for start in starts:
                here = start.transform.location.x, start.transform.location.y
                if min(math.dist(here, other) for other in taken) > CLEARANCE:
                    break
            else:
                if not all_of_them:
                    self.resize(len(self._cars))
                    break
                count = len(self._actor_ids)
                raise ServerError(f"n_npcs: {count} cars do not find {CLEARANCE:g} m of free space around each")
            taken.append(here)
            desired = self._target_speed * float(rng.uniform(0.6, 1.0))
            self._cars.append(_Car(actor_id, LaneRoute(follow_lane(start, ROUTE_CHUNK)), desired))
        self._positions, self._ticks = np.empty((len(self._cars), 4)), 0
        self._send([(index, True) for index in range(len(self._cars))])

    def step(self, agent: VehicleState) -> None:
        """
        Move every car by one tick.

        :param agent: the agent's car
        """
        if not self._cars:
            return
        self._ticks += 1
        x, y, dt = agent.x, agent.y, self._session.delta_seconds
        everyone = np.empty((len(self._cars) + 1, 4))
        everyone[:-1], everyone[-1] = self._positions, _row(x, y, agent.heading, agent.speed)
        moved = []
        for index, (car, (car_x, car_y, *_)) in enumerate(zip(self._cars, self._positions.tolist(), strict=True)):
            its_turn = (self._ticks + index) % PERIOD == 0
            distance = max(abs(car_x - x), abs(car_y - y))
            ticks = PERIOD if distance > FAR else 2 if distance > AWAY else 1
            if its_turn:
                self._decide(car, index, everyone)
            if (self._ticks + index) % ticks == 0:
                self._move(car, ticks * dt)
                moved.append((index, its_turn))
        self._send(moved)

    def _decide(self, car: _Car, index: int, everyone: NDArray[np.float64]) -> None:
        """Choose a car's acceleration. ``everyone`` has the rows of all cars, ``index`` is this one's."""
        apart = np.abs(everyone[:, :2] - everyone[index, :2]).max(axis=1)  # (n + 1,)
        apart[index] = math.inf
        gap, speed = find_car_ahead(car.route, car.station, everyone[apart < VIEW + CAR_LENGTH + BLOCKING_WIDTH])
        # Routes are extended early, so the rest of one is short only where its lane ends.
        gap = min(gap, car.route.length - car.station)
        desired = comfortable_speed(car.route.curvature_ahead(car.station, 15.0), car.desired_speed)
        acceleration = self._driver(car.speed, desired, gap=gap, closing_speed=car.speed - speed)
        # It is kept until the next decision, by when the car must not be faster than it wants to be.
        car.acceleration = min(acceleration, max(0.0, desired - car.speed) / (PERIOD * self._session.delta_seconds))

    def _move(self, car: _Car, dt: float) -> None:
        car.speed = max(0.0, car.speed + car.acceleration * dt)
        car.station += car.speed * dt
        if car.station > car.route.length - VIEW:
            car.route, car.station = _continued(car.route, car.station)

    @property
    def positions(self) -> NDArray[np.float64]:
        """Where the cars are: shape (n, 4), float64 [x m, y m, velocity x m/s, velocity y m/s]."""
        return np.array(self._positions)

    def _send(self, moved: Sequence[tuple[int, bool]]) -> None:
        """Send the poses of these cars, by index, and with True also their velocities."""
        command, batch = carla.command, []
        for index, with_velocity in moved:
            car = self._cars[index]
            x, y, z, heading, pitch = car.route.pose(car.station)
            rotation = carla.Rotation(math.degrees(pitch), math.degrees(heading), 0.0)
            batch.append(command.ApplyTransform(car.actor_id, carla.Transform(carla.Location(x, y, z), rotation)))
            row = self._positions[index] = _row(x, y, heading, car.speed)
            if with_velocity:
                batch.append(command.ApplyTargetVelocity(car.actor_id, carla.Vector3D(row[2], row[3], 0.0)))
        if batch:
            self._session.client.apply_batch(batch)


def _row(x: float, y: float, heading: float, speed: float) -> tuple[float, float, float, float]:
    return x, y, speed * math.cos(heading), speed * math.sin(heading)


def _is_car(blueprint: Any) -> bool:
    if blueprint.has_attribute("base_type") and blueprint.get_attribute("base_type").as_str() not in ("car", ""):
        return False
    return bool(blueprint.get_attribute("number_of_wheels").as_int() == 4)


def _continued(route: LaneRoute, station: float) -> tuple[LaneRoute, float]:
    """A route that begins shortly before the car and goes on where this one ends; the car's place on it [m]."""
    index = int(np.searchsorted(route.stations, station))
    rest = route.waypoints[max(index - 1, 0) :]
    begin = float(route.stations[max(index - 1, 0)])
    tail = follow_lane(rest[-1], ROUTE_CHUNK)
    longer = LaneRoute([*rest, *tail[1:]])
    return longer, station - begin
