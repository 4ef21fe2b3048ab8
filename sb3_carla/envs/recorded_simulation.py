"""The simulation behind ``CarlaRecorded-v0``: a kinematic car moves along a recorded lane and sees its pictures."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.client.vehicle import VehicleState
from sb3_carla.envs.controls import Controls
from sb3_carla.envs.kinematic_car import HALF_WIDTH, KinematicCar
from sb3_carla.envs.lane_driving import LaneDriving
from sb3_carla.envs.recorded_drives import RecordedSetup, recorded_route
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


class RecordedSimulation(LaneDriving):
    """
    What an episode of ``CarlaRecorded-v0`` takes place in.

    :param controls: from actions to steering and pedals
    :param target_speed: speed on a free straight [m/s]
    :param action_repeat: ticks of a decision
    """

    def __init__(self, controls: Controls, *, target_speed: float, action_repeat: int) -> None:
        super().__init__(controls, target_speed=target_speed, action_repeat=action_repeat)
        self.setup: RecordedSetup
        """What the present episode began with."""
        self._car = KinematicCar()

    @property
    def station(self) -> float:
        """Distance of the car along the recorded lane [m]."""
        return self.setup.station + self.lane_pose.station

    def safe_speed(self) -> float:
        """Speed that keeps the distance to the car ahead [m/s]: infinite, as other cars are only seen."""
        return math.inf

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
        self._begin_episode(HALF_WIDTH)
        self.controls.restart()
        self._locate()

    def _tick(self, steering: float, drive: float) -> None:
        assert self.episode is not None
        self._car.tick(*self.controls.act(steering, drive, self._car.speed), self.controls.delta_seconds)
        self._locate()
        if not self.episode.end_reason:
            self.episode.update(self.vehicle_state, self.lane_pose, collisions=0)

    def _locate(self) -> None:
        self.vehicle_state = self._car.state
        self.lane_pose = self.route.locate(self._car.x, self._car.y, self._car.heading)
