"""The journal: what was synced survives a crash, what is damaged is told apart from a torn tail."""

from __future__ import annotations

import random
from pathlib import PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache import journal as journal_module
from gossipcache.errors import IntegrityError, UsageError, VersionUnsupported
from gossipcache.journal import MAX_KEY_BYTES, Change, Journal
from tests.fakes.disk import MemoryDisk

PATH = PurePath("/home/records/journal")
BAD = PurePath("/home/records/journal.bad")


def opened(disk: MemoryDisk) -> Journal:
    return Journal.open(disk, PATH)


def test_what_was_put_is_there_after_reopening() -> None:
    disk = MemoryDisk()
    first = opened(disk)
    first.put(b"a", b"1")
    first.put(b"b", b"2")
    first.put(b"a", b"3")
    first.delete(b"b")
    first.delete(b"never there")
    first.close()

    again = opened(disk)
    assert dict(again.items()) == {b"a": b"3"}
    assert again.get(b"a") == b"3"
    assert again.get(b"b") is None
    assert len(again) == 1
    assert b"a" in again


def test_a_batch_costs_one_sync() -> None:
    disk = MemoryDisk()
    log = opened(disk)
    before = disk.syncs
    log.write([(bytes([number]), b"value") for number in range(100)])
    assert disk.syncs == before + 1


def test_a_batch_applies_in_order() -> None:
    log = opened(MemoryDisk())
    log.write([(b"a", b"1"), (b"a", None), (b"b", b"1"), (b"b", b"2")])
    assert dict(log.items()) == {b"b": b"2"}


Changes = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"b", b"c"]),
        st.none() | st.binary(max_size=40),
        st.booleans(),
    ),
    max_size=20,
)


@settings(max_examples=80)
@given(changes=Changes, seed=st.integers(0, 10**6))
def test_a_crash_loses_only_a_tail_of_what_was_not_synced(
    changes: list[tuple[bytes, bytes | None, bool]], seed: int
) -> None:
    disk = MemoryDisk()
    log = opened(disk)
    states: list[dict[bytes, bytes]] = [{}]
    durable = 0
    for key, value, sync in changes:
        log.write([(key, value)], sync)
        state = dict(states[-1])
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value
        states.append(state)
        durable = len(states) - 1 if sync else durable

    disk.crash(random.Random(seed))

    again = opened(disk)
    assert dict(again.items()) in states[durable:]
    again.put(b"new", b"entry")
    assert opened(disk).get(b"new") == b"entry"


def test_a_torn_tail_is_cut_off() -> None:
    disk = MemoryDisk()
    log = opened(disk)
    log.put(b"a", b"1")
    whole = disk.contents(PATH)
    log.put(b"b", b"2")
    disk.overwrite(PATH, disk.contents(PATH)[:-1])

    assert dict(opened(disk).items()) == {b"a": b"1"}
    assert disk.contents(PATH) == whole


def test_damage_to_what_was_durable_is_told_and_kept() -> None:
    disk = MemoryDisk()
    log = opened(disk)
    log.put(b"a", b"first value")
    log.put(b"b", b"second value")
    damaged = disk.contents(PATH).replace(b"first value", b"worst value")
    disk.overwrite(PATH, damaged)

    with pytest.raises(IntegrityError, match=str(PATH)):
        opened(disk)
    assert disk.contents(BAD) == damaged
    assert len(opened(disk)) == 0


def test_a_damaged_length_does_not_hide_what_follows() -> None:
    disk = MemoryDisk()
    log = opened(disk)
    log.put(b"a", b"first value")
    length_at = len(disk.contents(PATH)) - len(b"first value") - 1 - 3 - 8 - 8 - 4
    log.put(b"b", b"second value")
    damaged = bytearray(disk.contents(PATH))
    damaged[length_at : length_at + 4] = b"\xff\xff\xff\xff"
    disk.overwrite(PATH, bytes(damaged))

    with pytest.raises(IntegrityError):
        opened(disk)


def test_a_second_damage_does_not_replace_the_first_copy() -> None:
    disk = MemoryDisk()
    for content in (b"garbage one", b"garbage two"):
        disk.overwrite(PATH, content)
        with pytest.raises(IntegrityError):
            opened(disk)
    assert disk.contents(BAD) == b"garbage one"
    assert disk.contents(PurePath(f"{BAD}1")) == b"garbage two"


def test_a_newer_format_is_refused_and_left_alone() -> None:
    disk = MemoryDisk()
    opened(disk).put(b"a", b"1")
    newer = bytearray(disk.contents(PATH))
    newer[len(b"gossipcache-log") + 1] = 2
    disk.overwrite(PATH, bytes(newer))

    with pytest.raises(VersionUnsupported, match="format 2"):
        opened(disk)
    assert disk.contents(PATH) == bytes(newer)


def test_garbage_is_compacted_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_MIN_BYTES", 1000)
    disk = MemoryDisk()
    log = opened(disk)
    log.put(b"keep", b"x" * 200)
    for number in range(200):
        log.put(b"counter", number.to_bytes(8, "big"))

    assert len(disk.contents(PATH)) < 1200
    assert dict(log.items()) == {b"keep": b"x" * 200, b"counter": (199).to_bytes(8, "big")}
    assert dict(opened(disk).items()) == dict(log.items())


def test_a_failed_write_changes_nothing() -> None:
    disk = MemoryDisk()
    log = opened(disk)
    log.put(b"a", b"1")
    disk.fail_next("write")
    with pytest.raises(OSError, match="write"):
        log.put(b"a", b"2")
    assert log.get(b"a") == b"1"
    log.put(b"a", b"3")
    assert opened(disk).get(b"a") == b"3"


def test_after_a_failed_sync_nothing_more_is_promised() -> None:
    disk = MemoryDisk()
    log = opened(disk)
    disk.fail_next("sync")
    with pytest.raises(OSError, match="sync"):
        log.put(b"a", b"1")
    with pytest.raises(OSError, match="earlier sync"):
        log.put(b"a", b"1")
    log.close()


def test_a_value_gone_bad_after_opening_is_told() -> None:
    disk = MemoryDisk()
    log = opened(disk)
    log.put(b"a", b"value")
    disk.overwrite(PATH, disk.contents(PATH).replace(b"value", b"VALUE"))
    with pytest.raises(IntegrityError, match="gone bad"):
        log.get(b"a")


def test_oversized_keys_are_refused() -> None:
    log = opened(MemoryDisk())
    with pytest.raises(UsageError):
        log.put(bytes(MAX_KEY_BYTES + 1), b"")
    assert len(log) == 0


def test_many_entries_reopen_whole() -> None:
    disk = MemoryDisk()
    log = opened(disk)
    entries = {number.to_bytes(4, "big"): bytes(300) for number in range(30_000)}
    log.write(entries.items())
    assert dict(opened(disk).items()) == entries


def test_what_was_written_is_told_in_order_as_the_log_is_opened() -> None:
    disk = MemoryDisk()
    journal = Journal.open(disk, PATH)
    changes: list[Change] = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"b", None)]
    journal.write(changes)
    journal.close()
    told: list[Change] = []
    again = Journal.open(disk, PATH, lambda key, value: told.append((key, value)))
    assert told == changes
    assert list(again.items()) == [(b"a", b"3")]
    again.close()
