"""Bodies in chunks (`Transfer-Encoding: chunked`), decoded from whatever pieces arrive."""

LONGEST_LINE = 4096
_HEX = frozenset(b"0123456789abcdefABCDEF")


class MalformedChunk(Exception):
    """The body does not keep to the chunked form, so nobody can tell where it ends."""


class ChunksTooLong(Exception):
    """The body has grown beyond what is accepted."""


class ChunkDecoder:
    """Takes chunks from the front of a buffer until the body is complete."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._body = bytearray()
        self._missing = 0  # bytes of the chunk being read, with the CRLF behind it
        self._in_trailer = False

    def take(self, data: bytearray) -> bytes | None:
        """Removes what it used from `data`; the body once it is complete, None before."""
        while True:
            if self._missing:
                if not self._take_data(data):
                    return None
                continue
            line = _take_line(data)
            if line is None:
                return None
            if self._in_trailer:
                if not line:
                    return bytes(self._body)
            elif size := _chunk_size(line):
                self._expect(size)
            else:
                self._in_trailer = True

    def _expect(self, size: int) -> None:
        if len(self._body) + size > self._max_bytes:
            raise ChunksTooLong
        self._missing = size + 2

    def _take_data(self, data: bytearray) -> bool:
        """Whether the chunk is now complete."""
        wanted = max(self._missing - 2, 0)
        part = data[:wanted]
        self._body += part
        del data[: len(part)]
        self._missing -= len(part)
        if self._missing > 2 or len(data) < 2:
            return False
        if data[:2] != b"\r\n":
            raise MalformedChunk("a chunk does not end where it said")
        del data[:2]
        self._missing = 0
        return True


def _take_line(data: bytearray) -> bytes | None:
    end = data.find(b"\r\n", 0, LONGEST_LINE)
    if end < 0:
        if len(data) >= LONGEST_LINE:
            raise MalformedChunk("a chunk's first line is too long")
        return None
    line = bytes(data[:end])
    del data[: end + 2]
    return line


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 15 or not _HEX.issuperset(digits):
        raise MalformedChunk("a chunk's size is not a hexadecimal number")
    return int(digits, 16)
