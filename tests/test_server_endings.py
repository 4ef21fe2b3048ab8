"""Whatever a server's command starts and whenever Ctrl-C comes: nothing is left, and nobody else's server is taken."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from processes import OURS, children, wait_until_gone

from sb3_carla import servers
from sb3_carla.errors import ServerStartError
from sb3_carla.guard import children as below
from sb3_carla.guard import family
from sb3_carla.servers import CommandServer, EmbeddedServer, Supervisor

pytestmark = pytest.mark.usefixtures("interruptible")

WITHOUT_ENVIRONMENT = f"env -i HOME=/ PATH={shlex.quote(os.environ['PATH'])} {OURS}"


@pytest.mark.parametrize("command", [WITHOUT_ENVIRONMENT, f"sh -c {shlex.quote(WITHOUT_ENVIRONMENT + ' & wait')}"])
def test_processes_without_the_mark_are_counted_and_ended(command: str) -> None:
    server = CommandServer(command)
    processes = family(server._mark, server.pid)
    assert processes
    assert server.memory > 50e6
    server.close()
    assert all(wait_until_gone(pid, 5.0) for pid in processes)


def test_orphans_that_end_are_no_zombies() -> None:
    server = CommandServer(f"sh -c {shlex.quote('(sleep 0.1 &) ; ' + OURS)}")
    deadline = threading.Event()
    for _ in range(50):
        guarded = below().get(server.pid, [])
        if len(guarded) == 1:
            break
        deadline.wait(0.1)
    assert len(guarded) == 1, "the server's own"
    server.close()


def test_ports_of_a_server_that_is_still_starting_are_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "LAST_PORT", servers.FIRST_PORT + servers.PORTS)
    first, claim = servers._free_ports()
    with claim, pytest.raises(ServerStartError, match="Found no 3 free ports"):
        servers._free_ports()
    again, claim = servers._free_ports()
    claim.close()
    assert again == first


def test_modules_of_the_folder_are_not_the_servers(tmp_path: Path) -> None:
    """``python -m`` puts the folder first; and what the script finds only by its own path, its server finds too."""
    (tmp_path / "token.py").write_text("raise RuntimeError('the user\\'s own')")
    package = tmp_path / "elsewhere"
    package.mkdir()
    (package / "sb3_carla").symlink_to(Path(servers.__file__).parent)
    code = f"import sys; sys.path[:] = [{str(package)!r}, *(p for p in sys.path if p and 'main' not in p)]\n"
    code += "from sb3_carla.servers import EmbeddedServer; EmbeddedServer('Circuit01').close(); print('started')"
    script = tmp_path / "elsewhere" / "script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "started\n", done.stderr


@pytest.mark.parametrize("command", ["sleep 60 {port}", None], ids=["command", "packaged"])
def test_ctrl_c_while_a_server_starts_leaves_nothing(command: str | None) -> None:
    before = children()
    supervisor = Supervisor(command)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt) as kept:
        supervisor.start("Circuit01")
    supervisor.close()
    assert children() == before
    assert kept.traceback


def test_ctrl_c_in_close_leaves_nothing() -> None:
    server = EmbeddedServer("Circuit01")
    os.kill(server.pid, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        server.close()
    assert wait_until_gone(server.pid, 5.0)
    server.close()
