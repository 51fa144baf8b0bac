"""One node to another over loopback: gossipcache beside libtorrent and bare sockets."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.contenders import Contender, bare_sockets, gossipcache, libtorrent
from bench.measure import interleave, make_file, ratios, summarise
from bench.report import Report


def one_to_one(
    folder: Path, size_bytes: int, runs: int, rivals_python: str, report: Callable[[str], None]
) -> Report:
    """Copies one file of `size_bytes` by each contender in turn, `runs` times over."""
    file = folder / "file"
    make_file(file, size_bytes)
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {
            "gossipcache export": stack.enter_context(gossipcache(file, folder, link=False)),
            "gossipcache export --link": stack.enter_context(gossipcache(file, folder, link=True)),
            "libtorrent default": stack.enter_context(
                libtorrent(file, folder, rivals_python, "default")
            ),
            "libtorrent best": stack.enter_context(libtorrent(file, folder, rivals_python, "best")),
            "bare sockets x 1": stack.enter_context(bare_sockets(file, folder, 1)),
            "bare sockets x 2": stack.enter_context(bare_sockets(file, folder, 2)),
        }
        samples = interleave(contenders, runs, report)
    labels = {
        "libtorrent": "libtorrent default",
        "libtorrent_best": "libtorrent best",
        "bare_sockets": "bare sockets x 1",
        "bare_sockets_2": "bare sockets x 2",
    }
    link_ratios = ratios(samples, "gossipcache export --link", labels)
    return Report(
        name="one-to-one",
        size_bytes=size_bytes,
        runs=runs,
        summaries=[summarise(name, found, size_bytes) for name, found in samples.items()],
        ratios={
            **ratios(samples, "gossipcache export", labels),
            **{f"link_{name}": value for name, value in link_ratios.items()},
        },
    )
