"""Takes one guarantee away from a Clary that runs under the chaos experiments, or kills its control at a chosen write.

Python imports this module at its start when its folder stands on PYTHONPATH, which only the experiments do. The
product itself has no such switch. CLARY_SABOTAGE names the guarantee: one of the functions below. CLARY_CRASH_FILE
names a file that says at which store write control is to die (`crash_at_a_write`); CLARY_RESTART_AT_ONCE takes the
supervisor's pauses away.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
    import secrets
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


def restart_at_once() -> None:
    """The supervisor starts what died without its growing pause, which would only make experiments longer."""
    from clary import supervisor

    supervisor.STEADY_AFTER_S = 0.0


def crash_at_a_write(file: Path) -> None:
    """Control dies, as of kill -9, at the write that the file names (`3 before`, `3 after` its commit), once.

    Writes are counted from when the file appears. The file goes first, so that the next control lives; that it is
    still there tells that fewer writes came.
    """
    from clary.store import Store, Transaction

    if "clary.main" not in sys.orig_argv:
        return
    write, count = Store.write, 0

    def die_if(here: str) -> None:
        with suppress(FileNotFoundError):
            if file.read_text() == here:
                file.unlink()
                os._exit(137)

    @contextmanager
    def write_or_die(self: Store) -> Iterator[Transaction]:
        nonlocal count
        with write(self) as tx:
            yield tx
            count = count + 1 if file.exists() else 0
            number = count
            die_if(f"{number} before")
        die_if(f"{number} after")

    Store.write = write_or_die  # type: ignore[method-assign]


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
    if crash_file := os.environ.get("CLARY_CRASH_FILE"):
        crash_at_a_write(Path(crash_file))
