"""The exceptions of sb3_carla."""

from __future__ import annotations

__all__ = [
    "CallError",
    "CarlaLaneError",
    "CheckpointError",
    "EventLogError",
    "FrameError",
    "MapError",
    "ModelError",
    "RecordingError",
    "ServerError",
    "ServerStartError",
    "ServerTimeoutError",
    "SimulatorError",
    "SpawnError",
    "TownNotFoundError",
    "VehicleLostError",
    "VersionMismatchError",
    "ZooPatchError",
]


class CarlaLaneError(Exception):
    """Base class of this package's exceptions."""


class SimulatorError(CarlaLaneError):
    """The packaged simulator cannot do what it was asked to do."""


class MapError(SimulatorError, ValueError):
    """An OpenDRIVE map is unknown, unreadable, or has no road to drive on."""


class SpawnError(SimulatorError):
    """An actor cannot be spawned: its blueprint is unknown, or its place is occupied."""


class ServerError(CarlaLaneError):
    """A CARLA server failed."""


class ServerStartError(ServerError):
    """A server, the packaged one or a command's, did not start."""


class ServerTimeoutError(ServerError):
    """A server does not answer in time, or not at all."""


class FrameError(ServerError):
    """A camera's image belongs to another tick, or has another size than was asked for."""


class VehicleLostError(ServerError):
    """The agent's car is no longer in the world: another client has destroyed it."""


class CallError(ServerError):
    """The packaged server cannot execute a remote call; the client receives the message."""


class VersionMismatchError(ServerError):
    """Server and client library have different CARLA versions."""


class TownNotFoundError(ServerError, ValueError):
    """The server knows no town of that name."""


class ZooPatchError(CarlaLaneError):
    """The installed rl-zoo3 lacks a function that we patch. Not an ``ImportError``, which rl-zoo3 would catch."""


class EventLogError(CarlaLaneError):
    """The log of a training cannot be read: its event files are missing or damaged."""


class CheckpointError(CarlaLaneError):
    """A checkpoint is missing or damaged."""


class ModelError(CarlaLaneError):
    """A saved model cannot be loaded."""


class RecordingError(CarlaLaneError, ValueError):
    """A recorded drive cannot be read: a file, column or value is missing or damaged."""
