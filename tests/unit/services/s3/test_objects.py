"""Handlers called as the wire server calls them: streaming bodies, faults in their middle, answers that last."""

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.faults import Fault
from clary.domain.principals import assumed_role
from clary.services import s3
from clary.testing.clock import FakeClock
from clary.wire.operations import Answer, Call, FileBody, OperationTable

BUCKET = "bucket"
ACCOUNT = "123456789012"
LIMIT = 1 << 20


class Pieces:
    """A streaming body, which may fail at its end, where signatures turn out wrong."""

    def __init__(
        self, *pieces: bytes, fault: Fault | None = None, trailers: Mapping[str, str] | None = None
    ) -> None:
        self._pieces = list(pieces)
        self._fault = fault
        self.trailers = trailers or {}
        self.read_bytes = 0

    def read(self, size: int) -> bytes:
        if not self._pieces:
            if self._fault is not None:
                raise self._fault
            return b""
        piece = self._pieces.pop(0)
        assert len(piece) <= size
        self.read_bytes += len(piece)
        return piece


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[FilesystemBlobs]:
    blobs = FilesystemBlobs(tmp_path, FakeClock(), sync=False)
    blobs.create_bucket(BUCKET, "us-east-1")
    yield blobs
    blobs.close()


def answer(
    blobs: FilesystemBlobs, name: str, params: Mapping[str, object], **headers: str
) -> Mapping[str, object]:
    table = OperationTable()
    table.add("s3", *s3.resources(blobs, account=ACCOUNT, max_object_bytes=LIMIT))
    handler = table.find("s3", name)
    assert handler is not None
    call = Call(
        service="s3",
        operation=name,
        account=ACCOUNT,
        region="us-east-1",
        principal=assumed_role(ACCOUNT, "role", "session", "AKIA"),
        request_id="id",
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        headers={header.replace("_", "-"): value for header, value in headers.items()},
    )
    result = handler(call, {"Bucket": BUCKET, **params})
    return result.members if isinstance(result, Answer) else result or {}


def keys(blobs: FilesystemBlobs) -> list[str]:
    return [info.key for info in blobs.objects(BUCKET).objects]


def test_a_streamed_body_is_put_piece_by_piece(blobs: FilesystemBlobs) -> None:
    answer(blobs, "PutObject", {"Key": "k", "Body": Pieces(b"a" * 1000, b"b", b"c" * 500)})
    with blobs.open(BUCKET, "k") as opened:
        assert opened.read(10_000) == b"a" * 1000 + b"b" + b"c" * 500


@pytest.mark.parametrize("operation", ["PutObject", "UploadPart"])
def test_a_body_that_fails_at_its_end_is_not_kept(
    blobs: FilesystemBlobs, tmp_path: Path, operation: str
) -> None:
    upload = answer(blobs, "CreateMultipartUpload", {"Key": "k"})["UploadId"]
    bad = Pieces(b"x" * 1000, fault=Fault("XAmzContentSHA256Mismatch", "no"))
    more = {"UploadId": upload, "PartNumber": 1} if operation == "UploadPart" else {}
    with pytest.raises(Fault, match="XAmzContentSHA256Mismatch"):
        answer(blobs, operation, {"Key": "k", "Body": bad, **more})
    assert keys(blobs) == []
    assert [path for path in tmp_path.glob("*/**/*") if path.is_file()] == []


def test_a_declared_size_above_the_limit_is_refused_unread(blobs: FilesystemBlobs) -> None:
    body = Pieces(b"x")
    with pytest.raises(Fault, match="EntityTooLarge"):
        answer(blobs, "PutObject", {"Key": "k", "Body": body, "ContentLength": LIMIT + 1})
    with pytest.raises(Fault, match="EntityTooLarge"):
        answer(blobs, "PutObject", {"Key": "k", "Body": body}, x_amz_decoded_content_length=str(LIMIT + 1))
    assert body.read_bytes == 0


