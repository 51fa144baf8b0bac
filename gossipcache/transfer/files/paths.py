"""File names as the bytes that they are on the disk, and as text for Python (PEP 383)."""

from __future__ import annotations


def path_bytes(text: str) -> bytes:
    """The bytes of a path that a `Disk` gave."""
    return text.encode("utf-8", "surrogateescape")


def path_text(raw: bytes) -> str:
    """The path to give to a `Disk`."""
    return raw.decode("utf-8", "surrogateescape")
