"""The simulation behind ``CarlaLane-v0``: a town with the agent's car on its route, and other cars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.client.server_connection import ServerConnection
from sb3_carla.client.session import CarlaSession
from sb3_carla.envs.controls import Controls
from sb3_carla.envs.episode_setup import EpisodeSetup, Weather
from sb3_carla.envs.lane_driving import LaneDriving
from sb3_carla.envs.random_look import TownPainter
from sb3_carla.envs.randomization import Dynamics
from sb3_carla.envs.rewards import STANDING_SPEED
from sb3_carla.envs.route import LaneRoute, Scenarios
from sb3_carla.envs.traffic import IntelligentDriver, Traffic, find_car_ahead

__all__ = ["LaneSimulation"]

TOWNS_KEPT = 64
"""Number of towns whose scenarios are kept in memory."""


class LaneSimulation(LaneDriving):
    """
    What an episode of ``CarlaLane-v0`` takes place in. It reads the map; the policy sees the camera alone.

    :param connection: to the CARLA server
    :param controls: from actions to steering and pedals
    :param n_npcs: number of other cars
    :param target_speed: speed on a free straight [m/s]
    :param route_length: [m]
    :param action_repeat: ticks of a decision
    """

    def __init__(
        self,
        connection: ServerConnection,
        controls: Controls,
        *,
        n_npcs: int,
        target_speed: float,
        route_length: float,
        action_repeat: int,
    ) -> None:
        super().__init__(controls, target_speed=target_speed, action_repeat=action_repeat)
        self.connection = connection
        self._n_npcs, self._route_length = n_npcs, route_length
        self.traffic: Traffic | None = None
        """The other cars; None without ``n_npcs``."""
        self.scenarios: dict[str, Scenarios] = {}
        """By town."""
        self._weather: Weather | None = None
        self._painter = TownPainter()

    @property
    def session(self) -> CarlaSession:
        """The session with the server, which an episode has."""
        assert self.connection.session is not None
        return self.connection.session

    @property
    def town_map(self) -> Any:
        """``carla.Map`` of the present town."""
        return self.session.world.get_map()

    def safe_speed(self) -> float:
        """Speed that keeps the distance to the car ahead [m/s]; infinite without traffic."""
        if self.traffic is None:
            return float("inf")
        speed = self.vehicle_state.speed
        acceleration = IntelligentDriver()(
            speed, self.target_speed, gap=self.car_ahead.gap, closing_speed=speed - self.car_ahead.speed
        )
        return max(0.0, speed + acceleration)

    def begin(
        self, setup: EpisodeSetup, rng: np.random.Generator, cameras: Sequence[CameraMount] | None = None
    ) -> None:
        """
        Begin an episode: load the town, choose the route, place the cars.

        :param setup: what the episode begins with
        :param rng: for the route and the other cars
        :param cameras: mounts of the cameras on the car; None: as before
        :raises ServerError: if the server is lost, or has no room for the other cars
        :raises MapError: if the town cannot be used
        """
        session, randomness = self._session_in(setup, cameras), setup.randomness
        if setup.weather != self._weather:
            session.set_weather(setup.weather)
            self._weather = setup.weather
        if randomness.look is not None:
            self._painter.apply(session, randomness.look)
        dynamics = randomness.dynamics or Dynamics()
        session.physics.scale(session.vehicle, dynamics.mass, dynamics.friction)
        self.route = self._choose_route(self.scenarios[session.town], setup, rng)
        x, y, z, heading, _ = self.route.pose(0.0)
        if randomness.cars is not None:
            self.traffic = self.traffic or Traffic(session, 0, self.target_speed)
            self.traffic.resize(randomness.cars)
        if self.traffic is not None:
            all_of_them = randomness.cars is None
            self.traffic.restart(self.scenarios[session.town], self.route, rng, all_of_them=all_of_them)
        session.place(x, y, z, heading)
        self._begin_episode(session.half_width)
        self.controls.restart(steering_gain=dynamics.steering_gain, steering_delay=dynamics.steering_delay)
        self._observe_vehicle()

    def _tick(self, steering: float, drive: float) -> None:
        assert self.episode is not None
        if self.traffic is not None:
            self.traffic.step(self.vehicle_state)
        self.session.steer(*self.controls.act(steering, drive, self.vehicle_state.speed))
        self.session.tick()
        self._observe_vehicle()
        blocked = IntelligentDriver().following_speed(self.car_ahead.gap) < STANDING_SPEED
        collisions = self.session.collisions()
        if not self.episode.end_reason:
            self.episode.update(self.vehicle_state, self.lane_pose, collisions, blocked=blocked)

    def leave_lost_server(self) -> None:
        """Drop what was on a server that is lost; the next episode connects anew."""
        self.traffic = None
        self.connection.disconnect(server_lost=True)

    def close(self) -> None:
        """Give the server its settings back and end it if it is ours."""
        self.episode = self.traffic = None
        if self.connection.supervisor is None and self.connection.session is not None:
            self._painter.leave(self.session)
        self.connection.close()

    def _session_in(self, setup: EpisodeSetup, cameras: Sequence[CameraMount] | None) -> CarlaSession:
        """Connect if need be, and load the town if it is not there."""
        session = self.connection.session_for(setup.town)
        if session.load_town(setup.town, cameras):
            self.traffic = self._weather = None  # a new world has its own weather
            self._painter.forget()
            try:
                if session.town not in self.scenarios:
                    self.scenarios[session.town] = Scenarios(session.world.get_map(), self._route_length)
                while len(self.scenarios) > TOWNS_KEPT:
                    del self.scenarios[next(iter(self.scenarios))]
                if self._n_npcs and setup.randomness.cars is None:
                    self.traffic = Traffic(session, self._n_npcs, self.target_speed)
            except BaseException:
                session.town = ""  # the next reset loads it again, which removes the cars that found room
                raise
        return session

    def _choose_route(self, scenarios: Scenarios, setup: EpisodeSetup, rng: np.random.Generator) -> LaneRoute:
        if setup.start_place is not None:
            route = scenarios.from_place(*setup.start_place[1:])
            if route is not None:
                return route
        return scenarios.draw(rng) if setup.scenario is None else scenarios[setup.scenario]

    def _observe_vehicle(self) -> None:
        state = self.session.state()
        self.vehicle_state = state
        self.lane_pose = self.route.locate(state.x, state.y, state.heading)
        cars = self.traffic.positions if self.traffic is not None else np.empty((0, 4))
        self.car_ahead = find_car_ahead(self.route, self.lane_pose.station, cars)
