"""import, stat, export, delete: flags, spellings, output and exit codes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gossipcache.requests import DeleteRequest, ExportRequest, ImportRequest, TaskQuery
from tests.cli.conftest import Run
from tests.fakes.served import Served


@contextmanager
def stdin_of(data: bytes) -> Iterator[None]:
    """Makes `data` what the process reads on descriptor 0."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    saved = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)
    try:
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "name with spaces"
    path.write_bytes(b"content")
    return path


@pytest.mark.parametrize("spelling", [["-I"], ["--input"], []])
def test_import_by_flag_or_positional(
    run: Run, fake: Served, file: Path, spelling: list[str]
) -> None:
    done = run("--format", "json", "import", "-i", "testid", "-t", "testtag", *spelling, str(file))
    assert (done.code, done.err) == (0, "")
    assert done.json["record_copies"] == 3
    assert fake.node.tasks == {("testid", "testtag"): b"content"}


def test_import_passes_every_option(
    run: Run, fake: Served, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    done = run(
        "import", "--cid=x", "--tag=t", "--ttl", "7d", "--replicas", "2", "--pin", "--link",
        "--timeout", "30s", file.name,
    )  # fmt: skip
    assert done.code == 0
    assert fake.node.requests == [
        ImportRequest(
            path=file, cid="x", tag="t", ttl_s=604800, replicas=2, pin=True, link=True, timeout_s=30
        )
    ]


def test_import_of_stdin(run: Run, fake: Served) -> None:
    with stdin_of(b"piped"):
        done = run("--format", "json", "import", "-")
    cid = f"sha256:{hashlib.sha256(b'piped').hexdigest()}"
    assert done.json["cid"] == cid
    assert fake.node.tasks[cid, ""] == b"piped"


def test_import_of_other_content_is_a_conflict(run: Run, fake: Served, file: Path) -> None:
    fake.node.tasks["x", ""] = b"other"
    done = run("--format", "json", "import", "-i", "x", str(file))
    assert (done.code, done.out) == (8, "")
    assert done.err.startswith(
        "error: other content stands under this cid and tag (conflict). TRY: "
    )
    assert done.error["code"] == "conflict"


@pytest.mark.parametrize("spelling", [["-i"], ["--cid"], []])
def test_stat(run: Run, fake: Served, spelling: list[str]) -> None:
    fake.node.tasks["ünï", "t"] = b"12345"
    done = run("--format", "json", "stat", *spelling, "ünï", "-t", "t")
    assert done.code == 0
    fields = (
        "cid tag task_id size digest piece_size pieces publisher owner replicas holders local"
        " expires_at"
    )
    assert set(fields.split()) <= set(done.json)
    assert set(done.json["holders"][0]) == {"node", "name", "address", "pieces", "complete"}
    assert done.err == "warning: only one holder\n"


def test_stat_of_nothing_exits_3(run: Run, fake: Served) -> None:
    done = run("stat", "-i", "testid")
    assert (done.code, done.out) == (3, "")
    assert done.err == (
        "error: no task testid (not found). TRY: check cid and tag, or import the file first.\n"
    )


def test_stat_passes_every_option(run: Run, fake: Served) -> None:
    fake.node.tasks["x", ""] = b""
    run("stat", "x", "-l", "--digest", "blake3:00", "--publisher", "ab", "--timeout", "3s")
    assert fake.node.requests == [(TaskQuery("x", "", "blake3:00", "ab"), True, 3.0)]


def test_export_by_flags_or_positionals(run: Run, fake: Served, tmp_path: Path) -> None:
    fake.node.tasks["x", ""] = b"data"
    assert run("export", "-i", "x", "-O", str(tmp_path / "one")).code == 0
    assert run("export", "x", str(tmp_path / "two")).code == 0
    assert run("export", "-i", "x", str(tmp_path / "three")).code == 0
    assert {path.read_bytes() for path in map(tmp_path.joinpath, ("one", "two", "three"))} == {
        b"data"
    }


def test_export_sends_an_absolute_path_and_the_umask(
    run: Run, fake: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.node.tasks["x", ""] = b"data"
    monkeypatch.chdir(tmp_path)
    previous = os.umask(0o027)
    try:
        done = run(
            "--format", "json", "export", "-i", "x", "-O", "out", "--overwrite", "--link", "-l",
            "--timeout", "0",
        )  # fmt: skip
    finally:
        os.umask(previous)
    assert set(done.json) >= {"path", "size", "seconds", "bytes_by_source", "resumed_bytes"}
    assert fake.node.requests == [
        ExportRequest(
            TaskQuery("x"), tmp_path / "out", local=True, overwrite=True, link=True, umask=0o027
        )
    ]


def test_export_does_not_replace_a_file(run: Run, fake: Served, tmp_path: Path) -> None:
    fake.node.tasks["x", ""] = b"data"
    (tmp_path / "out").write_bytes(b"mine")
    assert run("export", "-i", "x", "-O", str(tmp_path / "out")).code == 8
    assert (tmp_path / "out").read_bytes() == b"mine"


def test_export_to_stdout_prints_the_content_and_nothing_else(run: Run, fake: Served) -> None:
    fake.node.tasks["x", ""] = b"0123456789" * 500
    done = run("--format", "json", "export", "-i", "x", "-O", "-")
    assert done.out == "0123456789" * 500
    assert done.err == '{"path": "-", "size": 5000}\n'


def test_export_to_stdout_that_meets_a_bad_piece_exits_6(run: Run, fake: Served) -> None:
    fake.node.tasks["x", ""] = b"0" * 5000
    fake.node.fail_after = 2000
    done = run("export", "-i", "x", "-O", "-")
    assert (done.code, len(done.out)) == (6, 2000)


def test_interrupted_export_exits_130_and_is_cancelled(
    run: Run, fake: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_ctrl_c(_bar: object, _event: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gossipcache.cli.bar.ProgressBar.__call__", press_ctrl_c)
    fake.node.tasks["x", ""] = b"data"
    fake.node.hang = True
    done = run("export", "-i", "x", "-O", str(tmp_path / "out"))
    assert done.code == 130
    assert done.err.startswith("error: the command was broken off (interrupted). TRY: ")
    assert done.err.count("\n") == 1
    fake.wait_for(fake.node.cancelled)


def test_delete(run: Run, fake: Served) -> None:
    fake.node.tasks["x", "t"] = b"data"
    done = run("--format", "json", "delete", "-i", "x", "-t", "t", "--local", "--force")
    assert (done.code, done.json["pending"]) == (0, [])
    assert len(done.json["confirmed"]) == 1
    assert fake.node.requests == [DeleteRequest(TaskQuery("x", "t"), local=True, force=True)]
    assert run("delete", "-i", "x", "-t", "t").code == 3


def test_delete_that_an_alive_holder_did_not_confirm_exits_7(run: Run, fake: Served) -> None:
    fake.node.tasks["x", ""] = b"data"
    fake.node.pending = ("cd" * 16,)
    done = run("--format", "json", "delete", "-i", "x")
    assert done.code == 7
    assert done.json["pending"] == ["cd" * 16]
    assert done.error["code"] == "partial"


@pytest.mark.parametrize(
    "arguments",
    [
        ["stat"],
        ["stat", "a", "b"],
        ["stat", "-i", "a", "b"],
        ["stat", "-i", ""],
        ["stat", "-i", "x" * 2000],
        ["stat", "--no-such-option", "x"],
        ["export", "x"],
        ["import"],
        ["import", ""],
        ["export", "x", "-O", ""],
        ["import", "-i", "", "file"],
        ["import", "--replicas", "0", "file"],
        ["import", "--ttl", "soon", "file"],
        ["no-such-command"],
        ["--format", "xml", "ls"],
    ],
)
def test_usage_errors_exit_2_on_one_line(run: Run, fake: Served, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert ". TRY: " in done.err
    assert done.err.count("\n") == 1
    assert not fake.node.requests


@pytest.mark.parametrize("at", [0, 3])
def test_the_json_error_is_the_last_line_wherever_format_stands(
    run: Run, fake: Served, at: int
) -> None:
    arguments = ["stat", "-i", "x"]
    arguments[at:at] = ["--format", "json"]
    done = run(*arguments)
    assert done.code == 3
    assert done.error == {
        "code": "not_found",
        "message": "no task x",
        "hint": "check cid and tag, or import the file first",
    }


def test_a_strangers_cid_cannot_steer_the_terminal(run: Run, fake: Served) -> None:
    fake.node.tasks["\x1b[2Jevil", ""] = b"data"
    done = run("--format", "human", "ls")
    assert "\x1b" not in done.out
    assert "\\x1b[2Jevil" in done.out
