"""What gateways and control say to each other about routes: messages, and the files that outlive both.

    gateway                         control
    Hello(protocol, number, …)  →
                                ←   Snapshot(version, routes)       or Refused(reason), then it closes
                                ←   Change(version, put, removed)   several publications may share one
    Applied(version)            →                                   every request from now on sees it
                                ←   Drain(number, instance_ids, timeout_s)
    Drained(number, still_busy) →                                   none outstanding, or the time is over
    Metrics(batch)              →
                                ←   MetricsTaken(source, sequence)

Versions belong to one life of control: a gateway that connects again starts from a new Snapshot. Each route also
lies in a file of its own, written before it is sent, so that a gateway starts with control down.
"""

import hashlib
import os
from collections.abc import Iterator
from logging import getLogger
from pathlib import Path

import msgspec

from clary.domain.instances import InstanceId
from clary.domain.routes import EndpointKey, EndpointRoute
from clary.links.decoding import decode_json
from clary.links.metrics import MetricBatch

PROTOCOL = 1

log = getLogger(__name__)


class Hello(msgspec.Struct, tag="hello", frozen=True):
    protocol: int
    number: int
    pid: int
    start_time: int


class Applied(msgspec.Struct, tag="applied", frozen=True):
    version: int


class Drained(msgspec.Struct, tag="drained", frozen=True):
    number: int
    still_busy: tuple[InstanceId, ...]


class Metrics(msgspec.Struct, tag="metrics", frozen=True):
    batch: MetricBatch


class Snapshot(msgspec.Struct, tag="snapshot", frozen=True):
    version: int
    routes: tuple[EndpointRoute, ...]
    identities: int = 0  # a number that changes when the file of `clary.links.identities` has
    metrics_since_ms: int = 0  # what was seen before is thrown away (`clary.links.metrics`)


class Change(msgspec.Struct, tag="change", frozen=True):
    version: int
    put: tuple[EndpointRoute, ...]
    removed: tuple[EndpointKey, ...]
    identities: int = 0
    metrics_since_ms: int = 0


class Drain(msgspec.Struct, tag="drain", frozen=True):
    number: int
    instance_ids: tuple[InstanceId, ...]
    timeout_s: float


class MetricsTaken(msgspec.Struct, tag="metrics_taken", frozen=True):
    source: str
    sequence: int


class Refused(msgspec.Struct, tag="refused", frozen=True):
    protocol: int
    reason: str


FromGateway = Hello | Applied | Drained | Metrics
FromControl = Snapshot | Change | Drain | MetricsTaken | Refused

encode = msgspec.json.encode
decode_from_gateway = msgspec.json.Decoder(FromGateway).decode
decode_from_control = msgspec.json.Decoder(FromControl).decode


class _RouteFile(msgspec.Struct, frozen=True):
    protocol: int
    route: EndpointRoute


def write_route(directory: Path, route: EndpointRoute) -> None:
    """Puts the route's file in place: whole or not at all, and still there after a power cut."""
    path = _path(directory, route.key)
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(encode(_RouteFile(PROTOCOL, route)))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    _sync_directory(directory)


def remove_route(directory: Path, key: EndpointKey) -> None:
    _path(directory, key).unlink(missing_ok=True)
    _sync_directory(directory)


def read_routes(directory: Path) -> list[EndpointRoute]:
    """Every route that lies in files. One that cannot be read is left out and logged: the others still serve."""
    return list(_read(directory)) if directory.is_dir() else []


def _read(directory: Path) -> Iterator[EndpointRoute]:
    for path in sorted(directory.glob("*.json")):
        try:
            file = decode_json(path.read_bytes(), _RouteFile)
        except FileNotFoundError:
            continue  # withdrawn meanwhile
        except (OSError, msgspec.DecodeError) as error:
            log.error("route file is unreadable", extra={"path": str(path), "error": str(error)})
            continue
        if file.protocol == PROTOCOL:
            yield file.route
        else:
            log.error("route file is of another version", extra={"path": str(path), "version": file.protocol})


def _path(directory: Path, key: EndpointKey) -> Path:
    return directory / (hashlib.sha256("\0".join(key).encode()).hexdigest()[:32] + ".json")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
