"""Chunked uploads: AWS's published example, botocore's own encoder, and everything that can be wrong."""

import base64
import hashlib
import io
import threading
import zlib
from collections.abc import Callable

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.faults import Fault
from clary.domain.principals import assumed_role
from clary.wire.chunked import (
    BodyPipe,
    ChunkDecoder,
    ChunkSigner,
    VerifyingBody,
    broken_body,
    verifying_body,
    whole,
)
from clary.wire.sigv4 import Identity, signing_key

PRINCIPAL = assumed_role("123456789012", "R", "s", "AKIAIOSFODNN7EXAMPLE")
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
KEY = signing_key(SECRET, "20130524", "us-east-1", "s3")

# "Signature calculations: transferring payload in multiple chunks" of the Amazon S3 API reference.
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
SIGNATURES = (
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
)
PUBLISHED = (
    b"10000;chunk-signature=%b\r\n" % SIGNATURES[0].encode()
    + b"a" * 65536
    + b"\r\n400;chunk-signature=%b\r\n" % SIGNATURES[1].encode()
    + b"a" * 1024
    + b"\r\n0;chunk-signature=%b\r\n\r\n" % SIGNATURES[2].encode()
)


def identity(payload: str, signature: str = SEED) -> Identity:
    return Identity(PRINCIPAL, "s3", "us-east-1", "20130524T000000Z", signature, payload)


class Keys:
    def signing_key(self, identity: Identity) -> bytes:
        return KEY


def body_of(data: bytes, payload: str, **headers: str) -> VerifyingBody:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return verifying_body(whole(data), identity(payload), named, Keys())


SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


def test_the_published_example_is_decoded() -> None:
    body = body_of(PUBLISHED, SIGNED, x_amz_decoded_content_length="66560")
    assert body.read_all() == b"a" * 66560


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 5000))
def test_it_is_decoded_however_it_is_cut(cut: int) -> None:
    decoder = ChunkDecoder(ChunkSigner(identity(SIGNED), KEY), has_trailer=False)
    parts = [decoder.feed(PUBLISHED[at : at + cut]) for at in range(0, len(PUBLISHED), cut)]
    assert b"".join(parts) == b"a" * 66560
    assert decoder.is_complete


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(PUBLISHED) - 1), flip=st.integers(1, 255))
def test_any_changed_byte_of_it_is_refused(at: int, flip: int) -> None:
    changed = bytearray(PUBLISHED)
    changed[at] ^= flip
    if bytes(changed).lower() == PUBLISHED.lower():
        return  # the size's digits may be of either case
    with pytest.raises(Fault):
        body_of(bytes(changed), SIGNED, x_amz_decoded_content_length="66560").read_all()


@pytest.mark.parametrize("length", [0, 5, 60000, len(PUBLISHED) - 1])
def test_a_truncated_one_is_refused(length: int) -> None:
    with pytest.raises(Fault, match="number of bytes"):
        body_of(PUBLISHED[:length], SIGNED, x_amz_decoded_content_length="66560").read_all()


def signed_with_trailer(data: bytes, trailer: str) -> bytes:
    signer = ChunkSigner(identity(SIGNED_TRAILER), KEY)
    first = signer.chunk(hashlib.sha256(data).hexdigest())
    last = signer.chunk(hashlib.sha256(b"").hexdigest())
    end = signer.trailer(hashlib.sha256(f"{trailer}\n".encode()).hexdigest())
    return (
        f"{len(data):x};chunk-signature={first}\r\n".encode()
        + data
        + f"\r\n0;chunk-signature={last}\r\n{trailer}\r\nx-amz-trailer-signature:{end}\r\n\r\n".encode()
    )


