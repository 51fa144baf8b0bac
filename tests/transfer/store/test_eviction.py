from __future__ import annotations

from gossipcache.config import StoreConfig
from gossipcache.ids import TaskId
from tests.transfer.samples import Shop, content_of

BLOCK = 4096


def proposals(shop: Shop, now: float, need_bytes: int = 0) -> list[tuple[TaskId, str]]:
    return [(each.task_id, each.reason) for each in shop.store.evictable(now, need_bytes)]


def test_nothing_goes_while_all_fits(shop: Shop) -> None:
    shop.keep(content_of(BLOCK))
    assert proposals(shop, now=10**9) == []


def test_the_expired_go_first_then_the_idle_then_the_least_recently_used(shop: Shop) -> None:
    shop.config = StoreConfig(quota_bytes=10**6, idle_ttl_s=100.0)
    shop.reopen()
    old, new, expired, idle, pinned, used = (
        shop.keep(content_of(BLOCK), cid=cid, pinned=cid == "pinned", expires_at=expiry)
        for cid, expiry in {
            "old": None,
            "new": None,
            "expired": 1100.0,
            "idle": None,
            "pinned": 1100.0,
            "used": None,
        }.items()
    )
    shop.store.touch(old, 1150.0)
    shop.store.touch(new, 1160.0)
    with shop.store.using(used):
        assert proposals(shop, 1200.0) == [(expired, "expired"), (idle, "idle")]
        assert proposals(shop, 1200.0, need_bytes=10**6) == [
            (expired, "expired"),
            (idle, "idle"),
            (old, "quota"),
            (new, "quota"),
        ]
        assert not shop.store.evict(used)
    assert shop.store.evict(used)
    assert not shop.store.evict(used)
    assert not shop.store.evict(pinned)
    shop.reopen()
    assert {task.task_id for task in shop.store.tasks()} == {old, new, expired, idle, pinned}


def test_what_expires_makes_room_before_anything_else_goes(shop: Shop) -> None:
    shop.config = StoreConfig(quota_bytes=10 * BLOCK)
    shop.reopen()
    expired = shop.keep(content_of(5 * BLOCK), cid="expired", expires_at=1100.0)
    shop.keep(content_of(2 * BLOCK), cid="kept")
    assert proposals(shop, 1200.0, need_bytes=5 * BLOCK) == [(expired, "expired")]
