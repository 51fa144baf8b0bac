"""The limits of one connection's requests hold however the remote uses them."""

from __future__ import annotations

import pytest

from gossipcache.errors import Busy, ProtocolError
from gossipcache.link.rpc import MAX_CALLS, Abandoned, Call, Dropped, Effect, Failed, RpcCore, Send
from gossipcache.messages.link import Cancel, Failure, Reply, Request
from gossipcache.wire import decode, encode
from tests.link.harness import Answer, Ask


def core() -> RpcCore:
    return RpcCore({"test_ask": Ask})


def asked(call_id: int) -> bytes:
    return encode(Request(id=call_id, body={"t": "test_ask", "text": "x"}))


def cancelled(call_id: int) -> bytes:
    return encode(Cancel(id=call_id))


def sent(effects: list[Effect]) -> Reply | Failure:
    (send,) = (effect for effect in effects if isinstance(effect, Send))
    answer: Reply | Failure = decode(send.data, Reply | Failure)  # type: ignore[arg-type]
    return answer


def test_a_request_counts_until_its_answer_is_on_its_way() -> None:
    rpc = core()
    for number in range(1, MAX_CALLS + 1):
        assert isinstance(rpc.receive(asked(number))[0], Call)
        assert sent(rpc.reply(number, Answer(text="y"))).id == number
    assert rpc.receive(asked(1000))[0] == Dropped("busy")
    rpc.done(1)
    assert isinstance(rpc.receive(asked(1000))[0], Call)


def test_a_request_that_is_taken_back_counts_until_its_work_has_ended() -> None:
    rpc = core()
    for number in range(1, MAX_CALLS + 1):
        rpc.receive(asked(number))
        assert rpc.receive(cancelled(number)) == [Abandoned(number)]
        assert rpc.receive(cancelled(number)) == []
    assert rpc.receive(asked(1000))[0] == Dropped("busy")
    assert rpc.reply(1, Answer(text="y")) == []
    with pytest.raises(ProtocolError, match="in use"):
        rpc.receive(asked(1))
    rpc.done(1)
    assert isinstance(rpc.receive(asked(1))[0], Call)


def test_an_error_is_told_by_its_code() -> None:
    asker, answerer = core(), core()
    call_id, data = asker.request(Ask(text="x"), Answer)
    answerer.receive(data)
    (send,) = answerer.fail(call_id, Busy("later"))
    assert isinstance(send, Send)
    (failed,) = asker.receive(send.data)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, Busy)
