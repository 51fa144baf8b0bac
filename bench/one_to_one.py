"""One node to another over loopback: gossipcache beside libtorrent, HTTP and bare sockets."""

from __future__ import annotations

import shutil
from contextlib import ExitStack

from bench.contenders import Contender, bare_sockets, gossipcache, libtorrent, nginx_and_curl
from bench.measure import interleave, make_file, ratios, summarise
from bench.report import Job, Report


def one_to_one(job: Job) -> Report:
    """Copies one file by each contender in turn, `job.runs` times over."""
    folder, python = job.folder, job.rivals_python()
    file = folder / "file"
    make_file(file, job.size_bytes)
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {
            "gossipcache export": stack.enter_context(gossipcache(file, folder, link=False)),
            "gossipcache export --link": stack.enter_context(gossipcache(file, folder, link=True)),
            "libtorrent default": stack.enter_context(libtorrent(file, folder, python, "default")),
            "libtorrent best": stack.enter_context(libtorrent(file, folder, python, "best")),
            "bare sockets x 1": stack.enter_context(bare_sockets(file, folder, 1)),
            "bare sockets x 2": stack.enter_context(bare_sockets(file, folder, 2)),
        }
        for connections in (1, 2):
            bare = bare_sockets(file, folder, connections, twice=True)
            contenders[f"bare sockets x {connections}, two files"] = stack.enter_context(bare)
        if shutil.which("nginx") and shutil.which("curl"):
            contenders["nginx + curl"] = stack.enter_context(nginx_and_curl(file, folder))
        else:
            job.say("nginx + curl: left out, for they are not installed")
        samples = interleave(contenders, job.runs, job.say)
    labels = {
        "libtorrent": "libtorrent default",
        "libtorrent_best": "libtorrent best",
        "bare_sockets": "bare sockets x 1",
        "bare_sockets_2": "bare sockets x 2",
        "bare_two_files": "bare sockets x 1, two files",
        "bare_two_files_2": "bare sockets x 2, two files",
        "nginx_curl": "nginx + curl",
    }
    link_ratios = ratios(samples, "gossipcache export --link", labels)
    return Report(
        name="one-to-one",
        size_bytes=job.size_bytes,
        runs=job.runs,
        summaries=[summarise(name, found, job.size_bytes) for name, found in samples.items()],
        ratios={
            **ratios(samples, "gossipcache export", labels),
            **{f"link_{name}": value for name, value in link_ratios.items()},
        },
    )
