"""Contract: what stands in for encoding, sealing and signing behaves like it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from gossipcache.cluster import cluster_from_secret
from gossipcache.config import ALL_ROLES
from gossipcache.dht.membership.member import Profile, accuse
from gossipcache.errors import IntegrityError
from gossipcache.identity import Signed
from gossipcache.ids import Address, NodeId
from gossipcache.messages.gossip import ACCUSATION_DOMAIN, Accusation, Ping
from sim.bare.wire import RealWire, StandInWire, Wire

CLUSTER = cluster_from_secret(bytes(32))
PROFILE = Profile(CLUSTER.cluster_id, "a", Address("10.0.0.1", 7100), ALL_ROLES)
SUBJECT = NodeId(bytes(16))


@pytest.fixture(params=[lambda: RealWire(CLUSTER), StandInWire], ids=["real", "stand-in"])
def wire(request: pytest.FixtureRequest) -> Wire:
    made: Callable[[], Wire] = request.param
    return made()


def ping(wire: Wire, sequence: int = 1) -> Ping:
    identity = wire.identity(bytes(32))
    return Ping(
        cluster_id=CLUSTER.cluster_id,
        sender=identity.node_id,
        records=(PROFILE.sign(identity, 7, "active").record,),
        accusations=(accuse(identity, CLUSTER.cluster_id, SUBJECT, 3, "dead"),),
        sequence=sequence,
        target=bytes(16),
        incarnation=7,
        view=bytes(8),
    )


def test_a_datagram_arrives_as_it_was_sent(wire: Wire) -> None:
    sealed, _ = wire.seal(ping(wire), random.Random(1))
    assert wire.open(sealed) == ping(wire)


def test_both_are_equally_long() -> None:
    real, stand_in = RealWire(CLUSTER), StandInWire()
    rng = random.Random(1)
    assert real.seal(ping(real), rng)[1] == stand_in.seal(ping(stand_in), rng)[1]
    assert real.length(ping(real)) == stand_in.length(ping(stand_in))


def test_a_signed_record_is_read(wire: Wire) -> None:
    identity = wire.identity(b"k" * 32)
    signed = PROFILE.sign(identity, 7, "active")
    assert (len(signed.public_key), len(signed.record.signature)) == (32, 64)
    assert wire.verifier(CLUSTER.cluster_id, 10).member(signed.record) == signed


@pytest.mark.parametrize("part", ["payload", "key", "signature"])
def test_an_altered_record_is_void(wire: Wire, part: str) -> None:
    record = PROFILE.sign(wire.identity(b"k" * 32), 7, "active").record
    fields = {"payload": record.payload, "key": record.key, "signature": record.signature}
    fields[part] = bytes((fields[part][0] ^ 1,)) + fields[part][1:]
    with pytest.raises(IntegrityError):
        wire.verifier(CLUSTER.cluster_id, 10).member(Signed(**fields))


def test_a_signature_is_void_in_another_domain_and_for_another_accused(wire: Wire) -> None:
    identity = wire.identity(b"k" * 32)
    verifier = wire.verifier(CLUSTER.cluster_id, 10)
    record = PROFILE.sign(identity, 7, "active").record
    with pytest.raises(IntegrityError):
        verifier.verify(record, ACCUSATION_DOMAIN)
    true = accuse(identity, CLUSTER.cluster_id, SUBJECT, 3, "suspect")
    verifier.accusation(true, identity.public_key)
    false = Accusation(true.subject, 3, "dead", true.accuser, true.signature)
    with pytest.raises(IntegrityError):
        verifier.accusation(false, identity.public_key)
