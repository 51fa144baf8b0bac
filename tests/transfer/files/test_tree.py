from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache.errors import ProtocolError
from gossipcache.transfer.files.tree import (
    MAX_ENTRIES,
    FileEntry,
    FolderEntry,
    LinkEntry,
    Listing,
    TreeEntry,
    decode_listing,
    encode_listing,
    listing_of,
)
from gossipcache.wire import decode, encode

ZERO = bytes(32)


def a_file(path: bytes, size: int = 1) -> FileEntry:
    return FileEntry(path, size, False, ZERO)


def test_a_listing_survives_the_wire() -> None:
    entries: list[TreeEntry] = [
        a_file(b"b/\xff not unicode"),
        FileEntry(b"a", 0, True, ZERO),
        FolderEntry(b"b/empty"),
        LinkEntry(b"b/link", b"../a"),
    ]
    listing = listing_of(entries)
    assert decode_listing(encode_listing(listing)) == listing
    assert [entry.path for entry in listing.entries] == [
        b"a",
        b"b/empty",
        b"b/link",
        b"b/\xff not unicode",
    ]
    assert listing.content_size == 1


names = st.sampled_from([b"a", b"b", b"a-", b"a.b", b"c"])
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)


@settings(max_examples=60)
@given(st.sets(paths, max_size=6))
def test_any_set_of_paths_is_a_tree_or_refused(chosen: set[bytes]) -> None:
    clashing = any(
        other.startswith(path + b"/") for path in chosen for other in chosen if other != path
    )
    entries = [a_file(path) for path in chosen]
    if clashing:
        with pytest.raises(ProtocolError):
            listing_of(entries)
    else:
        assert decode_listing(encode_listing(listing_of(entries))) == listing_of(entries[::-1])


@pytest.mark.parametrize(
    "path",
    [b"..", b"../x", b"a/../b", b"/etc/passwd", b"a//b", b"a/", b".", b"./a", b"a\0b", b"x" * 256],
)
@pytest.mark.parametrize("kind", [a_file, FolderEntry, lambda path: LinkEntry(path, b"x")])
def test_a_path_that_is_not_plain_is_refused(path: bytes, kind: type[FolderEntry]) -> None:
    with pytest.raises(ProtocolError):
        decode_listing(encode(Listing(1, (kind(path),))))


@pytest.mark.parametrize(
    "target", [b"/etc", b"..", b"../../x", b"x/../y", b"d/../../x", b"./../..", b"a\0"]
)
def test_a_link_that_may_lead_out_is_refused(target: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_listing(encode(Listing(1, (LinkEntry(b"link", target),))))


@pytest.mark.parametrize("target", [b"x", b"../x", b"..", b"../.", b"./x/y", b"../other/x"])
def test_a_link_that_stays_inside_is_kept(target: bytes) -> None:
    listing = listing_of([LinkEntry(b"folder/link", target)])
    assert decode_listing(encode_listing(listing)) == listing


@pytest.mark.parametrize(
    "entries",
    [
        (a_file(b"b"), a_file(b"a")),
        (a_file(b"a"), a_file(b"a")),
        (a_file(b"a"), FolderEntry(b"a")),
        (LinkEntry(b"a", b"."), a_file(b"a/b")),
        (FolderEntry(b"a"), a_file(b"a/b")),
        (a_file(b"a"), a_file(b"a/b/c")),
    ],
)
def test_entries_that_meet_or_are_out_of_order_are_refused(
    entries: tuple[TreeEntry, ...],
) -> None:
    with pytest.raises(ProtocolError):
        decode_listing(encode(Listing(1, entries)))


def test_bytes_that_are_no_listing_are_refused() -> None:
    for garbage in (b"", b"\x00", b"\x82\x02\x80", b"\x82\x01\x81\x81\x05"):
        with pytest.raises(ProtocolError):
            decode_listing(garbage)


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, 1000, 1001, 2500])
def test_any_number_of_entries_is_decoded(count: int) -> None:
    listing = listing_of(a_file(b"%05d" % number, number) for number in range(count))
    encoded = encode_listing(listing)
    assert decode_listing(encoded) == listing == decode(encoded, Listing, len(encoded))
    for wrong in (encoded[:-1], encoded + b"\0"):
        with pytest.raises(ProtocolError):
            decode_listing(wrong)


@pytest.mark.parametrize("size", range(49))
def test_a_listing_cut_off_is_refused(size: int) -> None:
    encoded = encode_listing(listing_of([a_file(b"a"), LinkEntry(b"b", b"a")]))
    with pytest.raises(ProtocolError):
        decode_listing(encoded[:size])


def test_a_listing_cannot_unfold_to_many_times_its_size() -> None:
    empty_arrays = b"\x80" * 2**20
    for hostile in (
        b"\x82\x01\x9a\x00\x10\x00\x00" + empty_arrays,
        b"\x82\x01\x81\x82\x01\x9a\x00\x10\x00\x00" + empty_arrays,
        b"\x82\x01\x9a" + (MAX_ENTRIES + 1).to_bytes(4, "big") + b"\x82\x01\x41a" * 10,
        b"\x82\x01\x81\x82\x01\x5b" + b"\xff" * 8,
    ):
        tracemalloc.start()
        with pytest.raises(ProtocolError):
            decode_listing(hostile)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 2**20


def test_a_listing_in_another_form_is_refused() -> None:
    entry = b"\x82\x01\x41a"
    assert decode_listing(b"\x82\x01\x81" + entry)
    for wrong in (
        b"\x82\x01\x98\x01" + entry,
        b"\x82\x18\x01\x81" + entry,
        b"\x82\x01\x9f" + entry + b"\xff",
        b"\x82\x02\x81" + entry,
        b"\x82\x01\x81\x82\x01\x58\x01a",
        b"\x82\x01\x81\x82\x18\x01\x41a",
        b"\x82\x01\x81\x82\x01\xc2\x41a",
    ):
        with pytest.raises(ProtocolError):
            decode_listing(wrong)
