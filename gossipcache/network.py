"""The real network behind `gossipcache.env.Network`: TCP streams and UDP datagrams."""

from __future__ import annotations

import errno
import operator
import os
import socket
from functools import partial

import trio

from gossipcache.datagrams import ClosedSocket, UdpDatagrams, address_of, prepare
from gossipcache.env import NO_ROOM, ByteStream, Datagrams, DiskFile
from gossipcache.hosts import reachable, resolve
from gossipcache.ids import Address
from gossipcache.threads import in_thread

SEND_CHUNK_BYTES = 4 << 20
"""What is looked for in memory, and sent, at once."""
READ_BYTES = 1 << 20
"""What is read of a file at once where sendfile cannot be used, or its pages come from the disk."""
RECEIVE_BYTES = 4 << 20
"""So many bytes of a large buffer are waited for, if they come soon: a step of the event loop for
each packet costs more than the copy of its bytes."""
COPIED_IN_A_THREAD_BYTES = 1 << 20
"""What goes to a buffer of this size is copied while the event loop goes on; a copy of less costs
no more than the change of threads."""
PATIENCE_S = 0.1
"""How long they are waited for before what is there is taken."""
UNSENT_BYTES = 4 << 20
"""What the kernel takes of a file before it is sent (tcp(7), TCP_NOTSENT_LOWAT): by reference, not
as copies."""

_SOME_BYTES = 64 << 10
_BACKLOG = 1024
_PORT_ATTEMPTS = 64
_ACCEPT_RETRY_S = 0.1
_NO_SENDFILE = frozenset((errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP))
_OUT_OF_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
# Errors of a client that has gone again, which accept(2) passes on.
_CLIENT_GONE = frozenset(
    (
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.ENOTCONN,
        errno.EPERM,
    )
)


class TcpStream(ByteStream):
    """A connected TCP socket. Errors of trio's streams: `BrokenResourceError` when the
    connection fails, `ClosedResourceError` after `aclose`, `BusyResourceError` for two senders
    or two receivers at once."""

    def __init__(self, connected: trio.socket.SocketType) -> None:
        self._socket = connected
        # Sets TCP_NODELAY, and keeps the kernel's unsent backlog small.
        self._stream = trio.SocketStream(connected)
        self.local = address_of(connected.getsockname())
        self.remote = address_of(connected.getpeername())
        self._receiving = Exclusive("receiving from this stream")
        self._sending = Exclusive("sending to this stream")
        self._number: int = connected.fileno()
        self._reading = trio.Event()
        """Set while no thread reads from the socket."""
        self._reading.set()
        self._least_bytes = 1
        self._sends_files = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends all of `data`."""
        with self._sending:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Returns when the kernel takes more."""
        with self._sending:
            await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Ends this direction of the stream."""
        with self._sending:
            await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, at most `max_bytes`; b"" at the end."""
        limit = _SOME_BYTES if max_bytes is None else operator.index(max_bytes)
        if limit < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving, _TrioErrors():
            self._wake_at(1)
            while True:
                # Waiting first is the checkpoint too, and spares a call that finds nothing.
                await trio.lowlevel.wait_readable(self._descriptor())
                try:
                    return os.read(self._descriptor(), limit)
                except BlockingIOError:
                    continue

    async def receive_into(self, buffer: memoryview, spare: memoryview = NO_ROOM) -> int:
        """Receives at least one byte straight into `buffer`; 0 at the end of the stream."""
        if not buffer:
            raise ValueError("the buffer is empty")
        with self._receiving, _TrioErrors():
            self._wake_at(min(len(buffer), RECEIVE_BYTES))
            with trio.move_on_after(PATIENCE_S):
                await trio.lowlevel.wait_readable(self._descriptor())
            into = [buffer, spare] if len(buffer) <= RECEIVE_BYTES else [buffer[:RECEIVE_BYTES]]
            while True:
                try:
                    if len(buffer) < COPIED_IN_A_THREAD_BYTES:
                        return os.readv(self._descriptor(), into)
                    return await self._read_in_thread(into)
                except BlockingIOError:
                    self._wake_at(1)
                    await trio.lowlevel.wait_readable(self._descriptor())

    async def _read_in_thread(self, into: list[memoryview]) -> int:
        reading = partial(os.readv, self._descriptor(), into)
        self._reading = trio.Event()
        try:
            return await in_thread(reading)
        finally:
            self._reading.set()

    def _wake_at(self, least_bytes: int) -> None:
        """From how many bytes on the kernel calls the stream readable (socket(7), SO_RCVLOWAT);
        its end and its failure always do."""
        if least_bytes != self._least_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least_bytes)
            self._least_bytes = least_bytes

    def _descriptor(self) -> int:
        if self._number < 0:
            raise trio.ClosedResourceError("this stream is closed")
        return self._number

    async def send_file(self, file: DiskFile, offset: int, count: int, head: bytes = b"") -> None:
        """Sends `head`, and `count` bytes of `file` by sendfile(2), or through a thread.

        Raises `OSError` if the file ends early; the stream is then unusable.
        """
        with self._sending:
            await trio.lowlevel.checkpoint_if_cancelled()
            descriptor = file.fileno()
            end = offset + count
            self._expect_files()
            if head and (left := head[self._write(head) :]):
                await self._stream.send_all(left)
            if descriptor is not None:
                offset = await self._send_descriptor(descriptor, offset, end)
            while offset < end:
                chunk = await trio.to_thread.run_sync(
                    file.read_at, offset, min(READ_BYTES, end - offset)
                )
                if not chunk:
                    raise _ended_early(offset, end)
                await self._stream.send_all(chunk)
                offset += len(chunk)

    def send_now(self, data: bytes | bytearray) -> int:
        """How many bytes of `data` the kernel took at once."""
        with self._sending:
            return self._write(data)

    def _write(self, data: bytes | bytearray) -> int:
        with _TrioErrors():
            try:
                return os.write(self._descriptor(), data)
            except BlockingIOError:
                return 0

    def _expect_files(self) -> None:
        if not self._sends_files:
            self._sends_files = True
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    async def _send_descriptor(self, descriptor: int, offset: int, end: int) -> int:
        """Sends up to `end`; the offset reached, below `end` only where sendfile is unknown."""
        looked_to = offset
        while offset < end:
            if offset >= looked_to:
                looked_to = min(end, offset + SEND_CHUNK_BYTES)
                if not _is_in_memory(descriptor, offset, looked_to):
                    # sendfile would wait for the disk, and with it the whole event loop.
                    await trio.to_thread.run_sync(_read_ahead, descriptor, offset, end)
            count = min(SEND_CHUNK_BYTES, end - offset)
            try:
                sent = os.sendfile(self._descriptor(), descriptor, offset, count)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._descriptor())
                continue
            except OSError as error:
                if error.errno in _NO_SENDFILE:
                    return offset
                if error.errno == errno.EIO:  # the disk's failure, not the connection's
                    raise
                raise trio.BrokenResourceError(f"the connection failed ({error})") from error
            if sent == 0:
                raise _ended_early(offset, end)
            offset += sent
        return offset

    async def aclose(self) -> None:
        """Closes the socket; a second call does nothing."""
        self._number = -1
        with trio.CancelScope(shield=True):
            await self._reading.wait()  # another file may have the number next
        await self._stream.aclose()


