"""Command line: ``python -m sb3_carla.server --port 2000 --town Circuit01``."""

from __future__ import annotations

import argparse
import ctypes
import signal
import sys
from collections.abc import Sequence

import cv2

from sb3_carla.errors import CarlaLaneError
from sb3_carla.server.server import Server
from sb3_carla.simulator.rendering.shared_rasters import SharedRasters
from sb3_carla.simulator.rendering.warm_up import warm_up
from sb3_carla.simulator.roads.built_in_towns import BUILT_IN_TOWNS

EXIT_CANNOT_START = 1
PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal that the kernel sends when the parent dies."""


def parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m sb3_carla.server",
        description="A CARLA 0.9.16 server on the CPU: the genuine carla client connects to it.",
    )
    result.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    result.add_argument(
        "--port", type=_port, default=2000, help="port of the remote calls, 0: a free one (default: %(default)s)"
    )
    result.add_argument("--streaming-port", type=_port, help="port of the streams (default: the next one)")
    towns = f"{BUILT_IN_TOWNS[0]} to {BUILT_IN_TOWNS[-1]}"
    result.add_argument("--town", default=BUILT_IN_TOWNS[0], help=f"{towns}, or an .xodr file (default: %(default)s)")
    result.add_argument("--parent-pid", type=int, help="exit when this process is no longer the parent")
    result.add_argument("--seed", type=int, default=0, help="seed of the sensors' noise (default: %(default)s)")
    result.add_argument(
        "--shared-rasters",
        type=int,
        metavar="FD",
        help="descriptor of a file in which servers share rasters",
    )
    result.add_argument("--verbose", action="store_true", help="print one line for each call on stderr")
    return result


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {port}")
    return port


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Serve until SIGTERM or SIGINT.

    :param arguments: command line; None: that of the process
    :return: exit status: 0 after a signal, 1 if the server cannot start
    """
    options = parser().parse_args(arguments)
    # The pictures are small: giving parts of them to other threads costs more time than it saves (10 us of 70).
    cv2.setNumThreads(1)
    if options.parent_pid is not None:
        _continue_when_the_parent_dies()
    warm_up()
    try:
        server = Server(
            options.town,
            host=options.host,
            port=options.port,
            streaming_port=options.streaming_port,
            parent_pid=options.parent_pid,
            seed=options.seed,
            shared_rasters=None if options.shared_rasters is None else SharedRasters(options.shared_rasters),
            verbose=options.verbose,
        )
    except CarlaLaneError as error:
        print(f"sb3_carla.server: {error}", file=sys.stderr)
        return EXIT_CANNOT_START

    def stop(number: int, frame: object) -> None:
        server.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    place = f"{server.host}:{server.port} streaming {server.streaming_port}"
    print(f"sb3_carla.server listening on {place}", flush=True)
    server.run()
    server.close()
    return 0


def _continue_when_the_parent_dies() -> None:
    """
    Ask the kernel for SIGCONT when the parent dies: a stopped server (SIGSTOP) would not notice it, and never exit.

    A signal that ends the process would be wrong: the kernel also sends it when the thread that started the server ends
    while its process lives on.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGCONT))


if __name__ == "__main__":
    sys.exit(main())
