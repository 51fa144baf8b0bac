"""Fault schedules are data."""

from __future__ import annotations

import msgspec
import pytest

from sim.faults import KINDS, AnyFault, Kill, Partition, Restart, kind_of
from sim.injection.applying import applied_kinds


def test_the_catalogue_is_large_and_every_kind_can_be_applied() -> None:
    assert len(KINDS) >= 50
    assert applied_kinds() == set(KINDS.values())
    for name, kind in KINDS.items():
        assert name.replace("-", "") == kind.__name__.lower()
        assert kind.__doc__


def test_a_schedule_survives_json() -> None:
    schedule: list[AnyFault] = [
        Kill(at_s=1.5, node="n1"),
        Partition(at_s=2.0, island=("n1", "n2"), for_s=30.0, one_way=True),
        Restart(at_s=9.0, node="n1", wiped=True),
    ]
    encoded = msgspec.json.encode(schedule)
    assert msgspec.json.decode(encoded, type=list[AnyFault]) == schedule
    assert [kind_of(fault) for fault in schedule] == ["kill", "partition", "restart"]


@pytest.mark.parametrize("text", ['[{"kind":"kill"}]', '[{"kind":"meteor","node":"n1"}]', "{}"])
def test_a_wrong_schedule_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=list[AnyFault])
