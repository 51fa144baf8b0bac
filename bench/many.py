"""One file to several nodes at once, and from several: beside libtorrent and bare sockets."""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from bench.contenders import Contender
from bench.crowds import Uploads, bare_crowd, gossipcache_crowd, libtorrent_crowd
from bench.measure import interleave, make_file, ratios, summarise
from bench.report import Job, Report

OURS = "gossipcache export --link"
LABELS = {
    "libtorrent": "libtorrent default",
    "libtorrent_best": "libtorrent best",
    "bare_sockets": "bare sockets",
}


def one_to_four(job: Job) -> Report:
    """Four nodes fetch from one at the same time."""
    return _crowd("one-to-four", job, givers=1, takers=4)


def one_to_eight(job: Job) -> Report:
    """Eight nodes fetch from one at the same time, and feed each other."""
    return _crowd("one-to-eight", job, givers=1, takers=8)


def four_to_one(job: Job) -> Report:
    """One node fetches what four hold."""
    return _crowd("four-to-one", job, givers=4, takers=1)


def four_to_one_slow(job: Job) -> Report:
    """The same beside four of which one sends only 1 MB/s: what that costs."""
    folder, file, slow = job.folder, job.folder / "file", f"{OURS}, one giver slow"
    make_file(file, job.size_bytes)
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {
            name: stack.enter_context(
                gossipcache_crowd(file, folder, givers=4, takers=1, slow=name == slow)
            )
            for name in (OURS, slow)
        }
        samples = interleave(contenders, job.runs, job.say)
    return Report(
        name="four-to-one-slow",
        size_bytes=job.size_bytes,
        runs=job.runs,
        summaries=[summarise(name, found, job.size_bytes) for name, found in samples.items()],
        ratios=ratios(samples, slow, {"all_fast": OURS}),
    )


def _crowd(name: str, job: Job, *, givers: int, takers: int) -> Report:
    folder, python = job.folder, job.rivals_python()
    file, uploads = folder / "file", Uploads()
    make_file(file, job.size_bytes)
    with ExitStack() as stack:
        ours = gossipcache_crowd(file, folder, givers=givers, takers=takers, uploads=uploads)
        contenders: dict[str, Contender] = {OURS: stack.enter_context(ours)}
        for profile in ("default", "best"):
            rival = libtorrent_crowd(file, folder, python, profile, givers=givers, takers=takers)
            contenders[f"libtorrent {profile}"] = stack.enter_context(rival)
        bare = bare_crowd(file, folder, givers=givers, takers=takers)
        contenders["bare sockets"] = stack.enter_context(bare)
        samples = interleave(contenders, job.runs, job.say)
    moved_bytes = takers * job.size_bytes
    return Report(
        name=name,
        size_bytes=job.size_bytes,
        runs=job.runs,
        summaries=[summarise(name, found, moved_bytes) for name, found in samples.items()],
        ratios={
            **ratios(samples, OURS, LABELS),
            "first_giver_uploads_copies": round(statistics.median(uploads.copies), 2),
        },
    )
