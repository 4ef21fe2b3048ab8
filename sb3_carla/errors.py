"""Every error that sb3_carla raises on purpose, in one hierarchy."""

from __future__ import annotations

__all__ = [
    "CallError",
    "CarlaLaneError",
    "CheckpointError",
    "EventLogError",
    "FrameError",
    "MapError",
    "ModelError",
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
    """Base class: ``except CarlaLaneError`` catches whatever this package reports."""


class SimulatorError(CarlaLaneError):
    """The packaged simulator cannot do what was asked."""


class MapError(SimulatorError, ValueError):
    """An OpenDRIVE map is unknown, unreadable, or has nothing to drive on."""


class SpawnError(SimulatorError):
    """An actor cannot be put into the world: unknown blueprint, or its place is taken."""


class ServerError(CarlaLaneError):
    """A CARLA server does not do its part."""


class ServerStartError(ServerError):
    """A server, packaged or of a command, did not come up."""


class ServerTimeoutError(ServerError):
    """A server does not answer in time, or not at all."""


class FrameError(ServerError):
    """A camera's pictures are not those of the ticks, or not of the size that was asked for."""


class VehicleLostError(ServerError):
    """The agent's car is no longer in the world: somebody else has removed it."""


class CallError(ServerError):
    """A remote call cannot be done; the message goes to the client."""


class VersionMismatchError(ServerError):
    """Server and client speak different CARLA versions."""


class TownNotFoundError(ServerError, ValueError):
    """The server knows no town of that name."""


class ZooPatchError(CarlaLaneError):
    """The installed rl-zoo3 has not got what we hook into. No ImportError: rl-zoo3 would swallow that."""


class EventLogError(CarlaLaneError):
    """A training's log cannot be read: no event files, or damaged ones."""


class CheckpointError(CarlaLaneError):
    """A checkpoint is not there, or damaged."""


class ModelError(CarlaLaneError):
    """A saved model cannot be loaded."""
