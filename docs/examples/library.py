"""The library in one sitting: `python docs/examples/library.py`."""

import tempfile
from pathlib import Path

import trio

from gossipcache import AsyncCache, Cache, open_node
from gossipcache.errors import Conflict, TaskNotFound


async def main(folder: Path) -> None:
    """Two nodes inside this program, one file, and a look through the other node's socket."""
    (folder / "model.bin").write_bytes(b"weights " * 100_000)

    async with (
        open_node(folder / "a", name="a", listen="127.0.0.1:0") as a,
        open_node(folder / "b", name="b", join=(await address_of(a),)) as b,
    ):
        imported = await a.import_file(folder / "model.bin", "model", "v1")
        print("imported", imported.size, "bytes as", imported.digest)

        found = await b.stat("model", "v1")
        print("b sees it on", [holder.name for holder in found.holders])

        exported = await b.export("model", folder / "copy.bin", "v1")
        print("b fetched it from", exported.bytes_by_source)
        print("a range of it:", await b.read("model", 8, 7, "v1"))

        try:
            await b.import_bytes(b"something else", "model", "v1")
        except Conflict as error:
            print("refused:", error.message)

        await b.delete("model", "v1")
        try:
            await a.stat("model", "v1")
        except TaskNotFound:
            print("gone everywhere")


async def address_of(cache: AsyncCache) -> str:
    """Where the cache's own node listens: another node joins there."""
    (member,) = await cache.members()
    return member.address


def beside() -> None:
    """The same verbs, synchronous, on a node that runs as a process of its own."""
    cache = Cache()  # starts a lone node if none runs
    name = cache.import_bytes(b"hello").cid
    with cache.open(name) as file:
        print(file.read())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        trio.run(main, Path(temporary))
