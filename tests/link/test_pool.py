from __future__ import annotations

import pytest
import trio

from gossipcache.cluster import cluster_from_secret
from gossipcache.errors import (
    GossipcacheError,
    NodeUnreachable,
    NotPermitted,
    ProtocolError,
    TimedOut,
)
from tests.link.harness import Answer, Ask, dial, make_node, serving


async def test_requests_go_both_ways_over_one_connection() -> None:
    one, two = make_node(1), make_node(2)
    async with serving(one, two):
        assert await one.ask(two, "hello") == "HELLO"
        assert await two.ask(one, "back") == "BACK"
        assert one.metrics.value("link_opened") == two.metrics.value("link_opened") == 1


async def test_many_requests_at_once_dial_once_and_find_their_answers() -> None:
    one, two = make_node(1), make_node(2)
    answers: dict[int, str] = {}

    async def ask(number: int) -> None:
        answers[number] = await one.ask(two, f"n{number}")

    async with serving(one, two):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, number)
        assert answers == {number: f"N{number}" for number in range(100)}
        assert two.metrics.value("link_opened") == 1


async def test_simultaneous_dials_are_fine() -> None:
    one, two = make_node(1), make_node(2)
    async with serving(one, two), trio.open_nursery() as nursery:
        nursery.start_soon(one.ask, two)
        nursery.start_soon(two.ask, one)


async def test_a_notice_arrives() -> None:
    one, two = make_node(1), make_node(2)
    async with serving(one, two):
        await one.pool.notify(two.node_id, Ask(text="news"))
        await one.ask(two, "after")
        assert two.told == ["news", "after"]


async def test_errors_of_the_handler_are_raised_at_the_caller() -> None:
    one, two = make_node(1), make_node(2)
    async with serving(one, two):
        with pytest.raises(NotPermitted, match="forbidden") as caught:
            await one.ask(two, "forbidden")
        assert caught.value.hint == "ask for something else"
        with pytest.raises(GossipcacheError, match="failed inside"):
            await one.ask(two, "crash")
        assert await one.ask(two, "alive") == "ALIVE"


async def test_an_unanswered_kind_and_an_unfitting_reply_are_protocol_errors() -> None:
    one, two = make_node(1), make_node(2)
    async with serving(one, two):
        with pytest.raises(ProtocolError, match="does not answer"):
            await one.pool.request(two.node_id, Answer(text="?"), Answer, 5)
        with pytest.raises(ProtocolError, match="does not fit"):
            await one.pool.request(two.node_id, Ask(text="x"), Ask, 5)
        with pytest.raises(ProtocolError, match="limit"):
            await one.ask(two, "x" * 70_000)
        assert await one.ask(two, "alive") == "ALIVE"


async def test_a_caller_that_gives_up_cancels_the_handler() -> None:
    one, two = make_node(1), make_node(2)
    async with serving(one, two):
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.ask, two, "sleep")
                await two.started.wait()
                nursery.cancel_scope.cancel()
            await two.cancelled.wait()
        assert await one.ask(two, "alive") == "ALIVE"


async def test_a_request_times_out() -> None:
    one, two = make_node(1), make_node(2)
    async with serving(one, two):
        with pytest.raises(TimedOut):
            await one.ask(two, "sleep", timeout_s=0.05)


async def test_a_refused_dial_is_told() -> None:
    one, two = make_node(1), make_node(2)
    async with serving(two):
        pass
    async with serving(one):
        one.knows(two)
        with pytest.raises(NodeUnreachable):
            await one.ask(two)
    assert one.refused == [two.node_id]


async def test_an_unknown_node_is_unreachable() -> None:
    one = make_node(1)
    async with serving(one):
        with pytest.raises(NodeUnreachable, match="no address"):
            await one.pool.request(make_node(2).node_id, Ask(text=""), Answer, 5)


async def test_another_key_at_the_address_is_not_the_node() -> None:
    one, two, three = make_node(1), make_node(2), make_node(3)
    async with serving(one, two):
        one.addresses[three.node_id] = one.addresses[two.node_id]
        with pytest.raises(NodeUnreachable, match="another node"):
            await one.ask(three)
        assert await one.ask(two) == "HI"


async def test_a_seed_is_asked_by_its_address_and_its_connection_is_kept() -> None:
    one, two = make_node(1), make_node(2)
    async with serving(one, two):
        assert two.address is not None
        for _ in range(2):
            peer, answer = await one.pool.request_address(two.address, Ask(text="x"), Answer, 5)
            assert (peer.node_id, answer.text) == (two.node_id, "X")
        assert await one.ask(two) == "HI"
        assert two.metrics.value("link_opened") == 1


async def test_a_node_that_dials_itself_is_told_so() -> None:
    one = make_node(1)
    async with serving(one):
        assert one.address is not None
        with pytest.raises(ProtocolError, match="own key"):
            await one.pool.request_address(one.address, Ask(text="x"), Answer, 5)


async def test_pending_requests_fail_at_once_when_the_node_goes() -> None:
    one, two = make_node(1), make_node(2)
    async with serving(one), trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(NodeUnreachable), trio.fail_after(5):
                await one.ask(two, "sleep", timeout_s=60)

        async with serving(two):
            one.knows(two)
            nursery.start_soon(ask)
            await two.started.wait()


async def test_a_wrong_secret_is_not_admitted() -> None:
    one = make_node(1, cluster=cluster_from_secret(b"a" * 32, cluster_id=b"same"))
    two = make_node(2, cluster=cluster_from_secret(b"b" * 32, cluster_id=b"same"))
    async with serving(one, two):
        with pytest.raises(NotPermitted, match="not admitted"):
            await one.ask(two)
    assert two.told == []


async def test_a_stream_that_sends_nothing_is_dropped(autojump_clock: object) -> None:
    one = make_node(1)
    async with serving(one):
        async with await dial(one) as stream:
            assert await stream.receive_some() == b""
        assert one.metrics.value("link_rejected_timeout") == 1
