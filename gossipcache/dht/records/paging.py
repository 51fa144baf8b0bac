"""How many entries go into one message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gossipcache.dht.records.standing import Standing
from gossipcache.messages.records import MAX_ENTRIES, RecordEntry

PAGE_BYTES = 56 * 1024


def entry_bytes(entry: RecordEntry) -> int:
    """How long an entry is on the wire, at most."""
    parts = entry.manifests if entry.tombstone is None else (*entry.manifests, entry.tombstone)
    return 32 + sum(len(one.payload) + len(one.signature) + 48 for one in parts)


def batches(standings: Iterable[Standing]) -> Iterator[list[Standing]]:
    """Cuts into messages of bounded size."""
    batch: list[Standing] = []
    size = 0
    for standing in standings:
        length = entry_bytes(standing.entry)
        if batch and (size + length > PAGE_BYTES or len(batch) == MAX_ENTRIES):
            yield batch
            batch, size = [], 0
        batch.append(standing)
        size += length
    if batch:
        yield batch
