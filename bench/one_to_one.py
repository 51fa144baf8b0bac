"""One node to another over loopback: gossipcache beside BitTorrent, HTTP and bare sockets.

Same is compared with same: what returns before the disk has it (a default export, libtorrent, curl,
bare sockets) and what waits for that (`export --sync`, bare sockets and curl with a sync).
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.aria2 import aria2_torrent
from bench.contenders import Contender, bare_sockets, gossipcache, libtorrent
from bench.measure import cpu_ratio, interleave, make_file, ratios, summarise
from bench.report import Job, Report
from bench.web import has_nginx, http_contenders, nginx

LABELS = {
    "libtorrent": "libtorrent default",
    "libtorrent_best": "libtorrent best",
    "bare_sockets": "bare sockets x 1",
    "bare_sockets_2": "bare sockets x 2",
    "bare_synced": "bare sockets x 1, synced",
    "bare_synced_2": "bare sockets x 2, synced",
    "bare_two_files": "bare sockets x 1, two files",
    "bare_two_files_2": "bare sockets x 2, two files",
    "nginx_curl": "nginx + curl",
    "nginx_curl_synced": "nginx + curl, synced",
    "nginx_curl_sha256sum": "nginx + curl, sha256sum",
    "aria2_http": "nginx + aria2 x 4, checksum",
    "aria2_torrent": "aria2 BitTorrent",
}
OURS = {
    "": "gossipcache export",
    "link_": "gossipcache export --link",
    "link_sync_": "gossipcache export --link --sync",
    "sha256_": "gossipcache export, sha256",
}
IN_WORDS = {
    "": "the default export",
    "link_": "`--link`",
    "link_sync_": "`--link --sync`",
    "sha256_": "an export by sha256",
}
AT_LEAST = {
    "link_ratio_vs_libtorrent": 4.0,
    "link_ratio_vs_libtorrent_best": 2.0,
    "link_ratio_vs_nginx_curl": 1.4,
    "link_ratio_vs_bare_sockets": 0.9,
    "link_ratio_vs_bare_sockets_2": 0.9,
    "link_sync_ratio_vs_bare_synced": 0.9,
    "link_sync_ratio_vs_bare_synced_2": 0.9,
    "ratio_vs_bare_two_files": 0.9,
    "ratio_vs_bare_two_files_2": 0.9,
}
AT_MOST = {"link_cpu_vs_bare_sockets": 1.3}


def one_to_one(job: Job) -> Report:
    """Copies one file by each contender in turn, `job.runs` times over."""
    folder = job.folder
    file = folder / "file"
    make_file(file, job.size_bytes)
    with ExitStack() as stack:
        contenders = {
            **stack.enter_context(gossipcache(file, folder)),
            **_rivals(stack, job, file),
        }
        samples = interleave(
            contenders, job.runs, job.say, warm_bytes=2 * job.size_bytes, cold=job.to_forget
        )
    return Report(
        name=job.titled("one-to-one"),
        size_bytes=job.size_bytes,
        runs=job.runs,
        summaries=[summarise(name, found, job.size_bytes) for name, found in samples.items()],
        ratios={
            f"{prefix}{name}": value
            for prefix, ours in OURS.items()
            for name, value in ratios(samples, ours, LABELS).items()
        }
        | {
            f"link_cpu_vs_{label}": cpu_ratio(samples, OURS["link_"], LABELS[label])
            for label in ("bare_sockets", "bare_sockets_2")
        },
        at_least=AT_LEAST,
        at_most=AT_MOST,
        ours=IN_WORDS,
        theirs=LABELS,
    )


def _rivals(stack: ExitStack, job: Job, file: Path) -> dict[str, Contender]:
    folder, python = job.folder, job.rivals_python()
    rivals: dict[str, Contender] = {}
    for profile in ("default", "best"):
        torrent = libtorrent(file, folder, python, profile)
        rivals[f"libtorrent {profile}"] = stack.enter_context(torrent)
    for connections in (1, 2):
        name = f"bare sockets x {connections}"
        bare = partial(bare_sockets, file, folder, connections)
        rivals[name] = stack.enter_context(bare())
        rivals[f"{name}, two files"] = stack.enter_context(bare(twice=True))
        rivals[f"{name}, synced"] = stack.enter_context(bare(sync=True))
    if has_nginx(job.say):
        rivals.update(http_contenders(stack.enter_context(nginx(file, folder)), job.say))
    if shutil.which("aria2c"):
        rivals["aria2 BitTorrent"] = stack.enter_context(aria2_torrent(file, folder))
    else:
        job.say("aria2 BitTorrent: left out, for aria2 is not installed")
    return rivals
