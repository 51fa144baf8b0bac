"""libtorrent as a seeder or a leecher, driven by lines on standard input.

    torrent.py seed FILE PORT PROFILE        prints "ready TORRENT_HEX"
    torrent.py leech FOLDER PORT PROFILE     prints "ready"; then for each line
                                             "PORT[,PORT...] TORRENT_HEX" fetches from those peers
                                             and prints "done SECONDS", and for each line "clear"
                                             removes what it fetched and prints "cleared"

A download is done when all pieces are verified and flushed to disk; it is shared until "clear".
PROFILE is `default` or `best` (aio_threads 2, hashing_threads 1, found by trial on two cores).
"""

import shutil
import sys
import time
from pathlib import Path

import libtorrent as lt

PROFILES = {"default": {}, "best": {"aio_threads": 2, "hashing_threads": 1}}


def session(port, profile):
    return lt.session(
        {
            "listen_interfaces": f"127.0.0.1:{port}",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "enable_outgoing_utp": False,
            "enable_incoming_utp": False,
            "allow_multiple_connections_per_ip": True,
            "alert_mask": lt.alert.category_t.storage_notification
            | lt.alert.category_t.status_notification
            | lt.alert.category_t.error_notification,
            **PROFILES[profile],
        }
    )


def seed(path, port, profile):
    files = lt.file_storage()
    lt.add_files(files, str(path))
    creator = lt.create_torrent(files, flags=lt.create_torrent.v1_only)
    lt.set_piece_hashes(creator, str(path.parent))
    encoded = lt.bencode(creator.generate())
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(lt.bdecode(encoded))
    params.save_path = str(path.parent)
    params.flags |= lt.torrent_flags.seed_mode
    ses = session(port, profile)
    ses.add_torrent(params)
    print("ready", encoded.hex(), flush=True)
    sys.stdin.read()


def wait_for(ses, kind):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        ses.wait_for_alert(500)
        for alert in ses.pop_alerts():
            if isinstance(alert, kind):
                return
    raise TimeoutError(kind.__name__)


def leech(folder, port, profile):
    ses = session(port, profile)
    print("ready", flush=True)
    handle = None
    for line in sys.stdin:
        if line == "clear\n":
            clear(ses, handle, folder)
            print("cleared", flush=True)
            continue
        ports, encoded = line.split()
        params = lt.add_torrent_params()
        params.ti = lt.torrent_info(lt.bdecode(bytes.fromhex(encoded)))
        params.save_path = str(folder)
        params.flags &= ~(lt.torrent_flags.paused | lt.torrent_flags.auto_managed)
        started = time.perf_counter()
        handle = ses.add_torrent(params)
        for peer in ports.split(","):
            handle.connect_peer(("127.0.0.1", int(peer)))
        wait_for(ses, lt.torrent_finished_alert)
        handle.flush_cache()
        wait_for(ses, lt.cache_flushed_alert)
        print("done", time.perf_counter() - started, flush=True)


def clear(ses, handle, folder):
    ses.remove_torrent(handle)
    wait_for(ses, lt.torrent_removed_alert)
    for child in folder.iterdir():
        shutil.rmtree(child) if child.is_dir() else child.unlink()


if __name__ == "__main__":
    role, path, port, profile = sys.argv[1:]
    {"seed": seed, "leech": leech}[role](Path(path), int(port), profile)
