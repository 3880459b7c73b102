"""Takes one guarantee away from a Clary that runs under the chaos experiments, or kills its control at a chosen write.

Python imports this module at its start when its folder stands on PYTHONPATH, which only the experiments do. The
product itself has no such switch. CLARY_SABOTAGE names the guarantee: one of the functions below. CLARY_CRASH_FILE
names a file that says at which store write control is to die (`crash_at_a_write`); CLARY_RESTART_AT_ONCE takes the
supervisor's pauses away; CLARY_SMALL_INSTANCES makes an instance type small.
"""

import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def survival() -> None:
    """A gateway ends when control, the host or the supervisor does, as if it could not work without it."""
    _share_the_fate_of("control", "host", "supervisor")


def company() -> None:
    """A gateway ends when another one does."""
    _share_the_fate_of("gateway-0", "gateway-1")


def cleanup() -> None:
    """Stopping forgets the instances."""
    from clary.links import stopping

    stopping.stop_instances = lambda settings: None


def identity() -> None:
    """A start that is repeated starts a second instance, and nobody looks for what is in no record."""
    from dataclasses import replace

    from clary.domain.instances import InstanceId, InstanceSpec, InstanceStatus
    from clary.drivers.base import Handle
    from clary.drivers.local import LocalDriver

    start, list_ = LocalDriver.start, LocalDriver.list

    def start_anew(self: LocalDriver, spec: InstanceSpec) -> Handle:
        if self.inspect([spec.instance_id])[spec.instance_id].phase != "missing":
            spec = replace(spec, instance_id=InstanceId("i-dddd" + secrets.token_hex(7)[:13]))
        return start(self, spec)

    def list_recorded(self: LocalDriver) -> list[InstanceStatus]:
        return [status for status in list_(self) if not status.instance_id.startswith("i-dddd")]

    LocalDriver.start = start_anew  # type: ignore[method-assign]
    LocalDriver.list = list_recorded  # type: ignore[method-assign]


def recovery() -> None:
    """A control that starts knows nothing of what the one before it had begun."""
    from clary.reconcilers.base import Runner
    from clary.store import tables

    def forget(self: Runner) -> None:
        with self._store.write() as tx:
            tx.work._connection.execute(tables.work.delete())

    Runner.recover = forget  # type: ignore[method-assign]
    Runner.sweep = lambda self: None  # type: ignore[method-assign]


def acks() -> None:
    """A route counts as taken before any gateway has it, and gateways hear of it late."""
    from clary.links import routes

    send = routes.send_frame  # type: ignore[attr-defined]

    def send_late(sock: object, payload: bytes) -> None:
        time.sleep(0.2)
        send(sock, payload)  # type: ignore[arg-type]

    routes.RouteHub._settle = lambda self, version: None  # type: ignore[method-assign]
    routes.send_frame = send_late  # type: ignore[attr-defined]


def validation() -> None:
    """Requests reach their handlers unchecked."""
    from clary.wire import validate

    validate.validate = lambda *arguments: None


def signatures() -> None:
    """Every signature is taken for right."""
    import hmac

    hmac.compare_digest = lambda a, b: True


def same_fleet() -> None:
    """Other weights and counts make another fleet."""
    from dataclasses import replace

    from clary.services.sagemaker import endpoints

    with_numbers = endpoints._with_numbers

    def with_numbers_anew(fleet: Any, wanted: Any) -> Any:
        return replace(with_numbers(fleet, wanted), id=secrets.token_hex(8))

    endpoints._with_numbers = with_numbers_anew


def alarms() -> None:
    """Nobody reads the alarms that watch an update."""
    from clary.domain import watching

    watching._alarm = lambda seen: None


def second_tries() -> None:
    """A request whose instance has ended is not asked of another one."""
    from clary.gateway.invocation import Invocation

    Invocation._other_target = lambda self: None  # type: ignore[method-assign]


def replacement() -> None:
    """An instance that died is replaced a minute later."""
    from clary.domain import places

    places.delay_s = lambda failures: 60.0 if failures else 0.0


def drain() -> None:
    """What is retired is killed at once, whatever it is doing."""
    from collections.abc import Iterable

    from clary.domain.instances import InstanceId
    from clary.drivers.local import LocalDriver
    from clary.links.routes import RouteHub

    stop = LocalDriver.stop
    RouteHub.drain = lambda self, ids, timeout_s: set()  # type: ignore[method-assign]

    def kill(self: LocalDriver, ids: Iterable[InstanceId], grace_s: float) -> None:
        stop(self, ids, 0.0)

    LocalDriver.stop = kill  # type: ignore[method-assign]


