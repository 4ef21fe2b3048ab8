"""Recording drives on a CARLA server, ours or Unreal's, with the scripted driver."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.client.server_connection import ServerConnection
from sb3_carla.client.server_supervisor import make_supervisor
from sb3_carla.envs.controls import Controls
from sb3_carla.envs.driver import pure_pursuit
from sb3_carla.envs.episode_setup import EpisodeSetup
from sb3_carla.envs.options import ControlOptions
from sb3_carla.envs.simulation import LaneSimulation
from sb3_carla.errors import ServerError
from sb3_carla.recordings.table import FILE_NAME, Row, write_rows

__all__ = ["CAMERAS", "DriveRecorder"]

CAMERAS = {
    "front": CameraMount(width=400, height=400, fov=110.0),
    "left": CameraMount(width=300, height=300, yaw=-60.0),
    "right": CameraMount(width=300, height=300, yaw=60.0),
}
"""The front camera stands where the policy's does and sees ten degrees more on each side."""
DELTA_SECONDS = 0.05
QUALITY = 95
"""Of the JPEG files, 0 to 100."""
LONGEST = 300.0
"""Longest sequence [m], if it is not chosen."""


@dataclass(frozen=True)
class DriveRecorder:
    """
    Drives and records.

    :param folder: to write; made if it is not there
    :param host: address of a running CARLA server; None: the packaged one is started
    :param port: of that server
    :param cameras: mounts by name, the front camera first
    :param speed: on a free straight [m/s]
    :param spacing: least distance between two pictures [m]
    :param longest: longest sequence [m]
    :param timeout: for each answer of the server [s]
    """

    folder: Path
    host: str | None = None
    port: int = 2000
    cameras: Sequence[str] = ("front",)
    speed: float = 8.0
    spacing: float = 0.25
    longest: float = LONGEST
    timeout: float = 20.0

    def record(
        self,
        towns: Sequence[str],
        weathers: Sequence[str],
        metres: float,
        *,
        on_sequence: Callable[[str, int], object] = lambda name, pictures: None,
    ) -> list[Row]:
        """
        Record ``metres`` of every town in every weather: scenario after scenario, in sequences of equal length.

        :param towns: names, or paths of OpenDRIVE files
        :param weathers: presets of ``carla.WeatherParameters``
        :param metres: length of lane in each town and weather, at least 20 [m]
        :param on_sequence: called after each sequence with its name and number of moments
        :return: what was written to ``recording.csv``
        :raises FileExistsError: if the folder holds a recording
        :raises ServerError: if the server cannot be reached, or the car did not come to the end of a sequence
        :raises MapError: if a town cannot be used
        """
        if (self.folder / FILE_NAME).exists():
            raise FileExistsError(f"{self.folder / FILE_NAME}: expected no recording, there is one")
        count = math.ceil(metres / self.longest - 1e-9)
        mounts = [CAMERAS[name] for name in self.cameras]
        connection = ServerConnection(
            self.host, self.port, make_supervisor(self.host, None), mounts,
            timeout=self.timeout, delta_seconds=DELTA_SECONDS, ticks_per_image=1,
        )  # fmt: skip
        controls = Controls(ControlOptions(longitudinal="speed"), self.speed, delta_seconds=DELTA_SECONDS)
        simulation = LaneSimulation(
            connection, controls, n_npcs=0, target_speed=self.speed, route_length=metres / count, action_repeat=1
        )
        rows: list[Row] = []
        try:
            for town in towns:
                for weather in weathers:
                    for scenario in range(count):
                        found = self._sequence(simulation, EpisodeSetup(town, scenario, weather))
                        rows += found
                        write_rows(self.folder, rows)
                        on_sequence(found[0].sequence, len(found) // len(mounts))
        finally:
            simulation.close()
        return rows

    def _sequence(self, simulation: LaneSimulation, setup: EpisodeSetup) -> list[Row]:
        """Drive one scenario from start to end."""
        simulation.connection.begin_with_retries(lambda: simulation.begin(setup, np.random.default_rng(0)))
        name = f"{Path(setup.town).stem}-{setup.weather}-{setup.scenario}"
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        episode = simulation.episode
        assert episode is not None
        rows = self._moment(simulation, setup, name, 0)
        while not episode.end_reason:
            steering, drive = pure_pursuit(simulation, "speed").tolist()
            simulation.advance(steering, drive)
            if simulation.lane_pose.station - rows[-1].station >= self.spacing or episode.end_reason:
                rows += self._moment(simulation, setup, name, len(rows) // len(self.cameras))
        if episode.end_reason != "route_end":
            raise ServerError(
                f"{name}: expected to reach the end of the route, the drive ended as {episode.end_reason}"
            )
        return rows

    def _moment(self, simulation: LaneSimulation, setup: EpisodeSetup, name: str, frame: int) -> list[Row]:
        """Write the pictures of the present tick."""
        route, pose = simulation.route, simulation.lane_pose
        middles = 0.5 * (route.stations[1:] + route.stations[:-1])
        curvature = float(np.interp(pose.station, middles, route.curvatures))
        time = DELTA_SECONDS * simulation.episode.ticks if simulation.episode is not None else 0.0
        rows = []
        for camera in self.cameras:
            path = self.folder / name / f"{camera}_{frame:05d}.jpg"
            picture = simulation.session.image(CAMERAS[camera])[:, :, :3]
            if not cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY]):
                raise OSError(f"{path}: cannot be written")
            rows.append(Row(
                path, name, frame, time, Path(setup.town).stem, str(setup.weather), camera, CAMERAS[camera],
                pose.heading_error, pose.lateral_offset, pose.station, curvature, pose.half_width,
            ))  # fmt: skip
        return rows
