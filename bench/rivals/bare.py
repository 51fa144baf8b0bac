"""Bare sockets: sendfile on one side, recv_into, BLAKE3 and pwrite on the other.

    bare.py send FILE                 prints "ready PORT"
    bare.py receive [--sync] FILE CONNECTIONS [SECOND]
                                      prints "ready"; then for each line "PORT[,PORT...] SIZE"
                                      prints "done SECONDS"

Each connection asks for its share by one line "OFFSET COUNT". The receiver does the work of a
verified download: 4 MiB pieces, a BLAKE3 of each, written to a file, and with --sync one fsync at
the end. With a SECOND file each piece is written to both, as a cache and an output are. The files
are removed when the clock has stopped, not before it starts again: warm memory would be this
contender's alone (see `bench.measure.interleave`).
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import BinaryIO

from blake3 import blake3

PIECE_BYTES = 4 * 2**20
CHUNK_BYTES = 2**20


def send(path: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print("ready", listener.getsockname()[1], flush=True)
    with open(path, "rb") as file:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_send_share, args=(connection, file), daemon=True).start()


def _send_share(connection: socket.socket, file: BinaryIO) -> None:
    with connection:
        offset, count = map(int, connection.makefile().readline().split())
        while count:
            sent = os.sendfile(connection.fileno(), file.fileno(), offset, count)
            offset, count = offset + sent, count - sent


def receive(connections: int, paths: list[str], *, sync: bool) -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        ports, size = [int(port) for port in line.split()[0].split(",")], int(line.split()[1])
        started = time.perf_counter()
        files = [os.open(path, os.O_CREAT | os.O_RDWR, 0o600) for path in paths]
        for file in files:
            os.posix_fallocate(file, 0, size)
        share = -(-size // PIECE_BYTES // connections) * PIECE_BYTES
        threads = [
            threading.Thread(
                target=_receive_share,
                args=(ports[turn % len(ports)], files, start, min(share, size - start)),
            )
            for turn, start in enumerate(range(0, size, share))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for file in files:
            if sync:
                os.fsync(file)
            os.close(file)
        seconds = time.perf_counter() - started
        for path in paths:
            os.unlink(path)
        print("done", seconds, flush=True)


def _receive_share(port: int, files: list[int], offset: int, count: int) -> None:
    piece = memoryview(bytearray(PIECE_BYTES))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{offset} {count}\n".encode())
        while count:
            length = min(PIECE_BYTES, count)
            got, state = 0, blake3()
            while got < length:
                chunk = piece[got : min(got + CHUNK_BYTES, length)]
                received = connection.recv_into(chunk)
                if not received:
                    raise EOFError
                state.update(chunk[:received])
                got += received
            state.digest()
            for file in files:
                os.pwrite(file, piece[:length], offset)
            offset, count = offset + length, count - length


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2])
    else:
        path, connections, *second = [word for word in sys.argv[2:] if word != "--sync"]
        receive(int(connections), [path, *second], sync="--sync" in sys.argv)
