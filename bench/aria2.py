"""aria2 as a BitTorrent client, with a tracker that knows the one seeder."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from bench.contenders import Contender, free_port
from bench.measure import Process, Sample, run_command, wait_until_listening

PIECE_BYTES = 4 * 2**20

_COMMAND = [
    *("aria2c", "--quiet", "--no-conf", "--enable-dht=false", "--bt-enable-lpd=false"),
    *("--enable-peer-exchange=false", "--follow-torrent=mem", "--file-allocation=falloc"),
]


def bencoded(value: object) -> bytes:
    """BitTorrent's encoding of integers, byte strings and dictionaries."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%b" % (len(value), value)
    assert isinstance(value, dict)
    items = (bencoded(key) + bencoded(value[key]) for key in sorted(value))
    return b"d%be" % b"".join(items)


def torrent_of(file: Path, announce: str) -> bytes:
    """A torrent of one file, with the SHA-1 of every piece."""
    digests = bytearray()
    with file.open("rb") as content:
        while piece := content.read(PIECE_BYTES):
            digests += hashlib.sha1(piece).digest()
    info = {
        b"length": file.stat().st_size,
        b"name": file.name.encode(),
        b"piece length": PIECE_BYTES,
        b"pieces": bytes(digests),
    }
    return bencoded({b"announce": announce.encode(), b"info": info})


@contextmanager
def tracker(seeder_port: int) -> Iterator[str]:
    """A tracker on loopback that names the seeder to everybody else; yields its address."""
    seeder = socket.inet_aton("127.0.0.1") + seeder_port.to_bytes(2, "big")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asker = parse_qs(urlsplit(self.path).query, encoding="latin-1").get("port")
            peers = b"" if asker == [str(seeder_port)] else seeder
            body = bencoded({b"interval": 1800, b"peers": peers})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/announce"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def aria2_torrent(file: Path, folder: Path) -> Iterator[Contender]:
    """One seeder; a run is one whole command that verifies every piece and does not sync."""
    place = folder / "aria2"
    place.mkdir()
    seeder_port, torrent = free_port(), place / "file.torrent"
    with tracker(seeder_port) as announce:
        torrent.write_bytes(torrent_of(file, announce))
        seed = [*_COMMAND, f"--listen-port={seeder_port}", "--seed-ratio=0.0"]
        seed += ["--bt-seed-unverified=true", "--dir", str(file.parent), str(torrent)]
        giver = Process(seed)
        take = [*_COMMAND, "--seed-time=0", "--dir", str(place / "got"), str(torrent)]
        try:
            wait_until_listening(seeder_port)

            def run() -> Sample:
                cpu_before_s = giver.cpu_s()
                done = run_command([*take[:-1], f"--listen-port={free_port()}", take[-1]])
                shutil.rmtree(place / "got")
                cpu_s = done.cpu_s + giver.cpu_s() - cpu_before_s
                return Sample(done.seconds, cpu_s, {"up": giver.peak_rss_mib()})

            yield run
        finally:
            giver.stop()
