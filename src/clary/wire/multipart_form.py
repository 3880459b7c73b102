"""A form as browsers upload it (multipart/form-data): its fields, then one file, read as it comes.

Fields that follow the file are not looked at, as in S3.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from clary.domain.faults import Fault
from clary.wire.chunked import Source

_BOUNDARY = re.compile(
    r'multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]{1,70})"|([^\s;]{1,70}))\s*(?:;.*)?'
)
_PARAMETER = re.compile(r';\s*(name|filename)="((?:[^"\\]|\\.)*)"')
_MOST_BEFORE_FILE = 64 << 10
_MOST_AFTER_FILE = 64 << 10


@dataclass(frozen=True, slots=True)
class Form:
    """`fields` by lower-case name. The file can be read once."""

    fields: Mapping[str, str]
    file: "FormFile"
    file_name: str
    file_type: str


def read_form(content_type: str, source: Source) -> Form:
    """Reads up to where the file begins. Raises Fault."""
    found = _BOUNDARY.fullmatch(content_type.strip())
    if found is None:
        raise _malformed()
    reader = _Reader(source, (found[1] or found[2]).encode("latin-1"))
    fields: dict[str, str] = {}
    while (headers := reader.next_part()) is not None:
        parameters = dict(_PARAMETER.findall(headers.get("content-disposition", "")))
        name = parameters.get("name", "").lower()
        if name == "file":
            file = FormFile(source, reader.buffer, reader.delimiter)
            return Form(fields, file, parameters.get("filename", ""), headers.get("content-type", ""))
        value = reader.text()
        if name:
            if name in fields:
                raise Fault("InvalidArgument", f"The form holds the field {name} twice.")
            fields[name] = value
    raise Fault("InvalidArgument", "POST requires exactly one file upload per request.")


@dataclass(slots=True)
class FormFile:
    """The file's bytes, a `Readable`. `least` and `most` are what the policy allows."""

    source: Source
    buffer: bytearray
    delimiter: bytes
    least: int = 0
    most: int | None = None
    size: int = 0
    trailers: Mapping[str, str] = field(default_factory=dict)
    _is_over: bool = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end. Raises Fault."""
        while not self._is_over:
            end = self.buffer.find(self.delimiter)
            ready = end if end >= 0 else len(self.buffer) - len(self.delimiter) + 1
            if ready > 0:
                return self._take(min(ready, size))
            if end == 0:
                self._finish()
            else:
                self.buffer += _more(self.source)
        return b""

    def _take(self, size: int) -> bytes:
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        self.size += size
        if self.most is not None and self.size > self.most:
            raise Fault(
                "EntityTooLarge",
                "Your proposed upload exceeds the maximum allowed size",
                members={"ProposedSize": str(self.size), "MaxSizeAllowed": str(self.most)},
            )
        return data

    def _finish(self) -> None:
        if self.size < self.least:
            raise Fault(
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed size",
                members={"ProposedSize": str(self.size), "MinSizeAllowed": str(self.least)},
            )
        left = _MOST_AFTER_FILE
        while left > 0 and (data := self.source()):
            left -= len(data)
        self._is_over = True


class _Reader:
    """The parts before the file."""

    def __init__(self, source: Source, boundary: bytes) -> None:
        self.delimiter = b"\r\n--" + boundary
        self.buffer = bytearray(b"\r\n")  # so that the first boundary looks like all others
        self._source = source
        self._read = 0

    def next_part(self) -> dict[str, str] | None:
        """The headers of the next part, its names in lower case; None behind the last one."""
        if self._until(self.delimiter).strip(b"\r\n"):
            raise _malformed()
        line = self._until(b"\r\n")
        if line.strip() == b"--":
            return None
        if line.strip():
            raise _malformed()
        headers: dict[str, str] = {}
        while line := self._until(b"\r\n"):
            name, colon, value = line.decode("utf-8", "replace").partition(":")
            if not colon:
                raise _malformed()
            headers[name.strip().lower()] = value.strip()
        return headers

    def text(self) -> str:
        end = self._find(self.delimiter)
        text = bytes(self.buffer[:end])
        del self.buffer[:end]
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            raise _malformed() from None

    def _until(self, mark: bytes) -> bytes:
        end = self._find(mark)
        data = bytes(self.buffer[:end])
        del self.buffer[: end + len(mark)]
        return data

    def _find(self, mark: bytes) -> int:
        while (end := self.buffer.find(mark)) < 0:
            if len(self.buffer) > _MOST_BEFORE_FILE:
                raise _too_much()
            data = _more(self._source)
            self._read += len(data)
            self.buffer += data
        if self._read - len(self.buffer) > _MOST_BEFORE_FILE:
            raise _too_much()
        return end


def _more(source: Source) -> bytes:
    data = source()
    if not data:
        raise Fault("IncompleteBody", "The form ends before its file does.")
    return data


def _too_much() -> Fault:
    return Fault(
        "MaxPostPreDataLengthExceeded", "Your POST request fields preceding the upload file were too large."
    )


def _malformed() -> Fault:
    return Fault(
        "MalformedPOSTRequest", "The body of your POST request is not well-formed multipart/form-data."
    )
