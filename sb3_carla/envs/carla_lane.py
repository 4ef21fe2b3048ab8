"""``CarlaLane-v0``: keep the lane from a front camera."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sb3_carla.checks import check_positive, check_whole, from_mapping
from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.client.server_connection import LOST, ServerConnection
from sb3_carla.client.servers import supervisor
from sb3_carla.client.session import CarlaSession, VehicleState, translate_client_errors
from sb3_carla.envs import arguments
from sb3_carla.envs.controls import Controls, read_action
from sb3_carla.envs.episode import Episode
from sb3_carla.envs.options import ControlOptions, ServerOptions
from sb3_carla.envs.privileged_state import privileged_state
from sb3_carla.envs.rewards import STANDING_SPEED, Motion, RewardWeights, reward_terms
from sb3_carla.envs.route import LanePose, LaneRoute, Scenarios
from sb3_carla.envs.spectator import Spectator, close_windows, show
from sb3_carla.envs.start_curriculum import StartCurriculum, StartPlace
from sb3_carla.envs.traffic import IntelligentDriver, Traffic, gap_ahead, recommended_speed
from sb3_carla.errors import ServerError

__all__ = ["CarlaLaneEnv"]

Weather = str | Mapping[str, float]

logger = logging.getLogger(__name__)

TIME_LIMIT_FACTOR = 3.0
"""Time limit of an episode as a multiple of the time that its route takes at target speed."""
TOWNS_KEPT = 64
"""Towns whose starts are remembered."""


class CarlaLaneEnv(gym.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """
    ## Description
    A car keeps its lane along a route through a CARLA town, seeing only what its front camera sees. It is not told the
    route: at junctions that goes straight on, and to the right where there is no such way, which a camera can see (see
    :func:`sb3_carla.envs.route.straightest`). With no ``host`` the environment starts the packaged
    server as a child process; with ``host`` it uses any CARLA 0.9.16 server.

    ## Observation
    ``Box(0, 255, (frames, height, width), uint8)``: grey frames of the last decisions, oldest first.

    ## Action
    ``Box(-1, 1, (2,), float32)``

    | index | meaning | -1 | 1 |
    | --- | --- | --- | --- |
    | 0 | steering | wheels at ``max_wheel_angle`` to the left | to the right |
    | 1 | pedal (`control.longitudinal` "pedal") | full brake | full throttle |
    | 1 | speed (`control.longitudinal` "speed") | stop | `target_speed` |

    With "speed" a controller works the pedals so that the car keeps the speed that the action asks for, as in Kendall
    et al., Learning to drive in a day, ICRA 2019: it reads the speedometer, which the camera cannot. The wheels turn 40
    degrees at most. With `control.lateral_acceleration` they turn no further than what makes this acceleration in a
    steady turn at the present speed, so the useful range of actions is as wide at 8 m/s as at walking speed.

    ## Reward
    Sum of the weighted terms in ``info["reward_terms"]``, see :mod:`sb3_carla.envs.rewards`:
    ``progress``, ``lane_centering``, ``heading``, ``smoothness``, ``speed``, ``idling``, ``safety``.

    ## Info
    Each step: ``speed_mps``, ``lateral_offset_m``, ``heading_error_rad``, ``wheel_angle_rad`` (all positive to the
    right), ``route_completion``, ``distance_m``, ``reward_terms``, ``privileged_state``
    (:mod:`sb3_carla.envs.privileged_state`), ``town``, ``scenario``. The last one also: ``is_success``, ``end_reason``,
    and of the episode ``lateral_deviation_m``, ``mean_speed_mps``, ``collisions``, ``lane_invasions``, ``departures``.

    ## Start
    At a standstill in the middle of a lane: a random place of the town, or that of the numbered ``scenario``.

    ## End
    Terminated: ``collision``; ``off_lane`` (the car's centre left its lane); ``wrong_way`` (more than 90 degrees from
    the lane's direction); ``stuck`` (6 s for less than 1.8 m, unless a car in front leaves no room). Truncated:
    ``route_end`` (success), ``time_limit`` (three times what the route takes at `target_speed`), ``server_lost``
    (``info["server_restarted"]`` is True and the next reset connects anew). The reason is ``info["end_reason"]``.

    ## Arguments
    | argument | default | meaning |
    | --- | --- | --- |
    | `host` | None | server's address; None starts the embedded server |
    | `port` | 2000 | server's RPC port, with `host` |
    | `town` | "Circuit01" | name that the server knows, path of an OpenDRIVE file, or a list to draw from, see below |
    | `scenario` | None | numbered start and route; None draws one at every reset |
    | `n_npcs` | 0 | number of lane-following cars |
    | `weather` | "ClearNoon" | preset of `carla.WeatherParameters`, a mapping of its parameters, or a list of these |
    | `target_speed` | 8.0 | speed on a straight road [m/s] |
    | `route_length` | 300.0 | [m] |
    | `frame_stack` | 4 | frames in an observation: how many of the last, or how old each is: `[9, 4, 1, 0]` |
    | `image_size` | (84, 84) | height and width [px] |
    | `action_repeat` | 1 | simulation ticks of 0.05 s a decision, its last one too |
    | `control` | None | what the actions do: a mapping of the keys below |
    | `reward` | None | weights by term name, replacing defaults |
    | `render_mode` | None | "rgb_array" or "human" |
    | `timeout` | 20.0 | for each answer of the server [s] |
    | `server` | None | the server that the environment starts, without `host`: a mapping of the keys below |
    | `start_curriculum` | 0.0 | share of episodes that start shortly before one of the last failures, and are short |

    | key | default | meaning |
    | --- | --- | --- |
    | `control.longitudinal` | "pedal" | what the second action is: "pedal" or "speed" |
    | `control.lateral_acceleration` | None | what full steering makes at speed [m/s^2]; None: 40 degrees at any speed |
    | `control.steering_rate` | None | fastest change of the steering action [full actions/s]; None: at once |
    | `server.command` | None | starts a server of yours; `{port}` stands for its port; None: the packaged server |
    | `server.max_episodes` | None | replace the server after this many episodes, against leaks |
    | `server.max_memory` | None | replace the server before an episode if it takes more memory than this [GB] |

    In `town`, "training" stands for all built-in towns for training, and "held-out" for those to evaluate on; the names
    that CARLA gives its maps ("Carla/Maps/Town01") are understood.

    `reset(options={"town": ..., "scenario": ..., "weather": ...})` chooses for one episode.

    ## Version history
    * v0: first version
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"], "render_fps": 20}  # noqa: RUF012 (as in Env)
    delta_seconds = 0.05
    """Simulated time of a tick [s]."""

    def __init__(
        self,
        host: str | None = None,
        port: int = 2000,
        *,
        town: str | Sequence[str] = "Circuit01",
        scenario: int | None = None,
        n_npcs: int = 0,
        weather: Weather | Sequence[Weather] = "ClearNoon",
        target_speed: float = 8.0,
        route_length: float = 300.0,
        frame_stack: int | Sequence[int] = 4,
        image_size: Sequence[int] = (84, 84),
        action_repeat: int = 1,
        control: Mapping[str, Any] | None = None,
        reward: Mapping[str, float] | None = None,
        render_mode: str | None = None,
        timeout: float = 20.0,
        server: Mapping[str, Any] | None = None,
        start_curriculum: float = 0.0,
    ) -> None:
        self._towns = arguments.town_names(town)
        self._weathers = arguments.weather_choices(weather)
        ages = arguments.frame_ages(frame_stack)
        for name, value, least in (("n_npcs", n_npcs, 0), ("action_repeat", action_repeat, 1)):
            check_whole(name, value, least)
        arguments.check_scenario(scenario)
        check_positive(target_speed=target_speed, route_length=route_length, timeout=timeout)
        if not route_length >= 20.0:
            raise ValueError(f"route_length: expected at least 20 m, got {route_length!r}")
        arguments.check_image_size(image_size)
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode: expected one of {self.metadata['render_modes']}, got {render_mode!r}")
        height, width = image_size
        self.observation_space = spaces.Box(0, 255, (len(ages), height, width), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.render_mode, self._spectator = render_mode, Spectator()
        self.target_speed = target_speed
        self._scenario = scenario
        self._n_npcs = n_npcs
        self._route_length = route_length
        self._action_repeat = action_repeat
        self._weights = from_mapping(RewardWeights, "reward", reward)
        self._camera = CameraMount(width=width, height=height)
        self.metadata = {**self.metadata, "render_fps": round(1.0 / self.decision_seconds)}

        self._start_curriculum = StartCurriculum(start_curriculum)
        self._start_place: StartPlace | None = None
        kept = from_mapping(ServerOptions, "server", server)
        self._connection = ServerConnection(
            host, port, supervisor(host, kept.command, kept.max_episodes, kept.max_memory),
            [self._camera] if render_mode is None else [self._camera, Spectator.MOUNT],
            timeout=timeout, delta_seconds=self.delta_seconds, ticks_per_image=action_repeat,
        )  # fmt: skip
        self._traffic: Traffic | None = None
        self._scenarios: dict[str, Scenarios] = {}  # of the last towns
        self._frames = np.zeros((ages[0] + 1, height, width), np.uint8)  # the last ones, oldest first
        self._observation_frames = [ages[0] - age for age in ages]  # of them, those in an observation
        self._gap = math.inf, 0.0  # to the car in front [m], infinite with nobody there, and its speed [m/s]
        self.control = from_mapping(ControlOptions, "control", control)
        """What the actions do."""
        self.action_names = ("steering", self.control.longitudinal)
        self._controls = Controls(self.control, target_speed, delta_seconds=self.delta_seconds)
        self._episode: Episode | None = None
        self._replay: dict[str, Any] = {}
        self._interrupted = False  # within a decision
        self._town, self._number = "", None
        self._weather: Weather | None = None
        self.route: LaneRoute
        """The present route."""
        self.vehicle_state: VehicleState
        """The car at the last tick."""
        self.lane_pose: LanePose
        """The car relative to the route at the last tick."""

    # --- Gymnasium's contract ----------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """
        Begin an episode.

        :param seed: makes the episodes from here on repeatable
        :param options: ``town``, ``scenario`` and ``weather`` for this episode; or only ``resume``: an
            :attr:`episode_so_far`, which is driven again
        :return: observation: shape (frame_stack, height, width), uint8; info
        :raises ServerError: if the server cannot be reached
        :raises MapError: if the town cannot be loaded
        """
        self._refuse_fork()
        super().reset(seed=seed)
        self._episode, self._interrupted = None, False  # whatever goes wrong from here on, the old one is over
        options = dict(options or {})
        again = options.pop("resume", None)
        if again is not None:
            self.np_random.bit_generator.state, options = again["random"], {**options, **again["options"]}
            self._start_curriculum.places = again["places"]
        self._replay = {"random": self.np_random.bit_generator.state, "options": dict(options), "actions": []}
        self._replay["places"] = self._start_curriculum.places
        town = options.pop("town", None)
        number = options.pop("scenario", self._scenario)
        weather = options.pop("weather", None)
        if options:
            raise ValueError(f"reset: unknown options {sorted(options)}, expected town, scenario, weather, resume")
        arguments.check_scenario(number)
        self._start_place = self._start_curriculum.draw(self.np_random) if town is None and number is None else None
        town = (
            self._start_place.town
            if self._start_place
            else self._draw(self._towns if town is None else arguments.town_names(town))
        )
        weather = self._draw(self._weathers if weather is None else arguments.weather_choices(weather))
        self._town, self._number = town, number
        state = self.np_random.bit_generator.state

        def begin() -> None:
            self.np_random.bit_generator.state = state  # on another server the random numbers are the same again
            self._begin(town, number, weather)

        self._connection.begin_with_retries(begin)
        if self.render_mode == "human":
            self.render()
        observation, info = self._frames[self._observation_frames], self._info({})
        for action in again["actions"] if again is not None else ():
            observation, _, terminated, truncated, info = self.step(np.array(action))
            if terminated or truncated:
                logger.warning("An episode that was driven again ended earlier: a new one begins")
                return self.reset()
        return observation, info

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """
        Make one decision: the same action for ``action_repeat`` ticks.

        :param action: shape (2,), float32, clipped to -1..1: steering, pedal or speed
        :return: observation, reward, terminated, truncated, info
        :raises RuntimeError: if the episode is over or was not begun
        :raises ValueError: if the action is not two finite numbers
        """
        self._refuse_fork()
        if self._episode is None or self._episode.end_reason:
            raise RuntimeError("step() needs an episode that goes on: call reset() first")
        steering, drive = read_action(action, self.action_names)
        before, steering_before = self.lane_pose.station, self._controls.steering
        self._replay["actions"].append((steering, drive))
        if self._interrupted:
            return self._server_lost(ServerError("the decision before this one was interrupted"))
        self._interrupted = True
        try:
            with translate_client_errors("The CARLA server stopped translate_client_errors"):
                self._drive(steering, drive)
                frame = self._camera_frame()
        except LOST as error:
            return self._server_lost(error)
        self._interrupted = False
        self._frames[:-1] = self._frames[1:]
        self._frames[-1] = frame
        terms = self._reward(before, abs(self._controls.steering - steering_before))
        if self.render_mode == "human":
            self.render()
        failed, ended = self._episode.failed, bool(self._episode.end_reason)
        if failed:
            self._start_curriculum.remember(self._town, self.route, self.lane_pose.station, self.np_random)
        return (
            self._frames[self._observation_frames],
            sum(terms.values()),
            failed,
            ended and not failed,
            self._info(terms),
        )

    def render(self) -> NDArray[np.uint8] | None:
        """
        The car from behind.

        :return: with "rgb_array": shape (384, 640, 3), uint8 RGB; with "human" the picture is shown in a window
        """
        if self.render_mode is None or self._connection.session is None:
            return None
        picture = self._spectator.picture(self._session)
        if self.render_mode == "rgb_array":
            return np.ascontiguousarray(picture[:, :, 2::-1])
        show(picture)
        return None

    def close(self) -> None:
        """Give the server its settings back and end it if it is ours; safe to call again, and in a fork."""
        if self._connection.is_forked:
            return
        self._episode = self._traffic = None
        self._connection.close()
        if self.render_mode == "human":
            close_windows()

    # --- for drivers that read the map -------------------------------------------------------------------------

    @property
    def decision_seconds(self) -> float:
        """Simulated time of a decision [s]."""
        return self.delta_seconds * self._action_repeat

    @property
    def episode_so_far(self) -> dict[str, Any]:
        """What ``reset(options={"resume": ...})`` needs to come here again, where the server is repeatable."""
        return copy.deepcopy(self._replay)

    @property
    def town_map(self) -> Any:
        """``carla.Map`` of the present town."""
        return self._session.world.get_map()

    @property
    def max_wheel_angle(self) -> float:
        """Wheel angle of full steering at the present speed [rad]."""
        return self._controls.full_steering(self.vehicle_state.speed)

    def safe_speed(self) -> float:
        """Speed that keeps the distance to the car in front [m/s]; infinite with nobody there."""
        if self._traffic is None:
            return float("inf")
        state = self.vehicle_state
        gap, speed = self._gap
        acceleration = IntelligentDriver()(state.speed, self.target_speed, gap, state.speed - speed)
        return max(0.0, state.speed + acceleration)

    # --- parts of an episode -----------------------------------------------------------------------------------

    def _draw(self, choices: Sequence[Any]) -> Any:
        """One of them; a single one costs no random number."""
        return choices[int(self.np_random.integers(len(choices))) if len(choices) > 1 else 0]

    @property
    def _session(self) -> CarlaSession:
        assert self._connection.session is not None
        return self._connection.session

    def _begin(self, town: str, number: int | None, weather: Weather) -> None:
        session = self._enter(town)
        if weather != self._weather:
            session.set_weather(weather)
            self._weather = weather
        scenarios = self._scenarios[session.town]
        route = scenarios.from_place(*self._start_place[1:]) if self._start_place else None
        self.route = route or (scenarios.draw(self.np_random) if number is None else scenarios[number])
        x, y, z, heading, _ = self.route.pose(0.0)
        if self._traffic is not None:
            self._traffic.restart(scenarios, self.route, self.np_random)
        session.place(x, y, z, heading)
        limit = TIME_LIMIT_FACTOR * self.route.length / self.target_speed
        self._episode = Episode(self.route.length, limit, session.half_width, self.delta_seconds)
        self._controls.restart()
        self._observe_vehicle()
        self._frames[:] = self._camera_frame()

    def _enter(self, town: str) -> CarlaSession:
        """Connect where need be, and load the town."""
        session = self._connection.session_for(town)
        if session.load_town(town):
            self._traffic = self._weather = None  # a new world has its own weather
            try:
                if session.town not in self._scenarios:
                    self._scenarios[session.town] = Scenarios(session.world.get_map(), self._route_length)
                while len(self._scenarios) > TOWNS_KEPT:
                    del self._scenarios[next(iter(self._scenarios))]
                if self._n_npcs:
                    self._traffic = Traffic(session, self._n_npcs, self.target_speed)
            except BaseException:
                session.town = ""  # the next reset loads it again, which removes the cars that found room
                raise
        return session

    def _refuse_fork(self) -> None:
        if self._connection.is_forked:
            raise RuntimeError("This environment cannot go on in a fork of its process: make another one there")

    def _drive(self, steering: float, drive: float) -> None:
        """Hold the action for ``action_repeat`` ticks, also where the episode ends before the last of them."""
        assert self._episode is not None
        for _ in range(self._action_repeat):
            if self._traffic is not None:
                self._traffic.step(self.vehicle_state)
            self._session.steer(*self._controls.act(steering, drive, self.vehicle_state.speed))
            self._session.tick()
            self._observe_vehicle()
            blocked = IntelligentDriver().following_speed(self._gap[0]) < STANDING_SPEED
            collisions = self._session.collisions()
            if not self._episode.end_reason:
                self._episode.update(self.vehicle_state, self.lane_pose, collisions, blocked=blocked)

    def _observe_vehicle(self) -> None:
        state = self._session.state()
        self.vehicle_state = state
        self.lane_pose = self.route.locate(state.x, state.y, state.heading)
        others = self._traffic.positions if self._traffic is not None else np.empty((0, 4))
        self._gap = gap_ahead(self.route, self.lane_pose.station, others)

    def _camera_frame(self) -> NDArray[np.uint8]:
        self._spectator.keep_up(self._session)
        return cv2.cvtColor(self._session.image(self._camera), cv2.COLOR_BGRA2GRAY)  # type: ignore[return-value]

    def _reward(self, station: float, steering_change: float) -> dict[str, float]:
        assert self._episode is not None
        pose, speed = self.lane_pose, self.vehicle_state.speed
        motion = Motion(
            progress_speed=(pose.station - station) / self.decision_seconds,
            speed=speed,
            recommended_speed=recommended_speed(self.route, pose.station, speed, self.target_speed, self._gap[0]),
            lateral_offset=pose.lateral_offset,
            half_width=pose.half_width,
            heading_error=pose.heading_error,
            steering_change=steering_change,
            failed=self._episode.failed,
        )
        return reward_terms(motion, self._weights)

    def _info(self, terms: dict[str, float]) -> dict[str, Any]:
        assert self._episode is not None
        episode = self._episode
        info: dict[str, Any] = {
            "speed_mps": self.vehicle_state.speed,
            "lateral_offset_m": self.lane_pose.lateral_offset,
            "heading_error_rad": self.lane_pose.heading_error,
            "wheel_angle_rad": self._controls.wheel_angle,
            "route_completion": episode.route_completion,
            "distance_m": episode.distance,
            "reward_terms": terms,
            "town": self._town,
            "scenario": self._number,
            "privileged_state": privileged_state(
                self.route, self.lane_pose, self.vehicle_state, gap=self._gap, target_speed=self.target_speed,
                steering=self._controls.steering, stuck=episode.stuck,
            ),
        }  # fmt: skip
        if episode.end_reason:
            info.update(episode.summary())
        return info

    def _server_lost(self, error: ServerError) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """End the episode without a verdict; the next reset connects anew."""
        logger.warning("Episode truncated, the next reset connects anew: %s", error)
        if self._episode is None:
            raise RuntimeError("the environment was closed by another thread during a step") from error
        self._episode.end_reason = "server_lost"
        self._interrupted, self._traffic = False, None
        self._connection.leave(server_lost=True)
        info = self._info(dict.fromkeys(self._weights.__dataclass_fields__, 0.0))
        return self._frames[self._observation_frames], 0.0, False, True, {**info, "server_restarted": True}
