"""TLS 1.3 beyond loopback, with a certificate that each node makes for itself at its start.

Nobody signs the certificates and nobody checks their names: the handshake binds the SHA-256
of the one in use to both nodes' keys, so that a man in the middle, who must show his own,
ends with two transcripts that do not match (channel binding as in RFC 5929, tls-server-end-point).
"""

from __future__ import annotations

import datetime
import hashlib
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import trio

from gossipcache.env import NO_ROOM, ByteStream, DiskFile, Workers
from gossipcache.ids import Address
from gossipcache.link.handshake import Side

_READ_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class _Contexts:
    server: ssl.SSLContext
    client: ssl.SSLContext
    certificate_hash: bytes


class Tls:
    """One node's certificate and contexts."""

    def __init__(self, workers: Workers, entropy: Callable[[int], bytes]) -> None:
        """`workers` read the files that are sent, as sendfile cannot encrypt. The certificate
        is made when it is first needed: on loopback never."""
        self._workers, self._entropy = workers, entropy
        self._lock = trio.Lock()
        self._contexts: _Contexts | None = None

    async def wrap(self, raw: ByteStream, side: Side) -> tuple[TlsStream, bytes]:
        """The encrypted stream over `raw`, and the hash of the acceptor's certificate.

        Raises `trio.BrokenResourceError`.
        """
        async with self._lock:
            if self._contexts is None:
                password = self._entropy(32).hex().encode()
                self._contexts = await self._workers.run(lambda: _make_contexts(password))
        contexts = self._contexts
        acceptor = side == "acceptor"
        secure = trio.SSLStream(
            raw,
            contexts.server if acceptor else contexts.client,
            server_side=acceptor,
            https_compatible=True,
        )
        await secure.do_handshake()
        if acceptor:
            return TlsStream(secure, raw, self._workers), contexts.certificate_hash
        der = secure.getpeercert(binary_form=True)
        return TlsStream(secure, raw, self._workers), hashlib.sha256(der).digest()


class TlsStream(ByteStream):
    """A `ByteStream` over TLS: the bulk calls copy."""

    def __init__(
        self, secure: trio.SSLStream[ByteStream], raw: ByteStream, workers: Workers
    ) -> None:
        self.local: Address = raw.local
        self.remote: Address = raw.remote
        self._secure, self._raw, self._workers = secure, raw, workers

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._secure.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._secure.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._secure.receive_some(max_bytes)

    async def receive_into(self, buffer: memoryview, spare: memoryview = NO_ROOM) -> int:
        data = await self._secure.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def send_file(self, file: DiskFile, offset: int, count: int, head: bytes = b"") -> None:
        end = offset + count
        if head:
            await self._secure.send_all(head)
        while offset < end:
            data = await self._workers.run(
                lambda at=offset: file.read_at(at, min(_READ_BYTES, end - at))  # type: ignore[misc]
            )
            if not data:
                raise OSError("the file ended before the piece did")
            await self._secure.send_all(data)
            offset += len(data)

    async def send_eof(self) -> None:
        # Only after the last frame: TLS's own goodbye is left out, as in `aclose`.
        await self._raw.send_eof()

    async def aclose(self) -> None:
        # The websocket's close frame says goodbye; TLS's own could wait for the remote.
        await self._raw.aclose()


def needs_tls(stream: ByteStream, side: Side) -> bool:
    """Whether a connection leaves the machine, by the acceptor's address: both ends see it."""
    return not (stream.local if side == "acceptor" else stream.remote).is_loopback


def _make_contexts(password: bytes) -> _Contexts:
    key_pem, certificate_pem, der = _make_certificate(password)
    server = _context(ssl.PROTOCOL_TLS_SERVER)
    # `ssl` takes keys by path only: the key in that file is encrypted, and soon gone.
    with tempfile.NamedTemporaryFile() as file:
        file.write(key_pem + certificate_pem)
        file.flush()
        server.load_cert_chain(file.name, password=password)
    return _Contexts(server, _context(ssl.PROTOCOL_TLS_CLIENT), hashlib.sha256(der).digest())


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    return context


def _make_certificate(password: bytes) -> tuple[bytes, bytes, bytes]:
    """A new private key, encrypted, and its certificate: (key PEM, PEM, DER)."""
    # Loaded here: loopback nodes never pay for it.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gossipcache")])
    utc = datetime.UTC
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=utc))
        .not_valid_after(datetime.datetime(9999, 12, 31, tzinfo=utc))
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return key_pem, pem, certificate.public_bytes(serialization.Encoding.DER)
