"""One file to several nodes at once, and from several: beside libtorrent, bare sockets, nginx."""

from __future__ import annotations

import shutil
import statistics
from contextlib import ExitStack
from functools import partial

from bench.contenders import Contender
from bench.crowds import Uploads, bare_crowd, gossipcache_crowd, libtorrent_crowd
from bench.measure import interleave, make_file, ratios, summarise
from bench.report import Job, Report
from bench.web import curls_at_once, has_nginx, nginx

OURS = "gossipcache export --link"
LABELS = {
    "libtorrent": "libtorrent default",
    "libtorrent_best": "libtorrent best",
    "bare_sockets": "bare sockets",
    "nginx_curl": "nginx + curl",
}
AT_LEAST = {"ratio_vs_libtorrent_best": 2.5, "ratio_vs_bare_sockets": 0.9}


def one_to_many(job: Job) -> Report:
    """Four nodes fetch from one at the same time."""
    return _crowd("one-to-many", job, givers=1, takers=4)


def one_to_eight(job: Job) -> Report:
    """Eight nodes fetch from one at the same time, and feed each other."""
    return _crowd("one-to-eight", job, givers=1, takers=8)


def many_to_one(job: Job) -> Report:
    """One node fetches what four hold."""
    return _crowd("many-to-one", job, givers=4, takers=1)


def many_to_one_slow(job: Job) -> Report:
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
        samples = interleave(
            contenders, job.runs, job.say, warm_bytes=job.size_bytes, cold=job.to_forget
        )
    return Report(
        name="many-to-one-slow",
        size_bytes=job.size_bytes,
        runs=job.runs,
        summaries=[summarise(name, found, job.size_bytes) for name, found in samples.items()],
        ratios=ratios(samples, slow, {"all_fast": OURS}),
        at_least={"ratio_vs_all_fast": 0.9},
        ours={"": "one giver slow"},
        theirs={"all_fast": "all fast"},
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
        if givers == 1 and shutil.which("curl") and has_nginx(job.say):
            web = stack.enter_context(nginx(file, folder))
            contenders["nginx + curl"] = partial(curls_at_once, web, takers)
        moved_bytes = takers * job.size_bytes
        samples = interleave(
            contenders, job.runs, job.say, warm_bytes=moved_bytes, cold=job.to_forget
        )
    return Report(
        name=job.titled(name),
        size_bytes=job.size_bytes,
        runs=job.runs,
        summaries=[summarise(name, found, moved_bytes) for name, found in samples.items()],
        ratios={
            **ratios(samples, OURS, LABELS),
            "first_giver_uploads_copies": round(statistics.median(uploads.copies), 2),
        },
        at_least=AT_LEAST if takers > 1 else {},
        at_most={"first_giver_uploads_copies": 1.5} if takers >= 8 else {},
        ours={"": "`--link`"},
        theirs=LABELS,
    )