class TrioPort:
    """A listening TCP socket and a UDP socket on one port number."""

    def __init__(self, listener: trio.socket.SocketType, datagrams: UdpDatagrams) -> None:
        self._listener = listener
        self._datagrams = datagrams
        self.datagrams: Datagrams = datagrams
        self.address = reachable(address_of(listener.getsockname()), int(listener.family))

    async def accept(self) -> ByteStream:
        """The next inbound stream. Raises `ClosedResourceError` after `aclose`."""
        while True:
            try:
                with ClosedSocket():
                    accepted, _ = await self._listener.accept()
                return _connected(accepted)
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS:
                    await trio.sleep(_ACCEPT_RETRY_S)
                elif error.errno not in _CLIENT_GONE:
                    raise

    async def aclose(self) -> None:
        """Stops listening; accepted streams live on."""
        self._listener.close()
        self._datagrams.close()
        await trio.lowlevel.checkpoint()


class TrioNetwork:
    """`gossipcache.env.Network` over the operating system's sockets."""

    async def bind(self, address: Address) -> TrioPort:
        """Listens on `address`; port 0 picks one number that is free for TCP and UDP. The port
        of `0.0.0.0` or `::` names the address by which this machine leaves for the network.

        Raises `OSError` (EADDRINUSE if either is taken).
        """
        family, host = (await resolve(address))[0]
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                return _bind_pair(family, host, address.port)
            except OSError as error:
                retry = address.port == 0 and error.errno == errno.EADDRINUSE
                if not retry or attempt == _PORT_ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def dial(self, address: Address) -> TcpStream:
        """Connects to `address`; of a name's addresses the first that answers.

        Raises the last attempt's `OSError`, such as `ConnectionRefusedError`.
        """
        failure: OSError | None = None
        for family, host in await resolve(address):
            candidate = trio.socket.socket(family, socket.SOCK_STREAM)
            try:
                await candidate.connect((host, address.port))
                return _connected(candidate)
            except OSError as error:
                candidate.close()
                failure = error
            except BaseException:
                candidate.close()
                raise
        raise failure or OSError(errno.EADDRNOTAVAIL, f"{address} has no address")


def _connected(established: trio.socket.SocketType) -> TcpStream:
    try:
        return TcpStream(established)
    except OSError:  # already disconnected: it has no peer name
        established.close()
        raise


def _bind_pair(family: int, host: str, port: int) -> TrioPort:
    stream = socket.socket(family, socket.SOCK_STREAM)
    datagram = socket.socket(family, socket.SOCK_DGRAM)
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for each in (stream, datagram):
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.setblocking(False)
        stream.bind((host, port))
        datagram.bind((host, stream.getsockname()[1]))
        prepare(datagram)
        stream.listen(_BACKLOG)
    except BaseException:
        stream.close()
        datagram.close()
        raise
    return TrioPort(trio.socket.from_stdlib_socket(stream), UdpDatagrams(datagram))


def _is_in_memory(descriptor: int, start: int, end: int) -> bool:
    """Whether both ends of a range can be read without the disk (preadv2(2), RWF_NOWAIT)."""
    try:
        for offset in (start, end - 1):
            os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:  # not known here, or for sendfile to report
        return True
    return True


def _read_ahead(descriptor: int, start: int, end: int) -> None:
    """Returns when a range stands in the page cache; nothing of it is copied."""
    os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_WILLNEED)
    for offset in (*range(start, end, READ_BYTES), end - 1):
        os.pread(descriptor, 1, offset)


def _ended_early(offset: int, end: int) -> OSError:
    return OSError(errno.EIO, f"the file ends {end - offset} bytes early")


class Exclusive:
    """Raises `BusyResourceError` for a second user at the same time."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._held = False

    def __enter__(self) -> None:
        if self._held:
            raise trio.BusyResourceError(f"another task is already {self._doing}")
        self._held = True

    def __exit__(self, *exc_info: object) -> None:
        self._held = False


class _TrioErrors(ClosedSocket):
    """Raises the errors of a socket as trio's streams do."""

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            super().__exit__(kind, error, trace)
            raise trio.BrokenResourceError(f"the connection failed ({error})") from error
