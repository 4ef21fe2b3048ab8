"""A training survives it when servers, workers and the trainer itself are killed, stopped or fed garbage."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from processes import processes_with

from sb3_carla.td3.td3 import TD3

MARK = "SB3_CARLA_CHAOS"
"""Environment variable by which all processes of the training are found."""


class Chaos:
    """
    A training in its own process, and faults to inject into it.

    :param folder: working directory of the training
    :param every: steps between two checkpoints
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        self.random = random.Random(1)
        self.done: list[str] = []
        self.resumed = 0
        self.memory: list[float] = []  # of the present trainer, every few seconds [bytes]
        self._command = [sys.executable, "-m", "rl_zoo3.train", "--algo", "td3", "--env", "CarlaLane-v0", "--seed", "3"]
        self._command += ["--save-freq", str(every), "--eval-freq", "-1", "-f", "logs"]
        self._command += ["--env-kwargs", "town:['Circuit01','Village01']", "timeout:3.0", "n_npcs:2"]
        self._command += ["-params", "n_envs:3", "learning_starts:100", "batch_size:16", "buffer_size:2000"]
        self._command += ["gradient_steps:1"]
        self._command += ["vec_env:'supervised'"]
        self.trainer = self._start()

    def _start(self, steps: int = 10**7) -> subprocess.Popen[bytes]:
        latest = self.folder / "logs/td3/CarlaLane-v0_1/checkpoints/latest/model.zip"
        more = ["-n", str(steps), *(["-i", str(latest)] if latest.exists() else [])]
        self._before = self.steps()
        environment = {**os.environ, MARK: self.mark}
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen([*self._command, *more], cwd=self.folder, env=environment, stdout=log, stderr=log)

    def processes(self) -> dict[int, str]:
        """Process ids and command lines of all that belongs to it and lives."""
        return processes_with(MARK, self.mark)

    def _some(self, what: str) -> int | None:
        pids = [pid for pid, command in self.processes().items() if what in command and pid != self.trainer.pid]
        return self.random.choice(pids) if pids else None

    # --- faults ------------------------------------------------------------------------------------------------

    def kill_a_server(self) -> None:
        self._signal("sb3_carla.server", signal.SIGKILL)

    def stop_a_server(self) -> None:
        self._signal("sb3_carla.server", signal.SIGSTOP)

    def slow_a_server(self) -> None:
        pid = self._some("sb3_carla.server")
        for _ in range(10):
            if pid is not None and pid in self.processes():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(0.1)
                os.kill(pid, signal.SIGCONT)

    def kill_a_worker(self) -> None:
        self._signal("multiprocessing.forkserver", signal.SIGKILL)

    def feed_garbage(self) -> None:
        pid = self._some("sb3_carla.server")
        for port in _listening(pid) if pid is not None else []:
            with socket.create_connection(("127.0.0.1", port), 5.0) as connection:
                connection.sendall(self.random.randbytes(5000))

    def kill_the_trainer(self) -> None:
        self.trainer.kill()
        self.trainer.wait()
        deadline = time.monotonic() + 20.0
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        left = self.processes()
        assert not left, "a killed training leaves nothing behind: " + "; ".join(f"{pid} {left[pid]}" for pid in left)
        self.resumed += 1
        self.memory.clear()
        self.trainer = self._start()

    def end(self, more: int) -> int:
        """
        Terminate the trainer with SIGTERM, as at a machine's shutdown, and let another one train a little more.

        :param more: number of further steps
        :return: number of steps in total
        """
        self.trainer.terminate()
        assert self.trainer.wait(60.0) == 128 + signal.SIGTERM, self.log()[-5000:]
        steps = self.steps() + more
        self.trainer = self._start(steps)
        assert self.trainer.wait(300.0) == 0, self.log()[-5000:]
        return steps

    def _signal(self, what: str, number: int) -> None:
        pid = self._some(what)
        if pid is not None:
            os.kill(pid, number)

    def steps(self) -> int:
        """Step of the newest checkpoint."""
        steps = [int(path.name[5:]) for path in self.folder.glob("logs/td3/*/checkpoints/step_*")]
        return max(steps, default=0)

    def is_under_way(self) -> bool:
        """Whether the present trainer has written a checkpoint."""
        return self.steps() > self._before

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")


