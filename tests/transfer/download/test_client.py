from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import PurePath

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from trio.testing import MockClock

from gossipcache.errors import IntegrityError, NoSpace, TaskNotFound
from gossipcache.ids import task_id_of
from gossipcache.link.interface import PieceChannel
from gossipcache.manifest import SignedManifest, sign_manifest
from gossipcache.messages.pieces import GetPages, OpenTask, Page, TaskOpened
from gossipcache.requests import LimitsChange
from gossipcache.transfer.download import sink, whole_digest
from gossipcache.transfer.download.buffers import Buffers
from gossipcache.transfer.download.outcome import DownloadProgress
from gossipcache.transfer.download.whole_digest import WholeDigest
from sim.storage.disk import SimDisk, SimFile
from tests.fakes.channels import ChannelBoard, Wire
from tests.transfer.samples import PIECE, PUBLISHER, TASK, Shop, content_of, manifest_for, tree_of
from tests.transfer.swarm_nodes import FakeSwarm, SwarmNode

CONTENT = content_of(20 * PIECE + 1)
SIGNED = manifest_for(CONTENT)


@pytest.fixture
def board(nursery: trio.Nursery) -> ChannelBoard:
    return ChannelBoard(nursery)


@pytest.fixture
def child(board: ChannelBoard) -> SwarmNode:
    return SwarmNode(board, "c")


def holder(board: ChannelBoard, name: str, wire: Wire | None = None) -> SwarmNode:
    """A node that has the task and serves it."""
    node = SwarmNode(board, name)
    node.shop.keep(CONTENT)
    node.serve(wire or Wire(piece_s=0.1))
    return node


def is_whole(node: SwarmNode) -> bool:
    stored = node.store.find(TASK)
    return stored is not None and stored.complete and node.shop.content() == CONTENT


