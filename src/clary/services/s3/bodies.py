"""A request's body on its way into the store: read in pieces, hashed in the same loop, never held whole."""

from collections.abc import Iterator, Mapping

from clary.blobs.base import OpenObject, Staged
from clary.services.s3.checksums import BodyDigests
from clary.services.s3.conditions import Span
from clary.services.s3.errors import too_large
from clary.wire.operations import Readable

_PIECE = 512 << 10


def check_size(declared: int | None, headers: Mapping[str, str], limit: int) -> None:
    """Refuses what is declared too large, before any of it is read."""
    decoded = headers.get("x-amz-decoded-content-length", "")[:19]
    size = int(decoded) if decoded.isdecimal() else declared or 0
    if size > limit:
        raise too_large(size, limit)


def receive(body: Readable | bytes, staged: Staged, digests: BodyDigests, limit: int) -> None:
    """Reads to the end, where signature, length and digests are verified: only then may it be put."""
    for piece in _pieces(body):
        if staged.size + len(piece) > limit:
            raise too_large(staged.size + len(piece), limit)
        staged.write(piece)
        digests.update(piece)
    digests.verify({} if isinstance(body, bytes) else body.trailers)


def transfer(source: OpenObject, span: Span, staged: Staged, digests: BodyDigests) -> None:
    """Copies a piece of an object, hashing it."""
    source.seek(span.offset)
    left = span.length
    while left and (piece := source.read(min(left, _PIECE))):
        staged.write(piece)
        digests.update(piece)
        left -= len(piece)


def _pieces(body: Readable | bytes) -> Iterator[bytes]:
    if isinstance(body, bytes):
        yield body
        return
    while piece := body.read(_PIECE):
        yield piece
