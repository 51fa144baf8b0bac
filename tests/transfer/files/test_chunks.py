"""What is written of a chunk that may hold zeros."""

from __future__ import annotations

import pytest

from gossipcache.transfer.files.chunks import write_sparse

MIB = 2**20
ZEROS, DATA, LATE = bytes(MIB), b"\1" * MIB, bytes(MIB - 1) + b"\1"


@pytest.mark.parametrize(
    ("parts", "written"),
    [
        ([DATA, DATA], [(0, 2 * MIB)]),
        ([ZEROS, ZEROS], []),
        ([DATA, ZEROS, LATE, DATA], [(0, MIB), (2 * MIB, 2 * MIB)]),
        ([ZEROS, LATE, ZEROS, b"\0\0"], [(MIB, MIB)]),
        ([ZEROS, b"\0\1"], [(MIB, 2)]),
    ],
)
def test_whole_mebibytes_of_zeros_are_left_out(
    parts: list[bytes], written: list[tuple[int, int]]
) -> None:
    chunk, found = b"".join(parts), []

    def write(offset: int, data: memoryview) -> None:
        assert data == chunk[offset - 10 : offset - 10 + len(data)]
        found.append((offset - 10, len(data)))

    write_sparse(write, 10, memoryview(chunk))
    assert found == written
