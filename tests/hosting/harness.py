"""A host in a process of its own, to be killed and started again, and what tests ask about its instances."""

import dataclasses
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clary import settings
from clary.domain.instances import Container, InstanceId, InstanceSpec, InstanceStatus, LogTarget
from clary.drivers.base import Driver, DriverError
from clary.drivers.local import LocalDriver
from clary.host import limits
from clary.host.rungs import choose
from clary.links import instances, processes
from clary.links.hosts import HostClient

PATIENCE_S = 300.0
"""Nothing here takes so long, on whatever machine."""
MAIN = Path(__file__).parent / "host_main.py"


def toy_spec(number: int, do: str = "serve", **changes: object) -> InstanceSpec:
    """An instance of the tests' framework."""
    id = InstanceId(f"i-{number:017x}")
    spec = InstanceSpec(
        instance_id=id,
        role="serve",
        image="123456789012.dkr.ecr.us-east-1.amazonaws.com/toy:1",
        log=LogTarget("123456789012", "us-east-1", "/aws/sagemaker/Endpoints/toys", f"AllTraffic/{id}"),
        environment={"TOY_DO": do},
        startup_timeout_s=PATIENCE_S,
    )
    return dataclasses.replace(spec, **changes)  # type: ignore[arg-type]


def toy_pair(number: int, first: str = "serve", second: str = "serve") -> InstanceSpec:
    """An instance of two containers of the tests' framework."""
    image = toy_spec(number).image
    containers = tuple(
        Container(name, image, {"TOY_DO": do}) for name, do in (("first", first), ("second", second))
    )
    return toy_spec(number, environment={}, containers=containers, container="first")


class HostProcess:
    """`clary.host`, started, killed and started again over one data directory."""

    def __init__(self, root: Path, **changes: object) -> None:
        self.settings = settings.Settings(
            data_dir=root / "d",
            cache_dir=root / "c",
            prewarm=(),
            ping_interval_s=0.1,
            **{"container_engine": "none", **changes},  # type: ignore[arg-type]
        )
        # Of one instance: its minder and itself; on rung 1 an init too.
        self.processes = 3 if choose(self.settings.sandbox, 200_000).number else 2
        self.settings.run_dir.mkdir(parents=True)
        self.log = root / "host.log"
        self._file = self.settings.run_dir / "settings.json"
        self._file.write_text(settings.dump(self.settings))
        self._process: subprocess.Popen[bytes] | None = None
        self.client = HostClient(self.settings.host_socket)
        self.driver = LocalDriver(self.client)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(MAIN), str(self._file)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.driver.list()
                return
            except DriverError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.kill()
                    raise AssertionError(f"the host did not come up: {self.log.read_text()}") from None
                time.sleep(0.01)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def resume(self) -> None:
        if self._process is None:
            self.start()

    def terminate(self) -> None:
        self._end(signal.SIGTERM)

    def close(self) -> None:
        """Ends the instances too, whatever a failed test left."""
        try:
            if self._process is None:
                self.start()
            self.driver.remove([status.instance_id for status in self.driver.list()])
            self.terminate()
        finally:
            self.kill()
            for directory in self.settings.instances_dir.glob("i-*"):
                processes.signal(instances.minder_of(directory), signal.SIGTERM)
            self.client.close()

    def directory(self, id: InstanceId) -> Path:
        return self.settings.instances_dir / id

    def log_text(self, spec: InstanceSpec) -> str:
        return "\n".join(path.read_text("utf-8", "replace") for path in self.settings.logs_dir.rglob("*.log"))

    def until_logged(self, spec: InstanceSpec, text: str) -> None:
        """What a container prints comes through its engine, a while after whoever sees it serve."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.log_text(spec):
            assert time.monotonic() < deadline, f"it was never printed: {text!r}"
            time.sleep(0.05)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE_S)
            self._process = None


@contextmanager
def running_host(**changes: object) -> Iterator[HostProcess]:
    """A host over a short temporary directory: a socket's path may have 107 bytes only."""
    root = Path(tempfile.mkdtemp(prefix="ch-"))
    host = HostProcess(root, **changes)
    host.start()
    try:
        yield host
    finally:
        host.close()
        shutil.rmtree(root, ignore_errors=True)  # what is just ending may still tidy up there itself


def until(
    driver: Driver, ids: Iterable[InstanceId], holds: Callable[[InstanceStatus], bool]
) -> list[InstanceStatus]:
    """Waits, by the driver's own `wait`, until it holds for all of them."""
    wanted = list(ids)
    deadline = time.monotonic() + PATIENCE_S
    seen = 0
    while True:
        seen = driver.wait(seen, 0)
        statuses = driver.inspect(wanted)
        if all(holds(statuses[id]) for id in wanted):
            return [statuses[id] for id in wanted]
        final = [status for status in statuses.values() if status.phase == "exited" and not holds(status)]
        assert not final, f"it cannot come to be any more: {final}"
        assert time.monotonic() < deadline, f"it never came to be: {statuses}"
        driver.wait(seen, 5)


def until_phase(driver: Driver, id: InstanceId, *phases: str) -> InstanceStatus:
    return until(driver, [id], lambda status: status.phase in phases)[0]


def processes_of(directory: Path) -> list[int]:
    """Every process of this instance: what works in its directory, and what its minder has or had below it."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink() == directory:
                    found.add(int(entry.name))
            except OSError:
                continue
    if (minder := instances.minder_of(directory)) is not None:
        found |= {*limits.members_of_session(minder.pid), *limits.descendants(minder.pid)}
    return sorted(pid for pid in found if is_running(pid))


def rungs_here() -> list[str]:
    """The sandbox rungs that work on this machine, as the setting `sandbox` names them."""
    return ["0", "1"] if not choose("1", 200_000).refusal else ["0"]


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in ("Z", "X")
