"""A full disk does not end a training: files that may not grow stand for it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import SMALL, BarEnv

from sb3_carla.td3 import resilient_logging
from sb3_carla.td3.resilient_logging import make_resilient
from sb3_carla.td3.td3 import TD3


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, room[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)


class FullFor(BaseCallback):
    """The disk is full from one step to another."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.first, self.last = first, last

    def _on_training_start(self) -> None:
        self.room = resource.getrlimit(resource.RLIMIT_FSIZE)

    def _on_step(self) -> bool:
        if self.n_calls == self.first:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, self.room[1]))
        if self.n_calls == self.last:
            resource.setrlimit(resource.RLIMIT_FSIZE, self.room)
        self.logger.record("test/step", self.n_calls)
        self.logger.dump(self.n_calls)
        for output in self.logger.output_formats:
            if hasattr(output, "writer"):
                output.writer.flush()
        return True


def logged(folder: Path) -> list[int]:
    steps = []
    for file in folder.glob("events.*"):
        events = EventAccumulator(str(file)).Reload()
        if "test/step" in events.Tags()["scalars"]:
            steps += [event.step for event in events.Scalars("test/step")]
    return sorted(steps)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_training_and_log_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resilient_logging, "RETRY_PAUSE", 0.0)
    model = TD3("LayerNormCnnPolicy", BarEnv(), **SMALL)
    model.set_logger(configure(str(tmp_path), ["tensorboard", "csv"]))
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        model.learn(40, callback=FullFor(11, 31))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
    model.logger.close()
    assert model.num_timesteps == 40
    assert logged(tmp_path) == [*range(1, 11), *range(31, 41)]
    assert caplog.text.count("The log cannot be written") == 1
    assert "File too large" in caplog.text
    assert "TensorBoard's log continues in a new file" in caplog.text
    sizes = [file.stat().st_size for file in tmp_path.glob("events.*")]
    assert len(sizes) == 2, "attempts leave nothing"
    assert min(sizes) > 0


def test_without_the_wrapper_it_ends(tmp_path: Path) -> None:
    log = configure(str(tmp_path), ["csv"])
    log.record("a", 1)
    with files_up_to(1), pytest.raises(OSError, match="File too large"):
        log.dump(1)
    log.close()


def test_twice_is_once_and_a_broken_pipe_still_ends(tmp_path: Path) -> None:
    log = configure(str(tmp_path), ["tensorboard", "csv"])
    make_resilient(log)
    tensorboard, csv = log.output_formats
    outer = tensorboard.writer.file_writer.event_writer, csv.write
    make_resilient(log)
    assert (tensorboard.writer.file_writer.event_writer, csv.write) == outer
    log.close()

    def nobody_reads(*_: object) -> None:
        raise BrokenPipeError

    log = configure(str(tmp_path / "pipe"), ["csv"])
    log.output_formats[0].write = nobody_reads
    make_resilient(log)
    with pytest.raises(BrokenPipeError):
        log.dump(1)
    log.close()