def test_a_signed_trailer_is_verified_and_told() -> None:
    data = signed_with_trailer(b"hello", "x-amz-checksum-crc32:NhCmhg==")
    body = body_of(data, SIGNED_TRAILER, x_amz_trailer="x-amz-checksum-crc32")
    assert body.read_all() == b"hello"
    assert body.trailers == {"x-amz-checksum-crc32": "NhCmhg=="}
    for changed in (data.replace(b"NhCm", b"NhCn"), data.replace(b"hello", b"hellp")):
        with pytest.raises(Fault) as caught:
            body_of(changed, SIGNED_TRAILER, x_amz_trailer="x-amz-checksum-crc32").read_all()
        assert caught.value.code == "SignatureDoesNotMatch"


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=5000), chunk=st.integers(1, 2000), read=st.integers(1, 3000))
def test_what_botocore_encodes_is_decoded(data: bytes, chunk: int, read: int) -> None:
    encoded = AwsChunkedWrapper(
        io.BytesIO(data), checksum_cls=Crc32Checksum, checksum_name="x-amz-checksum-crc32", chunk_size=chunk
    ).read()
    body = body_of(encoded, UNSIGNED_TRAILER, x_amz_trailer="x-amz-checksum-crc32")
    assert b"".join(iter(lambda: body.read(read), b"")) == data
    crc = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    assert body.trailers == {"x-amz-checksum-crc32": crc}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"zz\r\n", "InvalidRequest"),
        (b"-1\r\n", "InvalidRequest"),
        (b"\r\n", "InvalidRequest"),
        (b"f" * 40, "IncompleteBody"),
        (b"f" * 2000, "InvalidRequest"),
        (b"fffffffffffffff\r\n", "InvalidRequest"),
        (b"3\r\nabcd\r\n0\r\n\r\n", "InvalidRequest"),
        (b"3\r\nabc\r\n0\r\n\r\nmore", "InvalidRequest"),
        (b"3\r\nabc\r\n0\r\nno colon\r\n\r\n", "MalformedTrailerError"),
        (b"3\r\nabc\r\n0\r\n\r\n", "MalformedTrailerError"),
    ],
)
def test_a_malformed_one_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(Fault) as caught:
        body_of(data, UNSIGNED_TRAILER, x_amz_trailer="x-amz-checksum-crc32").read_all()
    assert caught.value.code == code


def test_a_body_that_is_not_the_signed_one_never_gives_its_last_byte() -> None:
    parts = iter([b"one", b"two"])
    body = VerifyingBody(lambda: next(parts, b""), service="s3", payload=hashlib.sha256(b"other").hexdigest())
    assert body.read(10) == b"one"
    with pytest.raises(Fault) as caught:
        body.read(10)
    assert caught.value.code == "XAmzContentSHA256Mismatch"


def test_a_plain_and_an_unsigned_body_are_read_as_they_are() -> None:
    assert body_of(b"abc", hashlib.sha256(b"abc").hexdigest()).read_all() == b"abc"
    assert body_of(b"", hashlib.sha256(b"").hexdigest()).read_all() == b""
    assert body_of(b"abc", "UNSIGNED-PAYLOAD").read_all() == b"abc"


def in_thread(work: Callable[[], bytes]) -> tuple[threading.Thread, list[bytes | Fault]]:
    results: list[bytes | Fault] = []

    def run() -> None:
        try:
            results.append(work())
        except Fault as fault:
            results.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def test_a_pipe_says_when_it_is_full_and_when_it_has_room() -> None:
    room = threading.Event()
    pipe = BodyPipe(room.set, capacity=10)
    assert pipe.put(b"a" * 5)
    assert not pipe.put(b"b" * 6)
    thread, results = in_thread(lambda: b"".join(iter(pipe, b"")))
    assert room.wait(30)
    pipe.end()
    thread.join(30)
    assert results == [b"aaaaabbbbbb"]


def test_a_pipe_that_breaks_off_raises_on_the_reading_side() -> None:
    pipe = BodyPipe(lambda: None)
    thread, results = in_thread(lambda: b"".join(iter(pipe, b"")))
    pipe.put(b"half")
    pipe.end(broken_body("the client closed the connection"))
    thread.join(30)
    assert isinstance(results[0], Fault) and results[0].code == "IncompleteBody"


def test_who_still_reads_when_the_server_stops_does_not_take_a_part_for_the_whole() -> None:
    arrived, coming = BodyPipe(lambda: None), BodyPipe(lambda: None)
    arrived.put(b"all of it, not read yet")
    arrived.end()
    thread, results = in_thread(lambda: b"".join(iter(coming, b"")))
    for pipe in (arrived, coming):
        pipe.close()
        pipe.end()  # its last part comes all the same
    with pytest.raises(Fault, match="IncompleteBody"):
        arrived()
    thread.join(60)
    assert isinstance(results[0], Fault)