def weights() -> None:
    """Every variant is as likely as any other."""
    from clary.gateway.balance import Weighted

    begin = Weighted.__init__
    Weighted.__init__ = lambda self, pairs: begin(self, [(value, min(w, 1.0)) for value, w in pairs])  # type: ignore


def retirement() -> None:
    """A gateway that has a successor is killed."""
    import signal

    from clary.gateway import door

    door.ask_to_stop = lambda path: os.kill(door.ask_state(path).pid, signal.SIGKILL)  # type: ignore


def haste() -> None:
    """Load is watched as slowly as on AWS."""
    os.environ["CLARY_AUTOSCALING_TIMING"] = "aws"


def aside() -> None:
    """A captured request is on the disk before anything else happens."""
    from clary.domain.routes import EndpointRoute
    from clary.gateway.capture import Capturer
    from clary.gateway.capture_lines import Captured

    note = Capturer.note

    def write(self: Capturer, route: EndpointRoute, variant: str, captured: Captured) -> None:
        note(self, route, variant, captured)
        with (self._writer._directory / "written").open("ab") as file:
            file.write(captured.request.data)
            file.flush()
            os.fsync(file.fileno())

    Capturer.note = write  # type: ignore[method-assign]


def honesty() -> None:
    """What capture drops is counted nowhere."""
    from clary.gateway import capture

    count = capture.Capturer._count

    def forget(self: capture.Capturer, stream: capture.Stream, name: str, records: int) -> None:
        if name != capture.DROPPED:
            count(self, stream, name, records)

    capture.Capturer._count = forget  # type: ignore[method-assign]


def restart_at_once() -> None:
    """The supervisor starts what died without its growing pause, which would only make experiments longer."""
    from clary.supervisor import leading

    leading.STEADY_AFTER_S = 0.0


def small_instances() -> None:
    """An ml.t2.medium has 512 MiB: what fills memory needs not fill the machine's."""
    from clary.domain import instance_types

    instance_types._LISTED["t2", "medium"] = (2, 0.5, 0)


def crash_at_a_write(file: Path) -> None:
    """Control dies, as of kill -9, at the write that the file names (`3 before`, `3 after` its commit), once.

    Writes are counted from when the file appears. The file goes first, so that the next control lives; that it is
    still there tells that fewer writes came.
    """
    from clary.store import Store, Transaction

    if "clary.main" not in sys.orig_argv:
        return
    write, count, counted = Store.write, 0, 0

    def die_if(here: str) -> None:
        with suppress(FileNotFoundError):
            if file.read_text() == here:
                file.unlink()
                os._exit(137)

    @contextmanager
    def write_or_die(self: Store, *, on_full_disk: bool = False) -> Iterator[Transaction]:
        nonlocal count, counted
        with write(self, on_full_disk=on_full_disk) as tx:
            yield tx
            appeared = _time_of(file)
            count = count + 1 if appeared == counted else 1
            counted = appeared
            number = count
            die_if(f"{number} before")
        die_if(f"{number} after")

    Store.write = write_or_die  # type: ignore[method-assign]


def _time_of(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.stat().st_mtime_ns
    return 0


def _share_the_fate_of(*names: str) -> None:
    if "clary.gateway" not in sys.orig_argv:
        return
    from clary.links import processes

    run_dir = Path(sys.orig_argv[sys.orig_argv.index("--settings") + 1]).parent

    def watch() -> None:
        known: set[processes.ProcessIdentity] = set()
        while True:
            found = [processes.alive(run_dir / f"{name}.pid.json") for name in names]
            known |= {identity for identity in found if identity is not None}
            if any(not processes.is_alive(identity) for identity in known):
                os._exit(1)
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()


with suppress(ImportError):  # a runtime environment's Python, where there is no Clary to sabotage
    if wanted := os.environ.get("CLARY_SABOTAGE"):
        globals()[wanted]()
    if os.environ.get("CLARY_RESTART_AT_ONCE") or os.environ.get("CLARY_CRASH_FILE"):
        restart_at_once()
    if os.environ.get("CLARY_SMALL_INSTANCES"):
        small_instances()
    if crash_file := os.environ.get("CLARY_CRASH_FILE"):
        crash_at_a_write(Path(crash_file))
