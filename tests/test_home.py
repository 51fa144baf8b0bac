"""The home folder: modes, versions, locks, secrets."""

from __future__ import annotations

import os
import stat
from itertools import pairwise
from pathlib import Path

import pytest

from gossipcache.errors import Conflict, HomeInUse, IntegrityError, NotPermitted, UsageError
from gossipcache.errors import VersionUnsupported as Newer
from gossipcache.home import Home, RunningNode, socket_name
from gossipcache.keyfiles import decode_cluster, encode_cluster, new_cluster, write_private


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_is_for_the_owner_only(home: Home) -> None:
    previous = os.umask(0)
    try:
        home.node_seed()
        home.write_cluster(new_cluster(), replace=False)
        home.http_token()
    finally:
        os.umask(previous)
    assert mode(home.path) == 0o700
    assert [mode(path) for path in (home.key_path, home.cluster_path, home.token_path)] == [
        0o600
    ] * 3


def test_an_open_home_is_closed_to_others(home: Home) -> None:
    home.path.chmod(0o755)
    home.prepare()
    assert mode(home.path) == 0o700


def test_a_folder_with_another_purpose_is_left_alone(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    (shared / "thesis.tex").touch()
    with pytest.raises(NotPermitted, match="not a home"):
        Home(shared).prepare()
    assert mode(shared) == 0o755
    (shared / "config.toml").touch()
    Home(shared).prepare()
    assert mode(shared) == 0o700


def test_the_key_is_made_once_and_stays(home: Home) -> None:
    seed = home.node_seed()
    assert len(seed) == 32
    assert home.node_seed() == seed


def test_a_key_that_others_can_read_is_refused(home: Home) -> None:
    home.node_seed()
    home.key_path.chmod(0o644)
    with pytest.raises(NotPermitted, match="others can read") as caught:
        home.node_seed()
    assert "chmod 600" in caught.value.hint


def test_a_damaged_key_is_no_new_identity(home: Home) -> None:
    write_private(home.key_path, b"half a k")
    with pytest.raises(IntegrityError):
        home.node_seed()


def test_a_newer_home_is_refused(home: Home) -> None:
    write_private(home.path / "version", b"2\n")
    with pytest.raises(Newer, match="format version '2'"):
        home.prepare()


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not a folder"):
        Home(tmp_path / "file").prepare()


def test_one_node_at_a_time(home: Home) -> None:
    assert not home.is_held()
    with home.locked():
        home.write_running(RunningNode(4242, "foreground", "127.0.0.1:1", None))
        assert home.is_held()
        with pytest.raises(HomeInUse, match="4242"), home.locked():
            pass
    assert not home.is_held()
    assert home.running() is None


def test_a_cluster_file_reads_back(home: Home) -> None:
    cluster = new_cluster("publisher")
    home.write_cluster(cluster, replace=False)
    assert home.cluster() == cluster
    with pytest.raises(Conflict):
        home.write_cluster(new_cluster(), replace=False)
    assert home.cluster() == cluster


def test_each_step_of_a_rotation_understands_the_one_before() -> None:
    old = new_cluster()
    begun = old.rotated("begin")
    switched = begun.rotated("switch")
    finished = switched.rotated("finish")
    for earlier, later in pairwise((old, begun, switched, finished)):
        assert earlier.secrets[0] in later.secrets
        assert later.secrets[0] in earlier.secrets
    assert finished.secrets != old.secrets
    assert finished.cluster_id == old.cluster_id


def test_steps_of_a_rotation_are_taken_in_turn() -> None:
    old = new_cluster()
    for cluster, step in ((old, "switch"), (old, "finish"), (old.rotated("begin"), "begin")):
        with pytest.raises(Conflict):
            cluster.rotated(step)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"version": 1}', b'{"version": 1, "cluster_id": "00", "secrets": []}',
     b'{"version": 1, "cluster_id": "0011223344556677", "secrets": ["00"]}'],
)  # fmt: skip
def test_damaged_cluster_files_are_refused(data: bytes) -> None:
    with pytest.raises(UsageError):
        decode_cluster(data, "FILE")


def test_a_newer_cluster_file_is_refused() -> None:
    newer = encode_cluster(new_cluster()).replace(b'"version": 1', b'"version": 3')
    with pytest.raises(Newer):
        decode_cluster(newer, "FILE")


def test_short_names_of_sockets(tmp_path: Path) -> None:
    with socket_name(Path("/run/x.sock")) as name:
        assert name == "/run/x.sock"
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with socket_name(deep / "x.sock") as name:
        assert len(name) <= 100
        Path(name).write_text("here")
    assert (deep / "x.sock").read_text() == "here"
