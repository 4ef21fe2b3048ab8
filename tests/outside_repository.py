"""Run commands in a directory outside the repository, as a user does."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from subprocess import PIPE, CompletedProcess

__all__ = ["python", "run_new_python", "run_python"]

TIMEOUT = 300.0  # [s]


def python(folder: Path, *arguments: str) -> CompletedProcess[str]:
    """
    Run Python in another directory, with nothing of the repository on its path, and no window.

    The libraries that we build upon are in memory already, see ``warm_python.py``: this saves 3 s of imports.
    """
    warm = _warm_python()
    assert warm.stdin is not None
    assert warm.stdout is not None
    with tempfile.TemporaryDirectory() as logs:
        files = {name: f"{logs}/{name}" for name in ("stdout", "stderr")}
        command = {"arguments": arguments, "folder": str(folder), "environment": _environment(), **files}
        warm.stdin.write(json.dumps(command) + "\n")
        warm.stdin.flush()
        limit = threading.Timer(TIMEOUT, os.kill, (int(warm.stdout.readline()), signal.SIGKILL))
        limit.start()
        status = int(warm.stdout.readline())
        limit.cancel()
        written = [Path(file).read_text(errors="replace") for file in files.values()]
    return CompletedProcess(arguments, status, *written)


def run_python(folder: Path, *arguments: str) -> str:
    """The standard output of a command that must succeed."""
    return _output(python(folder, *arguments))


def run_new_python(folder: Path, *arguments: str) -> str:
    """The same in a new interpreter, which imports everything itself."""
    command = [sys.executable, *arguments]
    return _output(
        subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=TIMEOUT)
    )


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DISPLAY")}


def _output(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@functools.cache
def _warm_python() -> subprocess.Popen[str]:
    """One for each process of pytest; it ends when its stdin is closed."""
    command = [sys.executable, str(Path(__file__).with_name("warm_python.py"))]
    process = subprocess.Popen(command, env=_environment(), stdin=PIPE, stdout=PIPE, text=True)
    atexit.register(process.communicate)
    return process
