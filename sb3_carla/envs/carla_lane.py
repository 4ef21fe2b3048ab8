"""``CarlaLane-v0``: keep the lane from a front camera."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sb3_carla.checks import check_positive, check_whole, from_mapping
from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.client.carla_client import translate_client_errors
from sb3_carla.client.server_connection import RECOVERABLE_ERRORS, ServerConnection
from sb3_carla.client.server_supervisor import make_supervisor
from sb3_carla.client.session import CarlaSession
from sb3_carla.envs import arguments
from sb3_carla.envs.controls import Controls, read_action
from sb3_carla.envs.episode_setup import EpisodeSetup, EpisodeSetups, Weather
from sb3_carla.envs.image_noise import ImageNoise
from sb3_carla.envs.options import ControlOptions, ServerOptions
from sb3_carla.envs.randomization import Randomizer
from sb3_carla.envs.rewards import REWARD_TERMS, RewardWeights, reward_terms
from sb3_carla.envs.simulation import LaneSimulation
from sb3_carla.envs.spectator import RENDER_MODES, Spectator
from sb3_carla.envs.start_curriculum import StartCurriculum
from sb3_carla.errors import ServerError

__all__ = ["CarlaLaneEnv"]

logger = logging.getLogger(__name__)


class CarlaLaneEnv(gym.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """
    ## Description
    A car keeps its lane along a route through a CARLA town. The policy sees only what the front camera sees, and it is
    not told the route. At a junction the route goes straight on, or to the right if there is no such way; both can be
    seen by the camera (:func:`sb3_carla.envs.route.straightest`). Without `host` the environment starts the packaged
    server as a child process; with `host` it uses any CARLA 0.9.16 server.

    ## Observation
    ``Box(0, 255, (frames, height, width), uint8)``: grey frames, one a decision, oldest first. The camera is 2 m above
    the road and 1.2 m in front of the car's centre, looks down by 15 degrees and has a field of view of 90 degrees.

    ## Action
    ``Box(-1, 1, (2,), float32)``

    | index | meaning | -1 | 1 |
    | --- | --- | --- | --- |
    | 0 | steering | wheels to the left as far as they may turn | to the right |
    | 1 | pedal, with `control.longitudinal` "pedal" | full brake | full throttle |
    | 1 | speed, with `control.longitudinal` "speed" | stop | `target_speed` |

    With "speed" a controller works the pedals so that the car keeps the speed that the action asks for, as in Kendall
    et al., Learning to drive in a day, ICRA 2019: it reads the speedometer, which the camera cannot. The wheels turn 40
    degrees at most. With `control.lateral_acceleration` they turn no further than what makes this acceleration in a
    steady turn at the present speed, so the useful range of actions is as wide at 8 m/s as at walking speed.

    ## Reward
    The sum of ``info["reward_terms"]``, each already multiplied by its weight: ``progress``, ``lane_centering``,
    ``heading``, ``smoothness``, ``speed``, ``idling``, ``safety``. :mod:`sb3_carla.envs.rewards` defines them.

    ## Info
    | key | meaning |
    | --- | --- |
    | ``speed_mps`` | car's speed [m/s] |
    | ``lateral_offset_m`` | from the lane's centre to the car's, right positive [m] |
    | ``heading_error_rad`` | car's heading minus the lane's direction, right positive [rad] |
    | ``wheel_angle_rad`` | wheel angle that the action asked for, right positive [rad] |
    | ``route_completion`` | share of the route that was driven, 0 to 1 |
    | ``distance_m`` | distance driven in this episode [m] |
    | ``reward_terms`` | weighted terms of the reward by name; empty after `reset` |
    | ``privileged_state`` | numbers that only a critic may see, see :mod:`sb3_carla.envs.privileged_state` |
    | ``town`` | name of the town, or path of its OpenDRIVE file |
    | ``scenario`` | number of the scenario; None if start and route were drawn |

    The last step of an episode has in addition:

    | key | meaning |
    | --- | --- |
    | ``is_success`` | whether the car reached the end of the route |
    | ``end_reason`` | why the episode ended, see below |
    | ``lateral_deviation_m`` | mean distance from the lane's centre over the episode [m] |
    | ``mean_speed_mps`` | mean speed over the episode [m/s] |
    | ``collisions`` | collisions: 0, or 1 as the first ends the episode |
    | ``lane_invasions`` | how often a side of the car crossed the edge of the lane |
    | ``departures`` | 1 if the car left its lane (``off_lane``), otherwise 0 |
    | ``server_restarted`` | True; only present after ``server_lost`` |
    | ``randomized`` | also after `reset`: what `randomize` has drawn, numbers and texts by ``group/name`` |

    ## Start
    At a standstill in the middle of a lane: at a random place of the town, at that of the numbered `scenario`, or, with
    `start_curriculum`, 20 to 60 m before a place where an earlier episode failed.

    ## End
    | end reason | meaning | flag of `step` |
    | --- | --- | --- |
    | ``collision`` | the car hit something | terminated |
    | ``off_lane`` | the car's centre left its lane | terminated |
    | ``wrong_way`` | the car points more than 90 degrees away from the lane's direction | terminated |
    | ``stuck`` | less than 1.8 m within 6 s, unless a car ahead leaves no room | terminated |
    | ``route_end`` | the end of the route was reached: success | truncated |
    | ``time_limit`` | three times what the route takes at `target_speed` have passed | truncated |
    | ``server_lost`` | the server failed; the next `reset` connects anew | truncated |

    ## Arguments
    | argument | default | meaning |
    | --- | --- | --- |
    | `host` | None | address of a running CARLA server; None: start one |
    | `port` | 2000 | RPC port of the server, with `host` |
    | `town` | "Circuit01" | name that the server knows, path of an OpenDRIVE file, or a list to draw from |
    | `scenario` | None | number of the start and the route; None: draw them at every reset |
    | `n_npcs` | 0 | number of other cars, which follow lanes |
    | `weather` | "ClearNoon" | preset of `carla.WeatherParameters`, mapping of its parameters, or list to draw from |
    | `target_speed` | 8.0 | speed on a free, straight road [m/s] |
    | `route_length` | 300.0 | length of a route, at least 20 [m] |
    | `frame_stack` | 4 | number of frames in an observation, or their ages [decisions], such as `[9, 4, 1, 0]` |
    | `image_size` | (84, 84) | height and width of a frame, each at least 8 [px] |
    | `action_repeat` | 1 | ticks of 0.05 s in a decision; an action is held for all of them |
    | `control` | None | what the actions do: a mapping, see below |
    | `reward` | None | weights by term name, in place of the defaults: a mapping |
    | `render_mode` | None | "rgb_array" or "human" |
    | `timeout` | 20.0 | longest wait for an answer of the server [s] |
    | `server` | None | how the environment keeps its server, without `host`: a mapping, see below |
    | `start_curriculum` | 0.0 | share of episodes that begin shortly before an earlier failure; at most 120 m long |
    | `randomize` | None | groups of what is drawn for each episode: "all" or a list of names, see below |

    | key | default | meaning |
    | --- | --- | --- |
    | `control.longitudinal` | "pedal" | what the second action is: "pedal" or "speed" |
    | `control.lateral_acceleration` | None | what full steering makes at speed [m/s^2]; None: 40 degrees at any speed |
    | `control.steering_rate` | None | fastest change of the steering action [full actions/s]; None: at once |
    | `server.command` | None | command that starts a server; `{port}` stands for its port. None: the packaged server |
    | `server.max_episodes` | None | episodes after which the server is replaced, against leaks; None: any number |
    | `server.max_memory` | None | memory at which the server is replaced before an episode [GB]; None: any |

    | group of `randomize` | what is drawn for each episode |
    | --- | --- |
    | "look" | brightness, colour, contrast of road, verge, pavement, paint, what stands there; hidden map layers |
    | "light" | exposure and gamma of the frames, and a slow drift |
    | "weather" | weather, and sun by day, dusk and night; replaces `weather`, unless `reset`'s options name one |
    | "camera" | camera's height within 0.3 m, pitch 3, yaw and roll 1, field of view 5 degrees |
    | "noise" | white noise, blur, vignette and compression of the frames |
    | "traffic" | other cars, at most `n_npcs`, or 20 if that is 0; every other episode without any |
    | "dynamics" | mass, tyre friction, gain and delay of the steering |

    In `town`, "training" stands for all built-in towns to train in, and "held-out" for those to evaluate in
    (:mod:`sb3_carla.envs.towns`). CARLA's long names of maps ("Carla/Maps/Town01") are understood.

    ``reset(options={"town": ..., "scenario": ..., "weather": ...})`` chooses for one episode; each may be left out.

    ## Version history
    * v0: first version
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 20}  # noqa: RUF012 (as in Env)
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
        randomize: str | Sequence[str] | None = None,
    ) -> None:
        check_whole("n_npcs", n_npcs, 0)
        check_whole("action_repeat", action_repeat, 1)
        check_positive(target_speed=target_speed, timeout=timeout)
        arguments.check_route_length(route_length)
        self._start_curriculum = StartCurriculum(start_curriculum)
        self._setups = EpisodeSetups(
            town, weather, scenario=scenario, start_curriculum=self._start_curriculum,
            randomizer=Randomizer(randomize, n_npcs),
        )  # fmt: skip
        self._weights = from_mapping(RewardWeights, "reward", reward)
        self.target_speed, self.render_mode = target_speed, render_mode
        self.control = from_mapping(ControlOptions, "control", control)
        """What the actions do."""
        self.action_names = ("steering", self.control.longitudinal)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

        ages, (height, width) = arguments.frame_ages(frame_stack), arguments.image_shape(image_size)
        self.observation_space = spaces.Box(0, 255, (len(ages), height, width), np.uint8)
        self._frames = np.zeros((ages[0] + 1, height, width), np.uint8)  # the last ones, oldest first
        self._observation_frames = [ages[0] - age for age in ages]  # of them, those in an observation
        self._usual_camera = self._camera = CameraMount(width=width, height=height)
        self._spectator = Spectator(render_mode)

        kept = from_mapping(ServerOptions, "server", server)
        self._connection = ServerConnection(
            host, port, make_supervisor(host, kept.command, max_episodes=kept.max_episodes, max_memory=kept.max_memory),
            [self._usual_camera, *self._spectator.mounts], timeout=timeout, delta_seconds=self.delta_seconds,
            ticks_per_image=action_repeat,
        )  # fmt: skip
        self.simulation = LaneSimulation(
            self._connection, Controls(self.control, target_speed, delta_seconds=self.delta_seconds), n_npcs=n_npcs,
            target_speed=target_speed, route_length=route_length, action_repeat=action_repeat,
        )  # fmt: skip
        """Town, route and car as they are, for drivers that read the map."""
        self.metadata = {**self.metadata, "render_fps": round(1.0 / self.simulation.decision_seconds)}
        self._setup: EpisodeSetup
        self._episode_so_far: dict[str, Any] = {}
        self._interrupted = False  # a decision began and did not end: Ctrl-C, for instance

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """
        Begin an episode.

        :param seed: makes the episodes from here on repeatable
        :param options: ``town``, ``scenario`` and ``weather`` for this episode; or only ``resume``: an
            :attr:`episode_so_far`, which is driven again
        :return: observation: shape (frames, height, width), uint8; info
        :raises RuntimeError: after ``os.fork()``, in the child
        :raises ServerError: if the server cannot be reached
        :raises MapError: if the town cannot be loaded
        """
        self._check_not_forked()
        super().reset(seed=seed)
        self.simulation.episode, self._interrupted = None, False  # if this fails, the old episode is over all the same
        options = dict(options or {})
        resumed = options.pop("resume", None)
        if resumed is not None:
            self.np_random.bit_generator.state, options = resumed["random"], {**options, **resumed["options"]}
            self._start_curriculum.places = resumed["places"]
        self._episode_so_far = {
            "random": self.np_random.bit_generator.state,
            "options": dict(options),
            "places": self._start_curriculum.places,
            "actions": [],
        }
        setup = self._setup = self._setups.draw(options, self.np_random)
        state = self.np_random.bit_generator.state

        def begin() -> None:
            self.np_random.bit_generator.state = state  # on another server the random numbers are the same again
            self._camera = setup.randomness.mount(self._usual_camera)
            self.simulation.begin(setup, self.np_random, [self._camera, *self._spectator.mounts])
            self._image_noise = ImageNoise(
                setup.randomness.light, setup.randomness.noise, self._camera,
                frame_seconds=self.simulation.decision_seconds,
            )  # fmt: skip
            self._frames[:] = self._camera_frame()

        self._connection.begin_with_retries(begin)
        observation, info = self._observation(), {**self._info({}), "randomized": setup.randomness.values()}
        for action in resumed["actions"] if resumed is not None else ():
            observation, _, terminated, truncated, info = self.step(np.array(action))
            if terminated or truncated:
                logger.warning("The episode to resume ended earlier than before: a new one begins")
                return self.reset()
        return observation, info

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """
        Make one decision: the same action for ``action_repeat`` ticks.

        :param action: shape (2,), float32, clipped to -1..1: steering, pedal or speed
        :return: observation, reward, terminated, truncated, info
        :raises RuntimeError: if the episode is over or was not begun, or after ``os.fork()``, in the child
        :raises ValueError: if the action is not two finite numbers
        """
        self._check_not_forked()
        simulation, episode = self.simulation, self.simulation.episode
        if episode is None or episode.end_reason:
            raise RuntimeError("step() needs an episode that goes on: call reset() first")
        steering, drive = read_action(action, self.action_names)
        self._episode_so_far["actions"].append((steering, drive))
        if self._interrupted:
            return self._server_lost(ServerError("the decision before this one was interrupted"))
        self._interrupted = True
        try:
            with translate_client_errors():
                motion = simulation.advance(steering, drive)
                frame = self._camera_frame()
        except RECOVERABLE_ERRORS as error:
            return self._server_lost(error)
        self._interrupted = False
        self._frames[:-1] = self._frames[1:]
        self._frames[-1] = frame
        terms = reward_terms(motion, self._weights)
        failed, ended = episode.failed, bool(episode.end_reason)
        if failed:
            station = simulation.lane_pose.station
            self._start_curriculum.remember(self._setup.town, simulation.route, station, self.np_random)
        return self._observation(), sum(terms.values()), failed, ended and not failed, self._info(terms)

    def render(self) -> NDArray[np.uint8] | None:
        """
        The car from behind.

        :return: with "rgb_array": shape (384, 640, 3), uint8 RGB; with "human" the picture is shown in a window
        """
        session = self._connection.session
        return None if session is None else self._spectator.render(session)

    def close(self) -> None:
        """Give the server its settings back and end it if it is ours. Does nothing if called again, or in a fork."""
        if self._connection.is_forked:
            return
        self.simulation.close()
        self._spectator.close()

    @property
    def episode_so_far(self) -> dict[str, Any]:
        """What ``reset(options={"resume": ...})`` needs to come to this decision again, on a repeatable server."""
        return copy.deepcopy(self._episode_so_far)

    @property
    def _session(self) -> CarlaSession:
        return self.simulation.session

    def _check_not_forked(self) -> None:
        if self._connection.is_forked:
            raise RuntimeError("After os.fork() the child cannot use this environment: make another one there")

    def _camera_frame(self) -> NDArray[np.uint8]:
        """The camera's image of the last tick, shape (height, width), uint8."""
        self._spectator.update(self._session)
        return self._image_noise(cv2.cvtColor(self._session.image(self._camera), cv2.COLOR_BGRA2GRAY))  # type: ignore[arg-type]

    def _observation(self) -> NDArray[np.uint8]:
        return self._frames[self._observation_frames]

    def _info(self, terms: dict[str, float]) -> dict[str, Any]:
        simulation = self.simulation
        episode = simulation.episode
        assert episode is not None
        info: dict[str, Any] = {
            **simulation.info(terms),
            "town": self._setup.town,
            "scenario": self._setup.scenario,
        }
        if episode.end_reason:
            info.update(episode.summary(), randomized=self._setup.randomness.values())
        return info

    def _server_lost(self, error: ServerError) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Truncate the episode, which says nothing about the driver; the next reset connects anew."""
        logger.warning("Episode truncated, the next reset connects anew: %s", error)
        if self.simulation.episode is None:
            raise RuntimeError("the environment was closed by another thread during a step") from error
        self.simulation.episode.end_reason = "server_lost"
        self._interrupted = False
        self.simulation.leave_lost_server()
        info = self._info(dict.fromkeys(REWARD_TERMS, 0.0))
        return self._observation(), 0.0, False, True, {**info, "server_restarted": True}
