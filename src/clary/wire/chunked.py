"""Request bodies as their handlers read them: aws-chunked undone, hashes and signatures verified on the way.

`VerifyingBody` is what a streaming operation gets (`operations.Readable`). It reads from a source, any callable
that gives the next bytes and b"" at the end, so the same code serves a body that is already here and one that
still comes over a `BodyPipe`.
"""

import hashlib
import hmac
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from clary.domain.faults import Fault
from clary.wire.sigv4 import EMPTY_SHA256, UNSIGNED, Identity, content_mismatch

Source = Callable[[], bytes]

_LONGEST_LINE = 1024
_LONGEST_TRAILER = 16 << 10
_LONGEST_CHUNK = 5 << 30


class ChunkSigner:
    """The chain of signatures of one chunked upload: each covers the one before it."""

    def __init__(self, identity: Identity, key: bytes) -> None:
        self._key = key
        self._context = f"{identity.amz_date}\n{identity.scope}"
        self._previous = identity.signature

    def chunk(self, sha256: str) -> str:
        """The signature of the next chunk, whose data has this hash."""
        return self._sign("AWS4-HMAC-SHA256-PAYLOAD", f"{EMPTY_SHA256}\n{sha256}")

    def trailer(self, sha256: str) -> str:
        return self._sign("AWS4-HMAC-SHA256-TRAILER", sha256)

    def _sign(self, kind: str, rest: str) -> str:
        text = f"{kind}\n{self._context}\n{self._previous}\n{rest}"
        self._previous = hmac.digest(self._key, text.encode(), "sha256").hex()
        return self._previous


class ChunkDecoder:
    """Undoes aws-chunked as data comes. `signer` is None for STREAMING-UNSIGNED-PAYLOAD-TRAILER."""

    def __init__(self, signer: ChunkSigner | None, *, has_trailer: bool) -> None:
        self.trailers: dict[str, str] = {}
        self.is_complete = False
        self._signer = signer
        self._has_trailer = has_trailer
        self._buffer = bytearray()
        self._step: Callable[[list[bytes]], bool] = self._read_chunk_head
        self._left = 0
        self._hash = hashlib.sha256()
        self._signature = ""

    def feed(self, data: bytes) -> bytes:
        """The payload that `data` completes. Raises Fault."""
        self._buffer += data
        out: list[bytes] = []
        while self._step(out):
            pass
        return b"".join(out)

    def _read_chunk_head(self, out: list[bytes]) -> bool:
        line = self._line(_LONGEST_LINE)
        if line is None:
            return False
        size, *extensions = line.split(b";")
        self._left = _chunk_size(size)
        self._signature = ""
        for extension in extensions:
            name, _, value = extension.strip().partition(b"=")
            if name == b"chunk-signature":
                self._signature = value.decode("latin-1")
        if self._left == 0:
            self._check_chunk(EMPTY_SHA256)
            self._step = self._read_trailer if self._has_trailer else self._read_end
        else:
            self._hash = hashlib.sha256()
            self._step = self._read_data
        return True

    def _read_data(self, out: list[bytes]) -> bool:
        if not self._buffer:
            return False
        data = bytes(self._buffer[: self._left])
        del self._buffer[: len(data)]
        self._left -= len(data)
        if self._signer is not None:
            self._hash.update(data)
        out.append(data)
        if self._left == 0:
            self._step = self._read_data_end
        return True

    def _read_data_end(self, out: list[bytes]) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise _malformed("A chunk does not end where its size says.")
        del self._buffer[:2]
        self._check_chunk(self._hash.hexdigest())
        self._step = self._read_chunk_head
        return True

    def _read_trailer(self, out: list[bytes]) -> bool:
        line = self._line(_LONGEST_TRAILER)
        if line is None:
            return False
        if line:
            name, colon, value = line.partition(b":")
            if not colon or len(self.trailers) > 20:
                raise _malformed_trailer()
            self.trailers[name.decode("latin-1").strip().lower()] = value.decode("latin-1").strip()
            return True
        self._check_trailer()
        return self._complete()

    def _read_end(self, out: list[bytes]) -> bool:
        line = self._line(_LONGEST_LINE)
        if line is None:
            return False
        if line:
            raise _malformed("Something follows the last chunk.")
        return self._complete()

    def _read_nothing(self, out: list[bytes]) -> bool:
        if self._buffer:
            raise _malformed("Something follows the last chunk.")
        return False

    def _complete(self) -> bool:
        self.is_complete = True
        self._step = self._read_nothing
        return True

    def _line(self, limit: int) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, limit + 2)
        if end < 0:
            if len(self._buffer) > limit:
                raise _malformed("A line of the chunked body is too long.")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _check_chunk(self, sha256: str) -> None:
        if self._signer is None:
            return
        if not hmac.compare_digest(self._signer.chunk(sha256).encode(), self._signature.encode("latin-1")):
            raise _bad_signature()

    def _check_trailer(self) -> None:
        if self._signer is None:
            return
        signature = self.trailers.pop("x-amz-trailer-signature", "")
        text = "".join(f"{name}:{value}\n" for name, value in sorted(self.trailers.items()))
        expected = self._signer.trailer(hashlib.sha256(text.encode("latin-1")).hexdigest())
        if not hmac.compare_digest(expected.encode(), signature.encode("latin-1")):
            raise _bad_signature()


