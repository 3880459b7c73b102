"""Captured requests on their way from a gateway to their bucket: one file for each object to be.

A gateway appends to `PID-START-ID.part` and renames it to `….ready` when it is full or old enough; control puts the
ready ones into the bucket, and removes a file only after that. So nothing depends on the two being there at the same
time, and what a killed gateway left (a `.part` whose process is gone) is found by its name.

The first line of a file says where it belongs (`Header`); each line after it is one captured request.
"""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from clary.links.decoding import decode_json
from clary.links.processes import ProcessIdentity

PART = ".part"
READY = ".ready"


class Header(msgspec.Struct, frozen=True):
    """Where the lines of a file belong, and whom they come from: account, region, endpoint's and variant's name."""

    bucket: str
    key: str
    account: str
    region: str
    endpoint: str
    variant: str
    kms_key_id: str = ""


class UnreadableCapture(Exception):
    """The file has no header: it was cut off before its first line was whole."""


def part_path(directory: Path, process: ProcessIdentity, id_: str) -> Path:
    return directory / f"{process.pid}-{process.start_time}-{id_}{PART}"


def object_key(prefix: str, endpoint: str, variant: str, at: datetime, id_: str) -> str:
    """`PREFIX/ENDPOINT/VARIANT/yyyy/mm/dd/hh/MM-SS-mmm-ID.jsonl`, in UTC: SageMaker's layout."""
    path = f"{endpoint}/{variant}/{at:%Y/%m/%d/%H/%M-%S}-{at.microsecond // 1000:03d}-{id_}.jsonl"
    return f"{prefix.strip('/')}/{path}" if prefix.strip("/") else path


def writer_of(path: Path) -> ProcessIdentity | None:
    """The process that writes, or wrote, a file; None for a name that no gateway gave."""
    pid, _, rest = path.name.partition("-")
    start_time = rest.partition("-")[0]
    if not (pid.isdigit() and start_time.isdigit()):
        return None
    return ProcessIdentity(int(pid), int(start_time))


def write_header(file: BinaryIO, header: Header) -> int:
    """How many bytes it takes."""
    return file.write(msgspec.json.encode(header) + b"\n")


def read_header(file: BinaryIO) -> Header:
    """Leaves the file at the first captured request. Raises `UnreadableCapture`."""
    line = file.readline()
    try:
        return decode_json(line, Header)
    except msgspec.DecodeError as error:
        raise UnreadableCapture(str(error)) from error


def whole_lines(file: BinaryIO, piece: int = 1 << 20) -> Iterator[bytes]:
    """What is left of the file, in pieces, up to its last whole line."""
    rest = b""
    while data := file.read(piece):
        data = rest + data
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        if end:
            yield data[:end]


def spooled_bytes(directory: Path) -> int:
    """How much waits to be put into buckets, everybody's."""
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue  # put into its bucket meanwhile
    return total