def test_a_body_that_grows_above_the_limit_is_not_read_further(blobs: FilesystemBlobs) -> None:
    body = Pieces(*[b"x" * 500_000] * 10)
    with pytest.raises(Fault, match="EntityTooLarge"):
        answer(blobs, "PutObject", {"Key": "k", "Body": body})
    assert body.read_bytes == 1_500_000
    assert keys(blobs) == []


def test_an_answer_stays_readable_when_its_object_is_replaced_before_it_is_sent(
    blobs: FilesystemBlobs,
) -> None:
    answer(blobs, "PutObject", {"Key": "k", "Body": b"old content"})
    body = answer(blobs, "GetObject", {"Key": "k", "Range": "bytes=4-"})["Body"]
    answer(blobs, "PutObject", {"Key": "k", "Body": b"new"})
    answer(blobs, "DeleteObject", {"Key": "k"})
    assert isinstance(body, FileBody)
    assert Path(body.path).read_bytes()[body.offset : body.offset + body.length] == b"content"


def test_a_list_of_deletions_needs_a_digest(blobs: FilesystemBlobs) -> None:
    deletions = {"Delete": {"Objects": [{"Key": "k"}]}}
    answer(blobs, "PutObject", {"Key": "k", "Body": b""})
    with pytest.raises(Fault, match="Content-MD5"):
        answer(blobs, "DeleteObjects", deletions)
    assert keys(blobs) == ["k"]
    with pytest.raises(Fault, match="BadDigest"):
        answer(blobs, "DeleteObjects", deletions, content_md5="A" * 22 + "==")
    assert keys(blobs) == ["k"]
    of_nothing = base64.b64encode(hashlib.md5(b"", usedforsecurity=False).digest()).decode()
    answer(blobs, "DeleteObjects", deletions, content_md5=of_nothing)
    assert keys(blobs) == []


def test_a_key_that_is_no_text_is_refused(blobs: FilesystemBlobs) -> None:
    with pytest.raises(Fault, match="InvalidURI"):
        answer(blobs, "PutObject", {"Key": "\udcff", "Body": b""})


class Overtaken:
    """Something in whose way somebody else does a thing, once, just before a call of this one."""

    def __init__(self, real: Any, name: str, before: Callable[[], object]) -> None:
        self._real, self._name, self._before = real, name, before

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            self._name = ""
            self._before()
        return getattr(self._real, name)


@pytest.mark.parametrize("moment", ["upload", "parts", "complete", "stage"])
def test_an_upload_that_is_completed_twice_at_once_tells_both_the_same(
    blobs: FilesystemBlobs, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A client that waited too long for its first answer asks again while the first call still works."""
    upload = answer(blobs, "CreateMultipartUpload", {"Key": "k"})["UploadId"]
    part = answer(blobs, "UploadPart", {"Key": "k", "UploadId": upload, "PartNumber": 1, "Body": b"x"})
    named = {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}}
    params = {"Key": "k", "UploadId": upload, **named}
    first: list[Mapping[str, object]] = []

    def complete() -> None:
        first.append(answer(blobs, "CompleteMultipartUpload", params))

    overtaken: Any = Overtaken(blobs, moment, complete)
    if moment == "stage":  # after the look at the parts, before the first byte of them is read
        overtaken = blobs
        monkeypatch.setattr(blobs, "_payloads", Overtaken(blobs._payloads, moment, complete))
    second = answer(overtaken, "CompleteMultipartUpload", params)
    assert [second] == first
    assert keys(blobs) == ["k"]


def test_an_object_that_is_replaced_meanwhile_is_deleted_when_any_will_do(blobs: FilesystemBlobs) -> None:
    answer(blobs, "PutObject", {"Key": "k", "Body": b"old"})
    overtaken: Any = Overtaken(
        blobs, "delete", lambda: answer(blobs, "PutObject", {"Key": "k", "Body": b"new"})
    )
    answer(overtaken, "DeleteObject", {"Key": "k", "IfMatch": "*"})
    assert keys(blobs) == []
    with pytest.raises(Fault, match="NoSuchKey"):
        answer(blobs, "DeleteObject", {"Key": "k", "IfMatch": "*"})
