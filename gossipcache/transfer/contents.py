"""The proof of small content, all of which is in memory."""

from __future__ import annotations

import hashlib

from blake3 import blake3

from gossipcache.manifest import Manifest, SignedManifest
from gossipcache.transfer.digest_tree import DigestTree


def proven_tree(signed: SignedManifest, data: bytes) -> DigestTree | None:
    """The digest tree of `data` if it is the whole content that `signed` names; None if not."""
    manifest = signed.manifest
    tree = matching_tree(manifest, data)
    return tree if tree is not None and _is_whole(manifest, data, tree) else None


def matching_tree(manifest: Manifest, data: bytes) -> DigestTree | None:
    """The digest tree of `data` if its pieces are those of `manifest`, by the root; None if not."""
    size = manifest.piece_size
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    tree = DigestTree(b"".join(blake3(piece).digest() for piece in pieces))
    return tree if len(data) == manifest.size and tree.root == manifest.root else None


def _is_whole(manifest: Manifest, data: bytes, tree: DigestTree) -> bool:
    scheme, _, expected = manifest.digest.partition(":")
    if scheme == "blake3" and tree.piece_count == 1:
        return tree.piece(0).hex() == expected  # the whole is one piece
    if scheme == "sha256":
        return hashlib.sha256(data).hexdigest() == expected
    return scheme == "blake3" and blake3(data).hexdigest() == expected
