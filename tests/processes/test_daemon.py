"""Real node processes: start, stop, signals, locks, auto-start."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gossipcache.client import ControlClient
from gossipcache.home import Home
from tests.processes.cluster import LIMIT_S, open_links

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def command(home: Home, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "gossipcache", "--home", str(home.path), *arguments]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    if home.is_held():
        subprocess.run(command(home, "node", "stop"), check=True, capture_output=True)


@pytest.fixture
def run(home: Home, tmp_path: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(home, *arguments),
            capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=tmp_path,
        )  # fmt: skip

    return run


@pytest.fixture
def foreground(home: Home) -> Iterator[subprocess.Popen[str]]:
    arguments = command(home, "node", "run", "--listen", "127.0.0.1:0", "--name", "n")
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def ready_line(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    word, *fields = process.stdout.readline().split()
    assert word == "ready"
    return dict(field.split("=", 1) for field in fields)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_says_ready_and_ends_in_order(
    foreground: subprocess.Popen[str], home: Home, number: signal.Signals
) -> None:
    ready = ready_line(foreground)
    assert ready["control"] == str(home.control_path)
    assert ready["listen"].startswith("127.0.0.1:")
    assert not ready["listen"].endswith(":0")
    assert stat.S_IMODE(home.key_path.stat().st_mode) == 0o600
    foreground.send_signal(number)
    assert foreground.wait(LIMIT_S) == 0
    assert not home.control_path.exists()
    assert home.running() is None


def test_a_second_node_on_one_home_is_refused(foreground: subprocess.Popen[str], run: Run) -> None:
    ready_line(foreground)
    for verb in ("run", "start"):
        refused = run("--format", "json", "node", verb)
        assert refused.returncode == 1
        assert json.loads(refused.stderr.splitlines()[-1])["error"]["code"] == "home_in_use"
    assert run("node", "status").returncode == 0


def test_start_status_stop(run: Run, home: Home) -> None:
    started = run("--format", "json", "node", "start", "--name", "bg", "--log-format", "json")
    assert started.returncode == 0, started.stderr
    assert json.loads(started.stdout)["name"] == "bg"
    status = json.loads(run("--format", "json", "node", "status").stdout)
    assert status["listen"] == json.loads(started.stdout)["listen"]
    assert os.getsid(status["pid"]) == status["pid"], "a session of its own"
    assert run("node", "stop").returncode == 0
    assert run("node", "status").returncode == 4
    events = [json.loads(line) for line in home.log_path.read_text().splitlines()]
    assert {"ready", "stopping"} <= {event["event"] for event in events}
    seed = home.node_seed().hex()
    assert seed not in home.log_path.read_text()


def test_start_tells_why_it_cannot(run: Run) -> None:
    refused = run("node", "start", "--listen", "0.0.0.0:0")
    assert refused.returncode == 10
    assert "cluster init" in refused.stderr
    assert run("node", "start", "--listen", "nonsense").returncode == 2


def test_with_a_secret_a_node_may_listen_everywhere(run: Run) -> None:
    assert run("cluster", "init").returncode == 0
    started = run("node", "start", "--listen", "0.0.0.0:0", "--advertise", "127.0.0.1:1")
    assert started.returncode == 0, started.stderr


def test_a_lone_node_starts_by_itself_and_gives_way(run: Run, home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    imported = run("--format", "json", "import", "-i", "x", "file")
    assert imported.returncode == 0, imported.stderr
    assert imported.stderr.startswith("starting a node")
    running = home.running()
    assert running is not None
    assert running.mode == "auto"
    assert running.listen is None
    assert not inherited(running.pid, tmp_path)

    assert run("node", "start").returncode == 0
    taken = home.running()
    assert taken is not None
    assert taken.mode == "background"
    exported = run("export", "-i", "x", "-O", "out")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "out").read_bytes() == b"content"


def inherited(pid: int, outside: Path) -> list[str]:
    """What the process has open that is neither its own nor in its home."""
    known = ("anon_inode:", "socket:", "pipe:", "/dev/null", "/dev/urandom", str(outside / "home"))
    return [link for link in open_links(pid) if not link.startswith(known)]


def test_commands_at_the_same_time_start_one_node(home: Home) -> None:
    waiting = [
        subprocess.Popen(command(home, "ls"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=LIMIT_S) for process in waiting]
    assert [process.returncode for process in waiting] == [0, 0, 0]
    assert sum(err.startswith(b"starting a node") for _, err in outputs) == 1


def test_a_lone_node_ends_when_idle(home: Home) -> None:
    environment = os.environ | {"GOSSIPCACHE_IDLE_END_S": "200ms"}
    done = subprocess.run(command(home, "ls"), env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert home.wait_free(LIMIT_S)


def test_a_killed_node_leaves_a_home_that_starts_again(run: Run, home: Home) -> None:
    assert run("node", "start").returncode == 0
    running = home.running()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    assert home.wait_free(LIMIT_S)
    assert run("node", "status").returncode == 4
    assert run("node", "start").returncode == 0


def test_http_on_tcp_needs_token_and_host(run: Run, home: Home) -> None:
    import http.client

    assert run("node", "start", "--http", "127.0.0.1:0").returncode == 0
    running = home.running()
    assert running is not None
    assert running.http is not None
    token = {"Authorization": f"Bearer {home.http_token()}"}

    def get(path: str, headers: dict[str, str], method: str = "GET", body: Any = None) -> int:
        connection = http.client.HTTPConnection(running.http or "", timeout=LIMIT_S)
        connection.request(method, path, body, headers)
        status = connection.getresponse().status
        connection.close()
        return status

    assert get("/v1/status", token) == 200
    assert get("/v1/status", {}) == 403
    assert get("/v1/status", {"Authorization": "Bearer wrong"}) == 403
    assert get("/v1/status", token | {"Host": "evil.example"}) == 403
    assert get("/v1/status", token | {"Origin": "http://evil.example"}) == 403
    assert get("/health", {}) == 200
    body = json.dumps({"path": "/etc/passwd"})
    assert get("/v1/tasks", token, "POST", body) == 403


def test_stop_is_quick_in_the_middle_of_an_import(run: Run, home: Home, tmp_path: Path) -> None:
    assert run("node", "start").returncode == 0
    with subprocess.Popen(
        command(home, "import", "-i", "x", "-"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as importing:  # fmt: skip
        assert importing.stdin is not None
        importing.stdin.write(bytes(1_000_000))
        importing.stdin.flush()
        assert run("node", "stop").returncode == 0
        assert not home.control_path.exists(), "it ended in order: nobody waited for the content"
        importing.stdin.close()
        assert importing.wait(LIMIT_S) in (4, 130)
    assert run("node", "start").returncode == 0
    assert not ControlClient(home).call("GET", "/v1/tasks")["tasks"], "no half task is shown"
