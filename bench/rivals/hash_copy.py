"""hash_copy.py blake3|sha256 SOURCE TARGET: reads once, hashes, writes, fsyncs; one thread."""

from __future__ import annotations

import hashlib
import os
import sys

CHUNK_BYTES = 2**20


def main(scheme: str, source: str, target: str) -> None:
    if scheme == "blake3":
        from blake3 import blake3

        state = blake3()
    else:
        state = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with open(source, "rb", buffering=0) as file, open(target, "wb", buffering=0) as copy:
        while count := file.readinto(buffer):
            state.update(buffer[:count])
            copy.write(buffer[:count])
        os.fsync(copy.fileno())
    state.hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
