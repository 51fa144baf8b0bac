"""What aria2 is told: a torrent, and who has it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.request import urlopen

from bench.aria2 import PIECE_BYTES, bencoded, torrent_of, tracker


def test_dictionaries_are_encoded_in_the_order_of_their_keys() -> None:
    assert bencoded({b"b": 1, b"a": b"xy"}) == b"d1:a2:xy1:bi1ee"


def test_a_torrent_has_the_digest_of_each_piece(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(PIECE_BYTES) + b"end")
    digests = hashlib.sha1(bytes(PIECE_BYTES)).digest() + hashlib.sha1(b"end").digest()
    assert b"6:pieces40:" + digests in torrent_of(file, "http://127.0.0.1/announce")


def test_the_tracker_names_the_seeder_to_everybody_else() -> None:
    with tracker(258) as address:
        for port, peers in ((258, b"0:"), (259, b"6:\x7f\x00\x00\x01\x01\x02")):
            with urlopen(f"{address}?info_hash=%ff&port={port}") as answer:
                assert answer.read() == b"d8:intervali1800e5:peers" + peers + b"e"
