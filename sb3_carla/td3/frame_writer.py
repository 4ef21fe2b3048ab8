"""Numbers the frames of an environment's observations, so that each is stored once."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["HISTORY", "FrameWriter"]

HISTORY = 32
"""Number of an episode's last frames that later observations may still contain."""


class FrameWriter:
    """
    The frames of one environment.

    :param frame_stack: frames in an observation
    """

    def __init__(self, frame_stack: int) -> None:
        self.count = 0
        """Frames that were ever stored."""
        self.ids = np.zeros(frame_stack, np.int32)
        """Numbers of the frames in the observation that was written last: shape (frame_stack,)."""
        self.last_observation: npt.NDArray[Any] | None = None
        """None where an episode begins."""
        self._recent: dict[bytes, int] = {}  # digest of a frame -> its number; the last HISTORY, in order

    def continues_with(self, observation: npt.NDArray[Any]) -> bool:
        """
        :param observation: shape (channels, height, width)
        :return: whether it equals :attr:`last_observation`; if not, an episode begins with it
        """
        return self.last_observation is not None and np.array_equal(observation, self.last_observation)

    def begin(self, observation: npt.NDArray[Any], put: Callable[[int, npt.NDArray[Any]], None]) -> None:
        """
        Begin an episode.

        :param observation: its first one, shape (channels, height, width)
        :param put: see :meth:`write`
        """
        self._recent.clear()
        self.write(observation, put)

    def write(self, observation: npt.NDArray[Any], put: Callable[[int, npt.NDArray[Any]], None]) -> int:
        """
        Store those of an observation's frames that are new, and set :attr:`ids`.

        The newest frame is stored also where it equals an earlier one other than the last: each is forgotten
        ``HISTORY`` frames after it was last stored.

        :param observation: shape (channels, height, width)
        :param put: stores a frame, shape (pixels,), under a number
        :return: number of frames that were stored
        """
        before, last = self.count, next(reversed(self._recent), None)
        frames = observation.reshape(len(self.ids), -1)  # (frame_stack, pixels)
        for place, frame in enumerate(frames):
            digest = blake2b(frame.tobytes(), digest_size=16).digest()
            comes_again = place == len(frames) - 1 and last is not None and digest != last
            if digest not in self._recent or comes_again:
                self._recent.pop(digest, None)
                self._recent[digest] = self.count
                put(self.count, frame)
                self.count += 1
                if len(self._recent) > HISTORY:
                    del self._recent[next(iter(self._recent))]
            self.ids[place] = self._recent[digest]
        return self.count - before
