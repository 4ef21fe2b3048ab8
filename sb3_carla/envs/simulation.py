"""The simulation behind ``CarlaLane-v0``: a town with the agent's car on its route, and other cars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.client.server_connection import ServerConnection
from sb3_carla.client.session import CarlaSession
from sb3_carla.client.vehicle import VehicleState
from sb3_carla.envs.controls import Controls
from sb3_carla.envs.episode import Episode
from sb3_carla.envs.episode_setup import EpisodeSetup, Weather
from sb3_carla.envs.privileged_state import privileged_state
from sb3_carla.envs.random_look import TownPainter
from sb3_carla.envs.randomization import Dynamics
from sb3_carla.envs.rewards import STANDING_SPEED, Motion
from sb3_carla.envs.route import LanePose, LaneRoute, Scenarios
from sb3_carla.envs.traffic import CarAhead, IntelligentDriver, Traffic, find_car_ahead, recommended_speed

__all__ = ["LaneSimulation"]

TIME_LIMIT_FACTOR = 3.0
"""Time limit of an episode as a multiple of the time that its route takes at target speed."""
TOWNS_KEPT = 64
"""Number of towns whose scenarios are kept in memory."""


class LaneSimulation:
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
        self.connection, self.controls = connection, controls
        self.target_speed = target_speed
        self._n_npcs, self._route_length = n_npcs, route_length
        self._action_repeat = action_repeat
        self.episode: Episode | None = None
        """The present episode, or the one that ended last; None before the first and while one begins."""
        self.traffic: Traffic | None = None
        """The other cars; None without ``n_npcs``."""
        self.scenarios: dict[str, Scenarios] = {}
        """By town."""
        self._weather: Weather | None = None
        self._painter = TownPainter()
        self.car_ahead = CarAhead()
        """The next car on the route at the last tick."""
        self.route: LaneRoute
        """The route of the present episode."""
        self.vehicle_state: VehicleState
        """The car at the last tick."""
        self.lane_pose: LanePose
        """The car relative to the route at the last tick."""

    @property
    def decision_seconds(self) -> float:
        """Simulated time of a decision [s]."""
        return self.controls.delta_seconds * self._action_repeat

    @property
    def session(self) -> CarlaSession:
        """The session with the server, which an episode has."""
        assert self.connection.session is not None
        return self.connection.session

    @property
    def town_map(self) -> Any:
        """``carla.Map`` of the present town."""
        return self.session.world.get_map()

    @property
    def max_wheel_angle(self) -> float:
        """Wheel angle of full steering at the present speed [rad]."""
        return self.controls.full_steering(self.vehicle_state.speed)

    def safe_speed(self) -> float:
        """Speed that keeps the distance to the car ahead [m/s]; infinite without traffic."""
        if self.traffic is None:
            return float("inf")
        speed = self.vehicle_state.speed
        acceleration = IntelligentDriver()(
            speed, self.target_speed, gap=self.car_ahead.gap, closing_speed=speed - self.car_ahead.speed
        )
        return max(0.0, speed + acceleration)

    def privileged_state(self) -> NDArray[np.float32]:
        """What only a critic may see, see :mod:`sb3_carla.envs.privileged_state`: shape (14,), float32."""
        assert self.episode is not None
        return privileged_state(
            self.route, self.lane_pose, self.vehicle_state, car_ahead=self.car_ahead, target_speed=self.target_speed,
            steering=self.controls.steering, stuck=self.episode.stuck,
        )  # fmt: skip

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
        time_limit = TIME_LIMIT_FACTOR * self.route.length / self.target_speed
        self.episode = Episode(self.route.length, time_limit, session.half_width, session.delta_seconds)
        self.controls.restart(steering_gain=dynamics.steering_gain, steering_delay=dynamics.steering_delay)
        self._observe_vehicle()

    def advance(self, steering: float, drive: float) -> Motion:
        """
        Hold an action for all ticks of a decision, also if the episode ends before the last of them.

        :param steering: first action, -1 (left) to 1 (right)
        :param drive: second action, -1 to 1: pedal or speed
        :return: what the reward depends on
        :raises ServerError: if the server is lost
        """
        assert self.episode is not None
        station, steering_before = self.lane_pose.station, self.controls.steering
        for _ in range(self._action_repeat):
            if self.traffic is not None:
                self.traffic.step(self.vehicle_state)
            self.session.steer(*self.controls.act(steering, drive, self.vehicle_state.speed))
            self.session.tick()
            self._observe_vehicle()
            blocked = IntelligentDriver().following_speed(self.car_ahead.gap) < STANDING_SPEED
            collisions = self.session.collisions()
            if not self.episode.end_reason:
                self.episode.update(self.vehicle_state, self.lane_pose, collisions, blocked=blocked)
        pose, speed = self.lane_pose, self.vehicle_state.speed
        return Motion(
            progress_speed=(pose.station - station) / self.decision_seconds,
            speed=speed,
            recommended_speed=recommended_speed(
                self.route, pose.station, speed=speed, target_speed=self.target_speed, gap=self.car_ahead.gap
            ),
            lateral_offset=pose.lateral_offset,
            half_width=pose.half_width,
            heading_error=pose.heading_error,
            steering_change=abs(self.controls.steering - steering_before),
            failed=self.episode.failed,
        )

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
