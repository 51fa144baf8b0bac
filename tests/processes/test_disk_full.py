"""A real file system that fills up in the middle of a real download."""

from __future__ import annotations

import filecmp
import subprocess
from pathlib import Path

import pytest

from gossipcache.errors import NoSpace
from tests.processes.cluster import Background, Node, cluster_in, random_file, wait_until

MIB = 2**20
SIZE, DISK = 12 * MIB, 24 * MIB
IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
MOUNT = f'mount -t tmpfs -o size={DISK} tmpfs "$0" && exec "$@"'


def can_mount(folder: Path) -> bool:
    """Whether this machine lets its users mount a file system of their own."""
    command = [*IN_A_NAMESPACE, "sh", "-c", MOUNT, str(folder), "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def write_on_and_on(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def stored_pieces(node: Node) -> int:
    return sum(int(task["pieces_present"]) for task in node.list())


def test_an_export_ends_with_no_space_and_resumes_when_there_is_room(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("users of this machine may not mount; tests/node has the same on virtual time")
    environment = {
        "GOSSIPCACHE_TRANSFER_PIECE_SIZE_BYTES": "64KiB",
        "GOSSIPCACHE_TRANSFER_BITMAP_INTERVAL_S": "0.05",
    }
    output, limits = tmp_path / "out" / "file", "/v1/limits"
    output.parent.mkdir()
    with cluster_in(tmp_path / "nodes", environment) as cluster:
        (seed,) = cluster.start(1)
        source = random_file(tmp_path / "source", SIZE)
        seed.import_file(source, "big")

        small = cluster.make()
        small.home.prepare()
        store = small.home.path / "store"
        store.mkdir()
        small.spawn(seed.address, prefix=(*IN_A_NAMESPACE, "sh", "-c", MOUNT, str(store)))
        small.await_ready()
        small.expect_members(2)

        small.client.call("PUT", limits, body={"download_rate": "1MiB/s"})
        export = Background(lambda: small.export("big", output))
        wait_until(lambda: stored_pieces(small) > 8, "some pieces are there")
        # The process's own view of the folder, where the file system is mounted.
        ballast = Path(f"/proc/{small.pid}/root{store}/ballast")
        with pytest.raises(OSError, match="No space left"):
            write_on_and_on(ballast)
        with pytest.raises(NoSpace):
            export.result()
        assert list(output.parent.iterdir()) == []

        ballast.unlink()
        small.client.call("PUT", limits, body={"download_rate": "none"})
        result = small.export("big", output)
        assert filecmp.cmp(source, output, shallow=False)
        assert 0 < result["resumed_bytes"] < SIZE
