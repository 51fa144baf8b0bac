"""The sessions of a keeper."""

from gossipcache.ids import NodeId, TaskId
from gossipcache.schedule.swarms import Swarms
from gossipcache.schedule.task import Child

TASK = TaskId(bytes(16))


def child(number: int, zone: str) -> Child:
    return Child(
        node_id=NodeId(bytes([number]) * 16),
        task_id=TASK,
        session=1,
        manifest_name=b"m",
        piece_count=4,
        have=1,
        lease_until=1.0,
        zone=zone,
    )


class TestMemory:
    def test_a_peer_that_names_one_zone_after_the_other_leaves_nothing(self) -> None:
        swarms = Swarms()
        swarms.add(child(1, "here"))
        for number in range(100):
            moving = child(2, f"zone {number}")
            swarms.add(moving)
            swarms.remove(moving)
        assert list(swarms.of_task(TASK).givers_in) == ["here"]

    def test_nothing_is_kept_of_a_task_without_sessions(self) -> None:
        swarms = Swarms()
        only = child(1, "here")
        swarms.add(only)
        assert swarms.of_peer(only.node_id) == (only,)
        swarms.remove(only)
        assert swarms.of_peer(only.node_id) == ()
        assert not swarms.of_task(TASK).children
