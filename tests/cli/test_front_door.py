"""The command as a process: closed and full descriptors, readers that leave, no tracebacks."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gossipcache import __main__ as front_door
from gossipcache.errors import NoSpace, NotPermitted, from_os_error
from tests.cli.conftest import Run
from tests.fakes.served import Served


def shell(fake: Served, line: str) -> subprocess.CompletedProcess[str]:
    """Runs `line` in bash; GC stands for the command on the fake node's home."""
    command = f"{shlex.quote(sys.executable)} -P -m gossipcache --home {fake.home.path}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("GC", command)],
        capture_output=True, text=True, timeout=60, check=False,
        env={name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )  # fmt: skip


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_descriptors_do_not_change_the_outcome(fake: Served, closed: str) -> None:
    fake.node.tasks["x", ""] = b"data"
    found = shell(fake, f"GC stat x {closed}")
    assert (found.returncode, "error" in found.stderr) == (0, False)
    assert shell(fake, f"GC stat y {closed}").returncode == 3


def test_a_full_disk_under_stdout_is_an_error_and_under_stderr_is_not(fake: Served) -> None:
    fake.node.tasks["x", ""] = b"data"
    full = shell(fake, "GC stat x > /dev/full")
    assert full.returncode == NoSpace.exit_code
    assert "No space left on device" in full.stderr
    assert shell(fake, "GC stat x 2> /dev/full").returncode == 0
    assert shell(fake, "GC stat y 2> /dev/full").returncode == 3


def test_a_reader_that_leaves_early_is_no_news(fake: Served) -> None:
    fake.node.tasks["x", ""] = bytes(1_000_000)
    left = shell(fake, "GC export x - | head -c 1 > /dev/null")
    assert (left.returncode, left.stderr) == (1, "")


def test_text_that_is_no_unicode_is_a_usage_error(run: Run, fake: Served, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments in (
        ["stat", "\udcff"],
        ["stat", "x", "-t", "\udcff"],
        ["stat", "x", "--digest", "\udcff"],
        ["import", "-i", "x", "-t", "\udcff", str(tmp_path / "file")],
    ):
        done = run(*arguments)
        assert done.code == 2, done.err
        assert "not valid Unicode" in done.err


def test_ctrl_c_while_the_commands_load_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[object] = []
    set_handler = signal.signal

    def noted(number: int, handler: signal.Handlers) -> object:
        seen.append(handler)
        return set_handler(number, handler)

    monkeypatch.setattr(sys, "argv", ["gossipcache", "--version"])
    monkeypatch.setattr(signal, "signal", noted)
    before = signal.getsignal(signal.SIGINT)
    assert front_door.main() == 0
    assert seen == [signal.SIG_DFL, signal.default_int_handler]
    assert signal.getsignal(signal.SIGINT) is before


def test_what_the_system_refuses_has_its_exit_code() -> None:
    assert isinstance(from_os_error(OSError(errno.ENOSPC, "full")), NoSpace)
    refused = from_os_error(PermissionError(errno.EACCES, "denied", "/root/x"))
    assert isinstance(refused, NotPermitted)
    assert refused.message == "the system refused '/root/x' (denied)"
    assert type(from_os_error(OSError(errno.EIO, "rot"))).exit_code == 1
