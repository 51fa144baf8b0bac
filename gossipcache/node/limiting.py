"""The limits of this node's transfers: seen, and changed while it runs.

A change holds until the node ends; the next start begins with what its settings say.
"""

from __future__ import annotations

from gossipcache.ids import TaskId, task_id_of
from gossipcache.node.services import Services
from gossipcache.requests import LimitsChange, TaskLimitsChange, TaskQuery
from gossipcache.results import LimitsView, TaskLimits


def limits(services: Services) -> LimitsView:
    """What holds now."""
    held = services.limits
    named = sorted({**held.upload.task_rates, **held.download.task_rates})
    return LimitsView(
        upload_rate=held.upload.rate,
        download_rate=held.download.rate,
        task_upload_rate=held.upload.task_rate,
        task_download_rate=held.download.task_rate,
        max_uploads=held.slots.total,
        uploads_running=held.slots.running,
        uploads_waiting=held.slots.waiting,
        tasks=tuple(_task_limits(services, task_id) for task_id in named),
    )


def _task_limits(services: Services, task_id: TaskId) -> TaskLimits:
    held, stored = services.limits, services.store.find(task_id)
    return TaskLimits(
        task_id=task_id.hex(),
        cid="" if stored is None else stored.signed.manifest.cid,
        tag="" if stored is None else stored.signed.manifest.tag,
        upload_rate=held.upload.rate_of(task_id),
        download_rate=held.download.rate_of(task_id),
    )


def change_limits(services: Services, wanted: LimitsChange) -> LimitsView:
    """New limits for the node; what holds then."""
    services.limits.change(wanted)
    return limits(services)


def change_task_limits(
    services: Services, query: TaskQuery, wanted: TaskLimitsChange
) -> LimitsView:
    """New limits for one task, whether it is here or only will be; what holds then."""
    services.limits.change_task(task_id_of(query.cid, query.tag), wanted)
    return limits(services)