class VerifyingBody:
    """A body that ends only if it is the one that was signed.

    One part is held back, so that a handler never has the last byte of a body that turns out to be wrong.
    """

    def __init__(
        self,
        source: Source,
        *,
        service: str,
        payload: str,
        decoder: ChunkDecoder | None = None,
        decoded_length: int | None = None,
        declared_trailers: Iterable[str] = (),
    ) -> None:
        self._source = source
        self._service = service
        self._expected = None if decoder is not None or payload == UNSIGNED else payload
        self._hash = hashlib.sha256()
        self._decoder = decoder
        self._length = decoded_length
        self._declared = [name.strip().lower() for name in declared_trailers if name.strip()]
        self._received = 0
        self._ready = b""
        self._taken = 0
        self._next = b""
        self._is_begun = False

    @property
    def trailers(self) -> Mapping[str, str]:
        return self._decoder.trailers if self._decoder is not None else {}

    def read(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end. Raises Fault when the body is not what was signed."""
        if not self._is_begun:
            self._is_begun = True
            self._next = self._pull()
        if self._taken == len(self._ready):
            self._ready, self._taken = self._next, 0
            if self._next:
                self._next = self._pull()
        data = self._ready[self._taken : self._taken + size]  # all of it is not copied
        self._taken += len(data)
        return data

    def read_all(self) -> bytes:
        return b"".join(iter(lambda: self.read(1 << 20), b""))

    def _pull(self) -> bytes:
        """The next decoded bytes; b"" only after everything has been checked."""
        while True:
            data = self._source()
            if not data:
                self._check()
                return b""
            if self._expected is not None:
                self._hash.update(data)
            if self._decoder is not None:
                data = self._decoder.feed(data)
            self._received += len(data)
            if self._length is not None and self._received > self._length:
                raise _incomplete()
            if data:
                return data

    def _check(self) -> None:
        if self._expected is not None and self._hash.hexdigest() != self._expected:
            raise content_mismatch(self._service)
        if self._decoder is not None and not self._decoder.is_complete:
            raise _incomplete()
        if self._length is not None and self._received != self._length:
            raise _incomplete()
        if any(name not in self.trailers for name in self._declared):
            raise _malformed_trailer()


class SigningKeys(Protocol):
    """What the chunk signatures of a request are made with."""

    def signing_key(self, identity: Identity) -> bytes: ...


def verifying_body(
    source: Source, identity: Identity, headers: Mapping[str, str], keys: SigningKeys
) -> VerifyingBody:
    """The body of a request whose head was verified as `identity`. `headers` are in lower case."""
    payload = identity.payload
    if not payload.startswith("STREAMING-"):
        return VerifyingBody(source, service=identity.service, payload=payload)
    signer = None
    if payload.startswith("STREAMING-AWS4-HMAC-SHA256"):
        signer = ChunkSigner(identity, keys.signing_key(identity))
    length = headers.get("x-amz-decoded-content-length")
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 16):
        raise Fault("InvalidArgument", "x-amz-decoded-content-length must be a number.")
    has_trailer = payload.endswith("-TRAILER")
    return VerifyingBody(
        source,
        service=identity.service,
        payload=payload,
        decoder=ChunkDecoder(signer, has_trailer=has_trailer),
        decoded_length=None if length is None else int(length),
        declared_trailers=headers.get("x-amz-trailer", "").split(",") if has_trailer else (),
    )


def whole(body: bytes) -> Source:
    """A source for a body that is here already."""
    parts = iter((body,)) if body else iter(())
    return lambda: next(parts, b"")


class BodyPipe:
    """From the loop that receives a body to the thread that reads it, holding at most about `capacity` bytes.

    `on_room` is called on the reading thread when a full pipe has room again.
    """

    def __init__(self, on_room: Callable[[], None], capacity: int = 1 << 20) -> None:
        self._on_room = on_room
        self._capacity = capacity
        self._condition = threading.Condition()
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._is_full = False
        self._is_ended = False
        self._is_closed = False
        self._fault: Fault | None = None

    def put(self, data: bytes) -> bool:
        """Adds a part; never blocks. False: hold the next one until there is room."""
        with self._condition:
            if self._is_closed:
                return True
            self._parts.append(data)
            self._size += len(data)
            self._is_full = self._size >= self._capacity
            self._condition.notify()
            return not self._is_full

    def end(self, fault: Fault | None = None) -> None:
        """No more comes; with a fault, because it broke off."""
        with self._condition:
            if self._is_closed:
                return
            self._is_ended = True
            self._fault = fault
            self._condition.notify()

    def close(self) -> None:
        """What still comes is dropped. Whoever reads nevertheless (its answer is not waited for any more, as the server
        stops) hears that the body broke off, and takes no part of it for the whole."""
        with self._condition:
            self._is_closed = True
            if self._parts or not self._is_ended:
                self._parts.clear()
                self._is_ended = True
                self._fault = broken_body("The server has stopped.")
            self._condition.notify()

    def __call__(self) -> bytes:
        with self._condition:
            while not self._parts and not self._is_ended:
                self._condition.wait()
            if not self._parts:
                if self._fault is not None:
                    raise self._fault
                return b""
            data = self._parts.popleft()
            self._size -= len(data)
            has_room = self._is_full and self._size < self._capacity // 2
            if has_room:
                self._is_full = False
        if has_room:
            self._on_room()
        return data


def broken_body(message: str) -> Fault:
    """The client stopped in the middle."""
    return Fault("IncompleteBody", message)


def _chunk_size(text: bytes) -> int:
    digits = text.strip()
    if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
        raise _malformed("A chunk begins without a size.")
    size = int(digits, 16)
    if size > _LONGEST_CHUNK:
        raise _malformed("A chunk is too large.")
    return size


def _malformed(message: str) -> Fault:
    return Fault("InvalidRequest", message)


def _malformed_trailer() -> Fault:
    return Fault(
        "MalformedTrailerError",
        "The request contained trailing data that was not well-formed or did not conform to our published schema.",
    )


def _incomplete() -> Fault:
    return Fault(
        "IncompleteBody",
        "You did not provide the number of bytes specified by the Content-Length HTTP header.",
    )


def _bad_signature() -> Fault:
    return Fault(
        "SignatureDoesNotMatch",
        "The chunk or trailer signature we calculated does not match the signature you provided.",
        403,
    )
