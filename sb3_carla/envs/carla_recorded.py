"""``CarlaRecorded-v0``: keep the lane on recorded pictures, without a server."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sb3_carla.checks import check_positive, check_whole, from_mapping
from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.envs import arguments
from sb3_carla.envs.controls import Controls, read_action
from sb3_carla.envs.options import ControlOptions
from sb3_carla.envs.recorded_drives import recorded_drives, recorded_setup
from sb3_carla.envs.recorded_simulation import RecordedCamera, RecordedSimulation
from sb3_carla.envs.rewards import RewardWeights, reward_terms
from sb3_carla.recordings.sequence import read_recordings

__all__ = ["CarlaRecordedEnv"]

VIEW = CameraMount(width=640, height=384)
"""The camera of :meth:`CarlaRecordedEnv.render`; it is where the policy's is."""


class CarlaRecordedEnv(gym.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """
    ## Description
    ``CarlaLane-v0`` on pictures that a CARLA server recorded: a kinematic car moves along a recorded lane, and its
    camera sees the nearest recorded picture, re-projected to where the car is. Policies of the one environment drive in
    the other. `scripts/record_drive.py` makes recordings; :mod:`sb3_carla.recordings.table` defines their format, and
    :mod:`sb3_carla.recordings.reprojection` says what re-projection can and cannot show. There are no other cars and no
    collisions but those in the pictures.

    ## Observation
    ``Box(0, 255, (frames, height, width), uint8)``: as in ``CarlaLane-v0``, from the same place on the car.

    ## Action
    ``Box(-1, 1, (2,), float32)``: steering, then pedal or speed, as in ``CarlaLane-v0``. The car is a kinematic bicycle
    with the limits of the packaged server's car (:mod:`sb3_carla.envs.kinematic_car`).

    ## Reward
    The sum of ``info["reward_terms"]``, as in ``CarlaLane-v0``.

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
    | ``town`` | town of the recording |
    | ``scenario`` | number of the drive |
    | ``weather`` | weather of the recording |
    | ``sequence`` | name of the recorded sequence |
    | ``station_m`` | distance of the car along the recorded lane [m] |
    | ``seen`` | share of the newest picture that was really seen, 0 to 1; the rest is stretched |

    The last step of an episode has in addition:

    | key | meaning |
    | --- | --- |
    | ``is_success`` | whether the car reached the end of the route |
    | ``end_reason`` | why the episode ended, see below |
    | ``lateral_deviation_m`` | mean distance from the lane's centre over the episode [m] |
    | ``mean_speed_mps`` | mean speed over the episode [m/s] |
    | ``collisions`` | 0 |
    | ``lane_invasions`` | how often a side of the car crossed the edge of the lane |
    | ``departures`` | 1 if the car left its lane (``off_lane``), otherwise 0 |

    ## Start
    At a standstill in the middle of the lane at the start of a drive. Recordings longer than `route_length` are cut
    into drives of equal length; each is drawn in proportion to its length.

    ## End
    | end reason | meaning | flag of `step` |
    | --- | --- | --- |
    | ``off_lane`` | the car's centre left its lane | terminated |
    | ``wrong_way`` | the car points more than 90 degrees away from the lane's direction | terminated |
    | ``stuck`` | less than 1.8 m within 6 s | terminated |
    | ``route_end`` | the end of the drive was reached: success | truncated |
    | ``time_limit`` | three times what the drive takes at `target_speed` have passed | truncated |

    ## Arguments
    | argument | default | meaning |
    | --- | --- | --- |
    | `recording` | – | folder of a recording, or a list of folders |
    | `target_speed` | 8.0 | speed on a straight road [m/s] |
    | `route_length` | 300.0 | longest drive, at least 20 [m] |
    | `frame_stack` | 4 | number of frames in an observation, or their ages [decisions], such as `[9, 4, 1, 0]` |
    | `image_size` | (84, 84) | height and width of a frame, each at least 8 [px] |
    | `action_repeat` | 1 | ticks of 0.05 s in a decision; an action is held for all of them |
    | `control` | None | what the actions do: a mapping, as in ``CarlaLane-v0`` |
    | `reward` | None | weights by term name, in place of the defaults: a mapping |
    | `render_mode` | None | "rgb_array": the re-projected picture in colour |

    ``reset(options={"sequence": ..., "station": ..., "lateral_offset": ..., "heading_error": ...})`` chooses the start
    of one episode: name of the sequence, station [m], offset [m] and heading [rad] against the lane, right positive;
    each may be left out.

    ## Version history
    * v0: first version
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (as in Env)
    delta_seconds = 0.05
    """Simulated time of a tick [s]."""

    def __init__(
        self,
        recording: str | Path | Sequence[str | Path],
        *,
        target_speed: float = 8.0,
        route_length: float = 300.0,
        frame_stack: int | Sequence[int] = 4,
        image_size: Sequence[int] = (84, 84),
        action_repeat: int = 1,
        control: Mapping[str, Any] | None = None,
        reward: Mapping[str, float] | None = None,
        render_mode: str | None = None,
    ) -> None:
        check_whole("action_repeat", action_repeat, 1)
        check_positive(target_speed=target_speed)
        arguments.check_route_length(route_length)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode: expected None or 'rgb_array', got {render_mode!r}")
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
        mount = CameraMount(width=width, height=height)
        self._camera, self._view = RecordedCamera(mount, grey=True), RecordedCamera(VIEW, grey=False)
        self._seen = 1.0

        self.drives = recorded_drives(read_recordings(recording), mount, route_length)
        """What the recordings were cut into."""
        self.simulation = RecordedSimulation(
            Controls(self.control, target_speed, delta_seconds=self.delta_seconds),
            target_speed=target_speed, action_repeat=action_repeat,
        )  # fmt: skip
        """Lane and car as they are, for drivers that read the map."""
        self.metadata = {**self.metadata, "render_fps": round(1.0 / self.simulation.decision_seconds)}
        self._episode_so_far: dict[str, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """
        Begin an episode.

        :param seed: makes the episodes from here on repeatable
        :param options: ``sequence``, ``station``, ``lateral_offset`` and ``heading_error`` of the start; or only
            ``resume``: an :attr:`episode_so_far`, which is driven again
        :return: observation: shape (frames, height, width), uint8; info
        :raises ValueError: if an option is unknown, or not what it may be
        """
        super().reset(seed=seed)
        options = dict(options or {})
        resumed = options.pop("resume", None)
        if resumed is not None:
            self.np_random.bit_generator.state, options = resumed["random"], {**options, **resumed["options"]}
        self._episode_so_far = {
            "random": self.np_random.bit_generator.state, "options": dict(options), "actions": []
        }  # fmt: skip
        self.simulation.begin(recorded_setup(self.drives, options, self.np_random))
        self._frames[:] = self._camera_frame()
        observation, info = self._observation(), self._info({})
        for action in resumed["actions"] if resumed is not None else ():
            observation, _, _, _, info = self.step(np.array(action))
        return observation, info

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """
        Make one decision: the same action for ``action_repeat`` ticks.

        :param action: shape (2,), float32, clipped to -1..1: steering, pedal or speed
        :return: observation, reward, terminated, truncated, info
        :raises RuntimeError: if the episode is over or was not begun
        :raises ValueError: if the action is not two finite numbers
        """
        episode = self.simulation.episode
        if episode is None or episode.end_reason:
            raise RuntimeError("step() needs an episode that goes on: call reset() first")
        steering, drive = read_action(action, self.action_names)
        self._episode_so_far["actions"].append((steering, drive))
        motion = self.simulation.advance(steering, drive)
        self._frames[:-1] = self._frames[1:]
        self._frames[-1] = self._camera_frame()
        terms = reward_terms(motion, self._weights)
        failed, ended = episode.failed, bool(episode.end_reason)
        return self._observation(), sum(terms.values()), failed, ended and not failed, self._info(terms)

    def render(self) -> NDArray[np.uint8] | None:
        """
        What the policy's camera sees, in colour and wider.

        :return: with "rgb_array": shape (384, 640, 3), uint8 RGB
        """
        if self.render_mode is None or self.simulation.episode is None:
            return None
        picture, _ = self._look(self._view)
        return np.ascontiguousarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))

    @property
    def episode_so_far(self) -> dict[str, Any]:
        """What ``reset(options={"resume": ...})`` needs to come to this decision again."""
        return copy.deepcopy(self._episode_so_far)

    def _look(self, camera: RecordedCamera) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        simulation = self.simulation
        return camera.look(simulation.setup.drive.sequence, simulation.station, simulation.vehicle_state)

    def _camera_frame(self) -> NDArray[np.uint8]:
        """The camera's image of the last tick, shape (height, width)."""
        picture, seen = self._look(self._camera)
        self._seen = float(seen.mean())
        return picture

    def _observation(self) -> NDArray[np.uint8]:
        return self._frames[self._observation_frames]

    def _info(self, terms: dict[str, float]) -> dict[str, Any]:
        simulation = self.simulation
        episode, drive = simulation.episode, simulation.setup.drive
        assert episode is not None
        info: dict[str, Any] = {
            **simulation.info(terms),
            "town": drive.sequence.town,
            "scenario": drive.number,
            "weather": drive.sequence.weather,
            "sequence": drive.sequence.name,
            "station_m": simulation.station,
            "seen": self._seen,
        }
        return {**info, **episode.summary()} if episode.end_reason else info
