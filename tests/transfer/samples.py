"""Content, manifests and stores to test with."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import PurePath

from gossipcache.cluster import LOOPBACK
from gossipcache.config import StoreConfig
from gossipcache.env import Disk
from gossipcache.identity import Identity
from gossipcache.ids import TaskId, task_id_of
from gossipcache.manifest import Manifest, SignedManifest, sign_manifest
from gossipcache.transfer.digest_tree import DigestTree, piece_digest
from gossipcache.transfer.files.ingest import Ingested, StreamIngest, ingest_file
from gossipcache.transfer.store.store import Store

PUBLISHER = Identity(b"p" * 32)
PIECE = 1000
TASK = task_id_of("a cid", "")


def content_of(size: int, seed: int = 0) -> bytes:
    """`size` bytes that depend on `seed`."""
    return random.Random(seed).randbytes(size)


def tree_of(content: bytes, piece_size: int = PIECE) -> DigestTree:
    """The digest tree of `content`."""
    return DigestTree(
        b"".join(
            piece_digest(content[at : at + piece_size]) for at in range(0, len(content), piece_size)
        )
    )


def manifest_of(
    ingested: Ingested, *, generation: int = 1, cid: str = "a cid", copies: int = 1
) -> SignedManifest:
    """The signed manifest of ingested content."""
    return sign_manifest(
        Manifest(
            cluster_id=LOOPBACK.cluster_id,
            task_id=task_id_of(cid, ""),
            cid=cid,
            tag="",
            generation=generation,
            kind="tree" if ingested.listing_digest else "file",
            size=ingested.size,
            listing_size=ingested.listing_size,
            piece_size=ingested.piece_size,
            root=ingested.tree.root,
            digest=ingested.digest,
            created_at=0,
            copies=copies,
        ),
        PUBLISHER,
    )


def manifest_for(content: bytes, *, generation: int = 1, cid: str = "a cid") -> SignedManifest:
    """The signed manifest of `content` in small pieces."""
    digest = piece_digest(content).hex()
    ingested = Ingested(len(content), PIECE, tree_of(content), blake3=digest)
    return manifest_of(ingested, generation=generation, cid=cid)


@dataclass
class Shop:
    """A disk, a store on it, and a clock that stands."""

    disk: Disk
    root: PurePath
    config: StoreConfig = field(default_factory=lambda: StoreConfig(quota_bytes=10**9))
    now: float = 1000.0
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.reopen()

    def reopen(self) -> None:
        """A new process takes the store over."""
        self.store = Store.open(
            self.disk, self.root / "store", lambda: self.now, self.config, mark="1"
        )

    def write_source(self, name: str, content: bytes) -> PurePath:
        """A file of the user's."""
        path = self.root / name
        self.disk.make_folder(path.parent)
        self.disk.remove(path)
        with closing(self.disk.open(path, "create")) as file:
            file.write_at(0, content)
        return path

    def read(self, path: PurePath) -> bytes:
        """What stands at `path`."""
        with closing(self.disk.open(path, "read")) as file:
            return file.read_at(0, file.size())

    def keep(
        self,
        content: bytes,
        *,
        cid: str = "a cid",
        generation: int = 1,
        pinned: bool = False,
        expires_at: float | None = None,
        copies: int = 1,
    ) -> TaskId:
        """Imports `content` as a published task."""
        staging = self.store.stage()
        try:
            stream = StreamIngest(self.disk, staging, want_sha256=False, piece_size=PIECE)
            stream.feed(content)
            ingested = stream.finish()
            signed = manifest_of(ingested, generation=generation, cid=cid, copies=copies)
            self.store.adopt(
                staging,
                signed,
                ingested.tree,
                pinned=pinned,
                expires_at=expires_at,
                published=True,
            )
        finally:
            staging.discard()
        return signed.task_id

    def keep_packed(self, content: bytes, *cids: str) -> list[TaskId]:
        """Imports `content` under each of `cids` at once."""
        packing = self.store.pack()
        try:
            for cid in cids:
                packing.add(manifest_for(content, cid=cid), tree_of(content), content)
            taken = packing.adopt()
        finally:
            packing.discard()
        self.store.mark_all_published(taken)
        return taken

    def keep_linked(self, path: PurePath) -> TaskId:
        """Imports the file at `path` by a hard link."""
        staging = self.store.stage()
        ingested = ingest_file(self.disk, staging, path, piece_size=PIECE, link=True)
        signed = manifest_of(ingested)
        self.store.adopt(staging, signed, ingested.tree, published=True, linked=ingested.linked)
        return signed.task_id

    def content(self, task_id: TaskId = TASK) -> bytes:
        """What the store would serve of a task."""
        task = self.store.require(task_id)
        with closing(self.store.open_data(task_id)) as file:
            return file.read_at(0, task.size if task.packed else file.size())

    def download(self, content: bytes, signed: SignedManifest, pieces: list[int]) -> None:
        """Writes and marks those of `pieces` that are missing, as a download does."""
        have = self.store.require(signed.task_id).have
        pieces = [index for index in pieces if index not in have]
        if not pieces:
            return
        self.write(content, signed, pieces)
        self.store.mark(signed.task_id, pieces, manifest_name=signed.name)

    def write(self, content: bytes, signed: SignedManifest, pieces: list[int]) -> None:
        """Writes `pieces` of a task that is not complete."""
        if self.store.require(signed.task_id).complete:
            return
        with closing(self.store.open_data(signed.task_id)) as file:
            for index in pieces:
                file.write_at(index * PIECE, content[index * PIECE : (index + 1) * PIECE])
