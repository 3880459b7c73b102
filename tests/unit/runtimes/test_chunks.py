"""Chunked bodies give the same bytes however they are cut on their way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.runtimes.chunks import ChunkDecoder, ChunksTooLong, MalformedChunk

PARTS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def encode(parts: list[bytes]) -> bytes:
    return b"".join(b"%x;note=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nTrailer: x\r\n\r\n"


@given(PARTS, st.integers(1, 7), st.binary(max_size=10))
def test_any_cutting_gives_the_body_and_leaves_what_follows(
    parts: list[bytes], step: int, rest: bytes
) -> None:
    decoder, waiting, body = ChunkDecoder(1000), bytearray(), None
    encoded = encode(parts)
    for start in range(0, len(encoded), step):
        assert body is None
        waiting += encoded[start : start + step]
        if start + step >= len(encoded):
            waiting += rest
        body = decoder.take(waiting)
    assert body == b"".join(parts)
    assert waiting == rest


@pytest.mark.parametrize(
    "encoded",
    [b"zz\r\n", b"\r\n", b"-1\r\n", b"3\r\nabcdef", b"0x3\r\nabc\r\n", b"1" * 5000, b"f" * 20 + b"\r\n"],
)
def test_broken_chunks_are_refused(encoded: bytes) -> None:
    with pytest.raises(MalformedChunk):
        ChunkDecoder(1000).take(bytearray(encoded))


def test_a_body_beyond_the_limit_is_refused_before_it_is_read() -> None:
    decoder = ChunkDecoder(10)
    assert decoder.take(bytearray(b"8\r\n12345678\r\n")) is None
    with pytest.raises(ChunksTooLong):
        decoder.take(bytearray(b"3\r\n"))