async def test_downloads_from_several_parents_and_reports_it(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    parents = [holder(board, name) for name in "ab"]
    swarm = FakeSwarm(*(parent.node_id for parent in parents))
    outcome = await child.downloader.download(SIGNED, swarm)
    assert is_whole(child)
    assert sum(outcome.bytes_by_source.values()) == len(CONTENT)
    assert set(outcome.bytes_by_source) == {parent.node_id for parent in parents}
    assert sorted(swarm.reported) == list(range(21))
    assert sum(report.size_bytes for report in swarm.reports) == len(CONTENT)
    assert swarm.failures == []


async def test_each_piece_is_handed_over_once_while_hot(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    parent = holder(board, "a")
    output = bytearray(len(CONTENT))

    def on_piece(index: int, data: memoryview) -> None:
        assert not any(output[index * PIECE : index * PIECE + len(data)])
        output[index * PIECE : index * PIECE + len(data)] = data

    progress: list[DownloadProgress] = []
    await child.downloader.download(
        SIGNED, FakeSwarm(parent.node_id), on_piece=on_piece, on_progress=progress.append
    )
    assert output == CONTENT
    assert [step.done_bytes for step in progress] == sorted(step.done_bytes for step in progress)
    assert (progress[0].done_bytes, progress[-1].done_bytes) == (0, len(CONTENT))


@pytest.mark.parametrize(("is_read", "expected"), [(False, 21), (True, 0)])
async def test_what_nobody_reads_goes_past_the_cache(
    board: ChannelBoard,
    child: SwarmNode,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    is_read: bool,
    expected: int,
) -> None:
    past_cache: list[int] = []

    def write_past_cache(file: SimFile, offset: int, data: memoryview) -> None:
        past_cache.append(offset)
        file.write_at(offset, data)

    monkeypatch.setattr(sink, "LARGE_FILE_BYTES", len(CONTENT))
    monkeypatch.setattr(SimFile, "write_past_cache", write_past_cache)
    parent = holder(board, "a")
    with child.downloader.arrivals.reading(TASK) if is_read else nullcontext():
        await child.downloader.download(SIGNED, FakeSwarm(parent.node_id))
    assert is_whole(child)
    assert len(past_cache) == expected


async def test_an_empty_task_needs_no_parent(child: SwarmNode, autojump_clock: MockClock) -> None:
    signed = manifest_for(b"")
    await child.downloader.download(signed, FakeSwarm())
    stored = child.store.find(TASK)
    assert stored is not None
    assert stored.complete


async def test_a_lying_parent_changes_nothing_but_the_source(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    liar = holder(board, "a", Wire(tamper=lambda piece: bytes(len(piece))))
    honest = holder(board, "b", Wire(piece_s=0.5))
    swarm = FakeSwarm(liar.node_id, honest.node_id)
    outcome = await child.downloader.download(SIGNED, swarm)
    assert is_whole(child)
    assert set(outcome.bytes_by_source) == {honest.node_id}
    assert [parent for parent, _ in swarm.failures] == [liar.node_id]
    assert child.metrics.value("pieces_bad") >= 1


async def test_a_lie_about_the_digest_tree_is_found_out(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    async def lie(channel: PieceChannel) -> None:
        assert isinstance(await channel.receive(), OpenTask)
        await channel.send(TaskOpened(complete=True))
        assert isinstance(await channel.receive(), GetPages)
        await channel.send(Page(level=0, index=0, data=bytes(21 * 32)))
        await trio.sleep_forever()

    liar, honest = SwarmNode(board, "a"), holder(board, "b")
    board.serve(liar.node_id, lie)
    swarm = FakeSwarm(liar.node_id)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.downloader.download, SIGNED, swarm)
        await trio.sleep(50)
        assert board.dialled == [liar.node_id]
        swarm.assign(liar.node_id, honest.node_id)
    assert is_whole(child)


async def test_when_a_parent_dies_the_rest_comes_from_another(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    first, second = holder(board, "a"), holder(board, "b")
    swarm = FakeSwarm(first.node_id)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.downloader.download, SIGNED, swarm)
        await trio.sleep(0.75)
        await board.kill(first.node_id)
        await trio.sleep(20)
        swarm.assign(second.node_id)
    assert is_whole(child)
    assert child.metrics.value("pieces_received") == 21
    assert swarm.failures[0] == (first.node_id, "the connection broke")


async def test_a_parent_that_dies_as_another_download_ends_is_asked_for_nothing_more(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    content = content_of(4 * PIECE)
    first, second = SwarmNode(board, "a"), SwarmNode(board, "b")
    for node in (first, second):
        node.shop.keep(content)
        node.serve(Wire(piece_s=0.1))
    swarm = FakeSwarm(first.node_id)
    child.downloader.buffers = Buffers(child.shop.disk.buffer, limit_bytes=4 * PIECE)
    async with trio.open_nursery() as nursery:
        with child.downloader.buffers.download():  # Half of the buffers are for the other one.
            nursery.start_soon(child.downloader.download, manifest_for(content), swarm)
            await trio.sleep(0.05)
        await board.kill(first.node_id)
        await trio.sleep(1)
        swarm.assign(second.node_id)
    assert child.shop.content() == content


async def test_a_frozen_parent_loses_its_pieces_to_others(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    wire = Wire(piece_s=0.1)
    first, second = holder(board, "a", wire), holder(board, "b")
    wire.frozen = True
    with trio.fail_after(25):
        await child.downloader.download(SIGNED, FakeSwarm(first.node_id, second.node_id))
    assert is_whole(child)


async def test_goes_on_where_it_was_interrupted(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    parent = holder(board, "a")
    with trio.move_on_after(0.75):
        await child.downloader.download(SIGNED, FakeSwarm(parent.node_id))
    got = child.metrics.value("pieces_received")
    assert 0 < got < 21
    assert isinstance(child.shop.disk, SimDisk)
    child.shop.reopen()
    child.downloader.store = child.shop.store
    outcome = await child.downloader.download(SIGNED, FakeSwarm(parent.node_id))
    assert outcome.resumed_bytes == got * PIECE
    assert child.metrics.value("pieces_received") == 21


async def test_progress_is_durable_while_it_runs(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    parent = holder(board, "a", Wire(piece_s=1.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.downloader.download, SIGNED, FakeSwarm(parent.node_id))
        await trio.sleep(10.5)
        stored = child.store.find(TASK)
        assert stored is not None
        assert stored.have.count >= 8
        nursery.cancel_scope.cancel()


async def test_a_child_serves_what_it_has_before_it_is_durable(
    board: ChannelBoard, autojump_clock: MockClock
) -> None:
    parent = holder(board, "a", Wire(piece_s=1.0))
    first, second = SwarmNode(board, "b"), SwarmNode(board, "c")
    first.serve()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.downloader.download, SIGNED, FakeSwarm(parent.node_id))
        await trio.sleep(0.5)
        outcome = await second.downloader.download(SIGNED, FakeSwarm(first.node_id))
    assert is_whole(first)
    assert is_whole(second)
    assert set(outcome.bytes_by_source) == {first.node_id}


async def test_a_deleted_task_ends_the_download(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    parent = holder(board, "a", Wire(piece_s=1.0))
    swarm = FakeSwarm(parent.node_id)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call_after, 3.5, swarm.delete)
        with pytest.raises(TaskNotFound):
            await child.downloader.download(SIGNED, swarm)


async def test_a_task_deleted_from_the_store_ends_the_download(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    parent = holder(board, "a", Wire(piece_s=1.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call_after, 3.5, lambda: child.store.remove(TASK))
        with pytest.raises(TaskNotFound):
            await child.downloader.download(SIGNED, FakeSwarm(parent.node_id))


async def call_after(delay_s: float, call: Callable[[], object]) -> None:
    await trio.sleep(delay_s)
    call()


async def test_what_on_piece_raises_ends_the_download(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    parent = holder(board, "a")

    def on_piece(_index: int, _data: memoryview) -> None:
        raise NoSpace("the disk is full")

    with pytest.raises(NoSpace):
        await child.downloader.download(SIGNED, FakeSwarm(parent.node_id), on_piece=on_piece)


@pytest.mark.parametrize("honest", [True, False])
async def test_a_sha256_cid_is_verified_end_to_end(
    board: ChannelBoard, child: SwarmNode, honest: bool, autojump_clock: MockClock
) -> None:
    digest = f"sha256:{hashlib.sha256(CONTENT if honest else b'other').hexdigest()}"
    signed = resigned(digest)
    parent = SwarmNode(board, "a")
    parent.store.begin(signed, tree_of(CONTENT))
    parent.shop.download(CONTENT, signed, list(range(21)))
    parent.serve()
    swarm = FakeSwarm(parent.node_id)
    if honest:
        await child.downloader.download(signed, swarm)
    else:
        with pytest.raises(IntegrityError):
            await child.downloader.download(signed, swarm)
    stored = child.store.find(signed.task_id)
    assert stored is not None
    assert stored.complete == honest


async def test_a_digest_that_the_user_named_is_verified_too(
    board: ChannelBoard, child: SwarmNode, autojump_clock: MockClock
) -> None:
    signed = resigned(f"blake3:{bytes(32).hex()}", cid="a cid")
    parent = SwarmNode(board, "a")
    parent.store.begin(signed, tree_of(CONTENT))
    parent.shop.download(CONTENT, signed, list(range(21)))
    parent.serve()
    with pytest.raises(IntegrityError):
        await child.downloader.download(signed, FakeSwarm(parent.node_id), check_digest=True)


def resigned(digest: str, cid: str | None = None) -> SignedManifest:
    """The manifest of `CONTENT` with another statement about the digest of the whole."""
    cid = cid or digest
    manifest = replace(SIGNED.manifest, digest=digest, cid=cid, task_id=task_id_of(cid, ""))
    return sign_manifest(manifest, PUBLISHER)


@settings(max_examples=30)
@given(order=st.permutations(range(8)), present=st.sets(st.integers(0, 7)), kept=st.integers(0, 3))
def test_the_whole_digest_takes_pieces_in_any_order(
    order: list[int], present: set[int], kept: int
) -> None:
    content = content_of(7 * PIECE + 5)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    manifest = replace(manifest_for(content).manifest, digest=digest)
    shop = Shop(SimDisk(), PurePath("/home"))
    path = shop.write_source("data", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole_digest, "_KEPT_BYTES", kept * PIECE)
        whole = WholeDigest(manifest, shop.disk.open(path, "read"), shop.disk.buffer)
    whole.found(sorted(present))
    for index in order:
        if index not in present:
            whole.feed(index, memoryview(content)[index * PIECE : (index + 1) * PIECE])
    whole.check()


def test_buffers_are_shared_between_downloads() -> None:
    buffers = Buffers(SimDisk().buffer, limit_bytes=16 * 100)
    with buffers.download():
        assert buffers.share(100) == 16
        assert buffers.share(1000) == 1
        assert buffers.share(1) == 32
        with buffers.download():
            assert buffers.share(100) == 8
        first = buffers.take(100)
        buffers.give(first)
        assert buffers.take(100) is first


async def test_many_children_of_a_slow_parent_with_one_slot_wait_and_all_get_their_task(
    board: ChannelBoard, autojump_clock: MockClock
) -> None:
    parent, content = SwarmNode(board, "p"), content_of(3 * PIECE)
    parent.shop.keep(content)
    parent.serve(Wire(piece_s=12.0))
    parent.limits.change(LimitsChange(max_uploads=1))
    children, signed = [SwarmNode(board, name) for name in "abcdef"], manifest_for(content)
    async with trio.open_nursery() as downloads:
        for child in children:
            swarm = FakeSwarm(parent.node_id)
            downloads.start_soon(child.downloader.download, signed, swarm)
    assert all(child.shop.content() == content for child in children)
    assert [child.metrics.value("parents_dropped") for child in children] == [0] * 6
    assert len(board.dialled) == 6, "nobody had to come back"
    assert trio.current_time() < 1.02 * 6 * 3 * 12.0
