"""
Python with the slow libraries already imported: forks a process for every command line that it reads from stdin.

A command is one line of JSON, the arguments of ``start``. The answers are two lines: the process id, then the exit
status. Only libraries of other projects are imported here. rl-zoo3 and sb3_carla are not, so that a command finds them
as in a new interpreter.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys
from typing import Any

LIBRARIES = (
    "carla", "cv2", "huggingface_sb3", "matplotlib.pyplot", "moviepy", "optuna.visualization", "pandas", "requests",
    "sb3_contrib", "scipy.spatial", "stable_baselines3", "tensorboard.backend.event_processing.event_accumulator",
    "torch._dynamo", "torch.utils.tensorboard",
)  # fmt: skip


def commands() -> Any:
    """Fork for each command; return it in the child, and None in the parent when stdin ends."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            return json.loads(line)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


def start(arguments: list[str], folder: str, environment: dict[str, str], stdout: str, stderr: str) -> None:
    """
    Become ``python`` with these arguments.

    :param arguments: as on Python's command line: ``-m MODULE ...``, ``-c CODE ...`` or ``SCRIPT ...``
    :param folder: working directory
    :param environment: all environment variables
    :param stdout: file for the output
    :param stderr: file for the errors
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    opened = (os.open(os.devnull, os.O_RDONLY), os.open(stdout, flags), os.open(stderr, flags))
    for number, descriptor in enumerate(opened):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], folder
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = arguments, os.path.dirname(arguments[0])
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # or every child's garbage collection would copy this memory
    command = commands()
    if command is not None:
        start(**command)
