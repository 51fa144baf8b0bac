"""Reading back what the disk holds: what is suspect at once, the rest once in a long while."""

from __future__ import annotations

import logging

import trio

from gossipcache.errors import GossipcacheError
from gossipcache.ids import TaskId
from gossipcache.node.fetching import announce
from gossipcache.node.housekeeping import repair
from gossipcache.node.services import Services
from gossipcache.transfer.store.index import StoredTask

_log = logging.getLogger(__name__)


async def scrub(services: Services) -> None:
    """Verifies one task after the other for as long as the node runs; mends what is bad.

    Suspect tasks (a rebuilt index, an edited link) come first: nobody is served from them until
    then. A task that was not read back for `scrub_age_s` is, with a pause after each.
    """
    failed: set[TaskId] = set()
    while True:
        before = services.env.wall_time() - services.config.store.scrub_age_s
        task_id = services.store.next_to_verify(before, failed)
        stored = None if task_id is None else services.store.find(task_id)
        if stored is None:
            failed.clear()
        else:
            try:
                await _scrub(services, stored)
            except (GossipcacheError, OSError) as error:
                fields = {"task": stored.task_id, "cause": str(error)}
                _log.warning("a task cannot be read back", extra={"fields": fields})
                failed.add(stored.task_id)
            if stored.suspect:
                continue
        await trio.sleep(services.config.store.gc_interval_s)


async def _scrub(services: Services, stored: StoredTask) -> None:
    task_id = stored.task_id
    bad = await services.env.workers.run(lambda: services.store.verify(task_id))
    if bad or stored.suspect:
        announce(services, task_id)
    if not bad:
        return
    services.metrics.count("pieces_rotten", len(bad))
    fields = {"task": task_id, "pieces": len(bad)}
    _log.warning("stored pieces have rotted", extra={"fields": fields})
    if stored.complete or stored.suspect:
        await repair(services, stored)
