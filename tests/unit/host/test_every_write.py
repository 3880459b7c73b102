"""A disk that is full at any one write of the host while an instance starts: it fails for that reason, or comes up.

The host runs in this process, so that its writes are caught; minders and instances are processes of their own.
"""

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clary.blobs.base import Attributes
from clary.blobs.filesystem import FilesystemBlobs
from clary.catalog import Catalog
from clary.domain.clock import SystemClock
from clary.domain.instances import Artifact, InstanceSpec, InstanceStatus
from clary.drivers.base import DriverError
from clary.drivers.local import LocalDriver
from clary.host.service import Host
from clary.links import instances as files
from clary.links.hosts import HostClient
from clary.settings import Settings
from failing_disk import FailingDisk, installed
from hosting import harness
from hosting.harness import toy_spec, until_phase

MOST_WRITES = 200
BUCKET = "models"


class World:
    """A host with one instance, `kept`, and objects to start others from."""

    def __init__(self, root: Path) -> None:
        settings = Settings(data_dir=root / "d", cache_dir=root / "c", prewarm=(), ping_interval_s=0.1)
        settings.run_dir.mkdir(parents=True)
        self._blobs = FilesystemBlobs(settings.objects_dir, SystemClock(), sync=False)
        self._blobs.create_bucket(BUCKET, "us-east-1")
        catalog = Catalog.load(Path(harness.__file__).parent / "frameworks")
        self._host = Host(settings, catalog, SystemClock(), os.environ)
        self._client = HostClient(settings.host_socket)
        self.driver = LocalDriver(self._client)
        self._started = 0
        self.kept = self.start()
        until_phase(self.driver, self.kept.instance_id, "ready")

    def close(self) -> None:
        self.driver.remove([status.instance_id for status in self.driver.list()])
        self._client.close()
        self._host.close()
        self._blobs.close()

    def next(self) -> InstanceSpec:
        """An instance with an artefact that nobody has fetched before."""
        self._started += 1
        with self._blobs.stage() as staged:
            staged.write(archive(self._started))
            key = f"{self._started}.tar.gz"
            self._blobs.put(BUCKET, key, staged, etag=key, attributes=Attributes())
        artifact = Artifact(f"s3://{BUCKET}/{key}", "/opt/ml/model", "archive")
        return replace(toy_spec(self._started), artifacts=(artifact,))

    def start(self) -> InstanceSpec:
        spec = self.next()
        self.driver.start(spec)
        return spec


def archive(number: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        content = b"%d" % number
        member = tarfile.TarInfo("model")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def root() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="ch-"))
    yield root
    shutil.rmtree(root)


@pytest.fixture
def disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingDisk]:
    with installed(root, monkeypatch) as disk:
        yield disk


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [True, False], ids=["full", "once"])
def test_an_instance_fails_for_want_of_space_or_comes_up(
    root: Path, disk: FailingDisk, lasting: bool
) -> None:
    world = World(root)
    try:
        for at in range(1, MOST_WRITES):
            spec = world.next()
            with disk.full_at(at, lasting=lasting) as attempt:
                outcome = try_to_start(world, spec)
            check(outcome, f"at write {at}: {attempt.failed}")
            (kept,) = world.driver.inspect([world.kept.instance_id]).values()
            assert kept.phase == "ready"
            world.driver.remove([spec.instance_id])
            again = world.start()
            until_phase(world.driver, again.instance_id, "ready")
            world.driver.remove([again.instance_id])
            if not attempt.was_hit:
                break
        assert MOST_WRITES > at > 5, attempt.writes
    finally:
        world.close()


def test_an_instance_that_has_no_time_is_ended_although_its_minder_cannot_be_told(
    root: Path, disk: FailingDisk
) -> None:
    world = World(root)
    try:
        spec = toy_spec(99, "stubborn")
        world.driver.start(spec)
        until_phase(world.driver, spec.instance_id, "ready")
        with disk.full_at(1, lasting=True):
            world.driver.stop([spec.instance_id], 0.0)
            until_phase(world.driver, spec.instance_id, "exited")
        # Its minder saw it end and wrote that down; it was not given up on and killed as well.
        assert (root / "d/instances" / spec.instance_id / files.EXIT).exists()
    finally:
        world.close()


def try_to_start(world: World, spec: InstanceSpec) -> InstanceStatus | DriverError:
    try:
        world.driver.start(spec)
    except DriverError as error:
        return error
    seen = 0
    while True:
        (status,) = world.driver.inspect([spec.instance_id]).values()
        if status.phase in ("ready", "exited"):
            return status
        seen = world.driver.wait(seen, 5)


def check(outcome: InstanceStatus | DriverError, where: str) -> None:
    if isinstance(outcome, DriverError):
        assert "No space left" in str(outcome), where
    elif outcome.phase == "exited":
        assert outcome.failure is not None, where
        assert outcome.failure.code == "DiskFull", f"{where}: {outcome.failure}"
        assert "free some space" in outcome.failure.reason, where
