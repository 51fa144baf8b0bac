"""The scenarios have each a name of its own."""

from __future__ import annotations

import pytest

from sim.registry import Drive, register, scenarios


def test_a_name_is_given_once() -> None:
    known = scenarios()
    taken = next(iter(known))

    def drive(_asked: Drive) -> None: ...

    with pytest.raises(ValueError, match=taken):
        register(taken, 3, "Another one.", drive)
    assert scenarios() == known
