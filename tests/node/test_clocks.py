"""The clocks of the others, as one node sees them."""

from __future__ import annotations

from tests.node.cluster import World, in_cluster


def test_clocks_that_agree_show_no_skew_beyond_the_round_trip() -> None:
    async def test(world: World) -> None:
        views = await world.on("n0", lambda node: node.clocks())
        assert sorted(view.name for view in views) == ["n1", "n2"]
        assert all(abs(view.skew_s) <= view.within_s + 0.001 for view in views)

    in_cluster(test)


def test_who_does_not_answer_is_left_out() -> None:
    async def test(world: World) -> None:
        await world.kill("n2")
        views = await world.on("n0", lambda node: node.clocks())
        assert [view.name for view in views] == ["n1"]

    in_cluster(test)
