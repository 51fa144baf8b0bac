"""One file by HTTP: nginx gives, and curl or aria2 takes, with and without what they leave out."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.contenders import Contender, free_port
from bench.measure import Process, Sample, run_command, run_together, wait_until_listening

_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@dataclass(frozen=True)
class Web:
    """A running nginx and what it gives."""

    server: Process
    url: str
    file: Path
    folder: Path
    """For the outputs."""


@contextmanager
def nginx(file: Path, folder: Path) -> Iterator[Web]:
    """nginx with sendfile, in one process, until the block ends."""
    place = folder / "nginx"
    place.mkdir()
    port, config = free_port(), place / "nginx.conf"
    config.write_text(_NGINX.format(folder=place, port=port, root=file.parent))
    server = Process(["nginx", "-p", str(place), "-c", str(config), "-e", str(place / "error.log")])
    try:
        wait_until_listening(port)
        yield Web(server, f"http://127.0.0.1:{port}/{file.name}", file, place)
    finally:
        server.stop()


def http_contenders(web: Web, say: Callable[[str], None]) -> dict[str, Contender]:
    """Plain curl; curl whose output is then synced, or hashed; aria2 with its checksum.

    curl and aria2 sync nothing by themselves, and curl verifies nothing.
    """
    output = web.folder / "copy"
    curl = ["curl", "--silent", "--fail", "--output", str(output), web.url]
    contenders: dict[str, Contender] = {}
    if shutil.which("curl"):
        contenders["nginx + curl"] = partial(_download, web, output, curl)
        synced = partial(_download, web, output, curl, ["sync", str(output)])
        contenders["nginx + curl, synced"] = synced
        hashed = partial(_download, web, output, curl, ["sha256sum", str(output)])
        contenders["nginx + curl, sha256sum"] = hashed
    else:
        say("nginx + curl: left out, for curl is not installed")
    if shutil.which("aria2c"):
        contenders["nginx + aria2 x 4, checksum"] = partial(_download, web, output, _aria2(web))
    else:
        say("nginx + aria2: left out, for aria2 is not installed")
    return contenders


def curls_at_once(web: Web, takers: int) -> Sample:
    """One run: `takers` curls at the same time, until the last ends."""
    outputs = [web.folder / f"copy{number}" for number in range(takers)]
    commands = [["curl", "-sf", "-o", str(output), web.url] for output in outputs]
    cpu_before_s = web.server.cpu_s()
    done = run_together(commands)
    for output in outputs:
        output.unlink()
    cpu_s = done.cpu_s + web.server.cpu_s() - cpu_before_s
    return Sample(done.seconds, cpu_s, {"up": web.server.peak_rss_mib()})


def _aria2(web: Web) -> list[str]:
    with web.file.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return [
        *("aria2c", "--quiet", "--no-conf", "--split=4", "--max-connection-per-server=4"),
        *("--file-allocation=falloc", f"--checksum=sha-256={checksum}"),
        *("--dir", str(web.folder), "--out", "copy", web.url),
    ]


def _download(web: Web, output: Path, *commands: Sequence[str]) -> Sample:
    """One run: the commands after each other, the last of which leaves `output` in place."""
    cpu_before_s = web.server.cpu_s()
    done = [run_command(list(command)) for command in commands]
    output.unlink()
    return Sample(
        sum(each.seconds for each in done),
        sum(each.cpu_s for each in done) + web.server.cpu_s() - cpu_before_s,
        {"up": web.server.peak_rss_mib()},
    )


def has_nginx(say: Callable[[str], None]) -> bool:
    """Whether it is here; says so if not."""
    if shutil.which("nginx"):
        return True
    say("nginx: left out, for it is not installed")
    return False
