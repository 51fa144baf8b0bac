"""What came in, from whom, and what of it is still to be reported and made durable."""

from __future__ import annotations

from dataclasses import dataclass, field

from gossipcache.ids import NodeId
from gossipcache.manifest import Manifest
from gossipcache.swarm import PieceReport
from gossipcache.transfer.download.outcome import DownloadProgress
from gossipcache.transfer.pieces import PieceSet


@dataclass(slots=True)
class _Line:
    pieces: list[int] = field(default_factory=list)
    size_bytes: int = 0
    elapsed_s: float = 0.0
    failures: int = 0


class Ledger:
    """The books of one download."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._unmarked: list[int] = []
        self._unreported: dict[NodeId, _Line] = {}
        self.resumed_bytes = 0
        self.done_bytes = 0
        self.bytes_by_source: dict[NodeId, int] = {}

    def resumed(self, have: PieceSet) -> None:
        """The store had `have` before."""
        self.resumed_bytes = self.done_bytes = self._bytes(have)

    def came(self, source: NodeId, index: int, elapsed_s: float) -> None:
        """Piece `index` is verified and written; `source` took `elapsed_s` for it."""
        size = self._manifest.piece_length(index)
        self._unmarked.append(index)
        self.done_bytes += size
        self.bytes_by_source[source] = self.bytes_by_source.get(source, 0) + size
        line = self._unreported.setdefault(source, _Line())
        line.pieces.append(index)
        line.size_bytes += size
        line.elapsed_s += elapsed_s

    def failed(self, source: NodeId) -> None:
        """`source` sent a bad piece, broke off, or refused."""
        self._unreported.setdefault(source, _Line()).failures += 1

    def progress(self) -> DownloadProgress:
        """How far the download is."""
        return DownloadProgress(self.done_bytes, self.resumed_bytes, self.bytes_by_source)

    def to_mark(self) -> list[int]:
        """The pieces that are not durable yet."""
        return list(self._unmarked)

    def marked(self, pieces: list[int]) -> None:
        """`pieces`, the first of `to_mark`, are durable."""
        del self._unmarked[: len(pieces)]

    def take_reports(self) -> tuple[PieceReport, ...]:
        """What came in since the last call."""
        lines, self._unreported = self._unreported, {}
        return tuple(
            PieceReport(source, tuple(line.pieces), line.size_bytes, line.elapsed_s, line.failures)
            for source, line in lines.items()
        )

    def _bytes(self, have: PieceSet) -> int:
        total, size = self._manifest.piece_count, have.count * self._manifest.piece_size
        if total and total - 1 in have:
            size += self._manifest.piece_length(total - 1) - self._manifest.piece_size
        return size