def _listening(pid: int) -> list[int]:
    """Ports that a process listens on."""
    connections = psutil.Process(pid).net_connections("tcp4")
    return [connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN]


def inject_faults(chaos: Chaos, seconds: float, pause: tuple[float, float]) -> None:
    """
    Inject a fault every few seconds; after a quarter and after half of the time kill the trainer.

    Each fault comes once in quick succession first, so that none is missing on a slow machine.
    """
    began = time.monotonic()
    faults: list[Callable[[], Any]] = [
        chaos.kill_a_server, chaos.stop_a_server, chaos.kill_a_worker, chaos.feed_garbage, chaos.slow_a_server,
    ]  # fmt: skip
    coming = itertools.cycle(faults)
    while time.monotonic() < began + seconds or chaos.resumed < 2 or not chaos.is_under_way():
        assert chaos.trainer.poll() is None, chaos.log()[-5000:]
        assert time.monotonic() < began + 3.0 * seconds + 300.0, f"it hangs; the end of its log:\n{chaos.log()[-3000:]}"
        time.sleep(0.5 if len(chaos.done) < len(faults) else chaos.random.uniform(*pause))
        if chaos.steps():
            with contextlib.suppress(psutil.Error):  # it ends just now
                chaos.memory.append(psutil.Process(chaos.trainer.pid).memory_info().rss)
            due = chaos.resumed < 2 and time.monotonic() > began + seconds * (0.25, 0.5)[chaos.resumed]
            fault = chaos.kill_the_trainer if due and len(chaos.done) >= len(faults) else next(coming)
            chaos.done.append(fault.__name__)
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess, ConnectionError):  # it has ended
                fault()


def run_chaos(folder: Path, seconds: float, every: int, pause: tuple[float, float]) -> Chaos:
    chaos = Chaos(folder, every)
    try:
        inject_faults(chaos, seconds, pause)
        steps = chaos.end(more=every)
    finally:
        chaos.trainer.kill()
        chaos.trainer.wait()
    deadline = time.monotonic() + 10.0
    while chaos.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not chaos.processes()
    model = TD3.load(max(folder.glob("logs/td3/*/CarlaLane-v0.zip"), key=lambda path: path.stat().st_mtime))
    assert steps <= model.num_timesteps < steps + 3
    assert model._n_updates == (model.num_timesteps - 102) // 3 + 1, "an update to each step of the three environments"
    return chaos


@pytest.mark.long
def test_two_minutes_of_chaos(tmp_path: Path) -> None:
    chaos = run_chaos(tmp_path, 90.0, every=150, pause=(1.0, 5.0))
    faults = {"kill_a_server", "stop_a_server", "kill_a_worker", "feed_garbage", "slow_a_server", "kill_the_trainer"}
    assert faults == set(chaos.done)


@pytest.mark.slow
def test_half_an_hour_of_chaos(tmp_path: Path) -> None:
    chaos = run_chaos(tmp_path, 1800.0, every=5000, pause=(5.0, 20.0))
    tenth = len(chaos.memory) // 10
    early, late = (float(np.median(part)) for part in (chaos.memory[tenth : 3 * tenth], chaos.memory[-2 * tenth :]))
    print(
        f"{len(chaos.done)} faults in {chaos.steps()} steps; "
        f"the last trainer's memory: {early / 1e6:.1f} MB, later {late / 1e6:.1f} MB"
    )
    assert late < 1.02 * early, "flat: the second half has lost as many servers and workers as the first"
