"""What only the real network has to mind; tests/contract says what every network does."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from gossipcache.ids import Address
from gossipcache.network import COPIED_IN_A_THREAD_BYTES, TrioNetwork


async def test_a_socket_keeps_its_number_while_a_thread_reads_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, released = threading.Event(), threading.Event()
    numbers: list[bool] = []

    def slow_readv(descriptor: int, buffers: Sequence[memoryview]) -> int:
        begun.set()
        released.wait(10)
        numbers.append(os.path.exists(f"/proc/self/fd/{descriptor}"))
        return os.preadv(descriptor, buffers, -1)

    port = await TrioNetwork().bind(Address("127.0.0.1", 0))
    sender = await TrioNetwork().dial(port.address)
    receiver = await port.accept()
    monkeypatch.setattr(os, "readv", slow_readv)
    received: list[int] = []

    async def receive() -> None:
        received.append(
            await receiver.receive_into(memoryview(bytearray(COPIED_IN_A_THREAD_BYTES)))
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await sender.send_all(b"piece")
        await trio.to_thread.run_sync(begun.wait)
        nursery.start_soon(receiver.aclose)
        await trio.testing.wait_all_tasks_blocked()
        released.set()
    assert (numbers, received) == ([True], [5])
    await sender.aclose()
    await port.aclose()
