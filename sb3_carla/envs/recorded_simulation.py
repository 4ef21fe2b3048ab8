"""The simulation behind ``CarlaRecorded-v0``: a kinematic car moves along a recorded lane and sees its pictures."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.client.vehicle import VehicleState
from sb3_carla.envs.controls import Controls
from sb3_carla.envs.episode import Episode
from sb3_carla.envs.kinematic_car import HALF_WIDTH, KinematicCar
from sb3_carla.envs.privileged_state import privileged_state
from sb3_carla.envs.recorded_drives import RecordedSetup, recorded_route
from sb3_carla.envs.rewards import Motion
from sb3_carla.envs.route import LanePose, LaneRoute
from sb3_carla.envs.simulation import TIME_LIMIT_FACTOR
from sb3_carla.envs.traffic import CarAhead, recommended_speed
from sb3_carla.recordings.pictures import PictureStore
from sb3_carla.recordings.reprojection import Reprojector, Source
from sb3_carla.recordings.sequence import RecordedSequence

__all__ = ["RecordedCamera", "RecordedSimulation"]


class RecordedCamera:
    """
    A camera on a car that moves along a recorded lane.

    :param mount: of the camera
    :param grey: pictures of shape (height, width) instead of (height, width, 3) BGR
    """

    def __init__(self, mount: CameraMount, *, grey: bool) -> None:
        self._reprojector = Reprojector(mount)
        self._store = PictureStore(self._reprojector.focal, grey=grey)

    def look(
        self, sequence: RecordedSequence, station: float, car: VehicleState
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """
        :param sequence: a recording
        :param station: of the car on its lane [m]
        :param car: its pose in the recording's plane
        :return: picture, uint8; mask of what was really seen: shape (height, width), bool
        :raises RecordingError: if a picture cannot be read
        """
        index = sequence.nearest(station + self._reprojector.mount.x)
        x, y, heading = sequence.poses[index].tolist()
        sources = []
        for camera, mount in sequence.cameras.items():
            file = sequence.files[camera][index]
            if file is not None:
                sources.append(
                    Source(self._store.picture(file, mount), self._store.lens(mount), mount, (x, y, heading))
                )
        return self._reprojector.view(sources, (car.x, car.y, car.heading))


class RecordedSimulation:
    """
    What an episode of ``CarlaRecorded-v0`` takes place in.

    :param controls: from actions to steering and pedals
    :param target_speed: speed on a free straight [m/s]
    :param action_repeat: ticks of a decision
    """

    def __init__(self, controls: Controls, *, target_speed: float, action_repeat: int) -> None:
        self.controls, self.target_speed, self._action_repeat = controls, target_speed, action_repeat
        self.episode: Episode | None = None
        """The present episode, or the one that ended last; None before the first."""
        self.setup: RecordedSetup
        """What the present episode began with."""
        self.route: LaneRoute
        """The route of the present episode."""
        self.lane_pose: LanePose
        """The car relative to the route at the last tick."""
        self._car = KinematicCar()

    @property
    def decision_seconds(self) -> float:
        """Simulated time of a decision [s]."""
        return self.controls.delta_seconds * self._action_repeat

    @property
    def vehicle_state(self) -> VehicleState:
        """The car at the last tick, in the recording's plane."""
        return self._car.state

    @property
    def station(self) -> float:
        """Distance of the car along the recorded lane [m]."""
        return self.setup.station + self.lane_pose.station

    @property
    def max_wheel_angle(self) -> float:
        """Wheel angle of full steering at the present speed [rad]."""
        return self.controls.full_steering(self._car.speed)

    def safe_speed(self) -> float:
        """Speed that keeps the distance to the car ahead [m/s]: infinite, as other cars are only seen."""
        return math.inf

    def privileged_state(self) -> NDArray[np.float32]:
        """What only a critic may see, see :mod:`sb3_carla.envs.privileged_state`: shape (14,), float32."""
        assert self.episode is not None
        return privileged_state(
            self.route, self.lane_pose, self.vehicle_state, car_ahead=CarAhead(), target_speed=self.target_speed,
            steering=self.controls.steering, stuck=self.episode.stuck,
        )  # fmt: skip

    def begin(self, setup: RecordedSetup) -> None:
        """
        Begin an episode at a standstill.

        :param setup: where
        """
        drive, self.setup = setup.drive, setup
        length = drive.start + drive.length - setup.station
        self.route = recorded_route(drive.sequence, setup.station, length)
        x, y, heading = (float(axis[0]) for axis in drive.sequence.lane(np.array([setup.station])))
        offset = setup.lateral_offset
        self._car = KinematicCar(
            x - offset * math.sin(heading), y + offset * math.cos(heading), heading + setup.heading_error
        )
        time_limit = TIME_LIMIT_FACTOR * self.route.length / self.target_speed
        self.episode = Episode(self.route.length, time_limit, HALF_WIDTH, self.controls.delta_seconds)
        self.controls.restart()
        self._locate()

    def advance(self, steering: float, drive: float) -> Motion:
        """
        Hold an action for all ticks of a decision, also if the episode ends before the last of them.

        :param steering: first action, -1 (left) to 1 (right)
        :param drive: second action, -1 to 1: pedal or speed
        :return: what the reward depends on
        """
        assert self.episode is not None
        station, steering_before = self.lane_pose.station, self.controls.steering
        for _ in range(self._action_repeat):
            self._car.tick(*self.controls.act(steering, drive, self._car.speed), self.controls.delta_seconds)
            self._locate()
            if not self.episode.end_reason:
                self.episode.update(self.vehicle_state, self.lane_pose, collisions=0)
        pose, speed = self.lane_pose, self._car.speed
        return Motion(
            progress_speed=(pose.station - station) / self.decision_seconds,
            speed=speed,
            recommended_speed=recommended_speed(
                self.route, pose.station, speed=speed, target_speed=self.target_speed, gap=math.inf
            ),
            lateral_offset=pose.lateral_offset,
            half_width=pose.half_width,
            heading_error=pose.heading_error,
            steering_change=abs(self.controls.steering - steering_before),
            failed=self.episode.failed,
        )

    def _locate(self) -> None:
        self.lane_pose = self.route.locate(self._car.x, self._car.y, self._car.heading)
