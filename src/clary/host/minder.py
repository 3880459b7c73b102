"""The minder: one small process beside each instance, which is there when the instance ends.

Runs inside the zygote's fork, so the standard library is all there is, and as little of it as can be: what the
minder touches becomes private memory of every instance. It starts a session of its own, forks the instance
(`minder_forks`), passes SIGTERM on, kills whatever the instance leaves behind (it is the subreaper, so a daemonised
child comes back to it), and writes exit.json. The host may die and come back meanwhile; the minder does not care.

The files are described in `clary.links.instances`, which cannot be imported here.

On rung 1 the fork is an init, process 1 of a PID namespace: it makes the sandbox (`clary.host.sandbox`), forks the
instance inside, passes SIGTERM on, reaps, and tells the minder through a pipe how the instance ended. When it ends,
the kernel ends whatever is left in there. The socket is bound out here and handed in, so that an instance
cannot put anything else in its place.

The order in `run` is what makes "the same instance never runs twice" hold over any kill: lock, look for
process.json and exit.json, write process.json, look for launch.json again, fork. A host that gives a start up takes
launch.json away before it looks for process.json, so of the two at least one sees the other, however long either of
them stood still.
"""

# pathlib would be one more import in every minder.
# ruff: noqa: PTH104, PTH108, PTH109, PTH110, PTH123, PTH208

import fcntl
import json
import os
import resource
import signal
import socket
import time
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

from clary.host import minder_calls, minder_cpu, minder_forks, sandbox

DEFAULT_GRACE_S = 30.0


def run(directory: str, log_descriptor: int) -> NoReturn:
    """Minds the instance whose directory this is. Called in a fresh fork; never returns."""
    status = 1
    try:
        os.setsid()
        os.chdir(directory)
        if _claim():
            status = _mind(log_descriptor)
    except FileNotFoundError:
        pass  # the directory was removed meanwhile: nobody wants this instance any more
    except BaseException:  # noqa: BLE001  the end of a process: nobody above
        minder_calls.say(log_descriptor, "the instance could not be started:\n" + traceback.format_exc())
    finally:
        os._exit(status)


def _claim() -> bool:
    """Whether this minder may start the instance: nobody minds it, and nobody ever did."""
    descriptor = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # The descriptor stays open, and with it the lock, as long as this process lives.
    return not (os.path.exists("process.json") or os.path.exists("exit.json"))


def _mind(log_descriptor: int) -> int:
    with open("launch.json", "rb") as file:
        launch: dict[str, Any] = json.load(file)
    minder_calls.prctl(minder_calls.PR_SET_CHILD_SUBREAPER, 1)
    minder_calls.name_process(b"clary-minder")
    minding = _Minding()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, minding.on_terminate)
    signal.signal(signal.SIGALRM, minding.on_overdue)
    _write("process.json", {"pid": os.getpid(), "start_time": _start_time()})
    if not os.path.exists("launch.json"):
        return 1  # the host has given this start up meanwhile, and may have said so already
    try:
        minding.begin(launch, log_descriptor)
    except (sandbox.SandboxFailed, OSError) as error:
        _write("exit.json", {"ended_at": time.time(), "refused": str(error)})
        return 1
    # The minder has nothing to say, and must not keep the log or the zygote's output open.
    minder_calls.to_null(0, 1, 2)
    os.close(log_descriptor)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    minding.wait()
    minder_cpu.remove(launch)
    return 0


class _Minding:
    """The wait for one instance."""

    def __init__(self) -> None:
        self.child = 0
        self._asked = False
        self._reports: int | None = None

    def begin(self, launch: Mapping[str, Any], log_descriptor: int) -> None:
        """Forks the instance, or on rung 1 its init. In the fork it does not return."""
        box = launch.get("sandbox")
        if box is None:
            self.child = os.fork()
            if self.child == 0:
                minder_forks.run_instance(
                    launch, log_descriptor, lambda: minder_cpu.join(launch, 0, log_descriptor)
                )
            return
        listener = _bind()
        self._reports, report = os.pipe()
        lives, living = os.pipe()
        sandbox.divide(box)
        self.child = os.fork()
        if self.child == 0:
            minder_calls.keep_only(log_descriptor, listener, report, lives)
            minder_forks.run_init(launch, log_descriptor, listener, report, lives)
        for descriptor in (listener, report, lives):
            os.close(descriptor)
        # The kernel takes its time, in which the init builds the root. It forks the instance when it may.
        minder_cpu.join(launch, self.child, log_descriptor)
        # `living` stays open: its end tells an init that begins late that there is no minder any more.
        _let_begin(living)

    def on_terminate(self, number: int, frame: object) -> None:
        """SIGTERM: pass it on, and see that it takes no longer than stop.json allows."""
        self._asked = True
        grace_s = _grace_s()
        if grace_s > 0:
            minder_calls.signal_group(self.child, signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, grace_s)
        else:
            _kill_descendants()

    def on_overdue(self, number: int, frame: object) -> None:
        _kill_descendants()

    def wait(self) -> None:
        while True:
            pid, status, usage = os.wait4(-1, 0)
            if pid == self.child:
                break
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})
        peak = max(usage.ru_maxrss, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024
        _reap_everything()
        report = self._report()
        status = report.get("status", status)
        _write(
            "exit.json",
            {
                "ended_at": time.time(),
                "refused": report.get("refused", ""),
                "processes": report.get("processes", 0),
                "exit_code": os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else None,
                "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
                "max_rss_bytes": peak,
                "asked": self._asked,
            },
        )

    def _report(self) -> dict[str, Any]:
        """What the init said of the instance; an init that was killed said nothing, and its own end counts."""
        if self._reports is None:
            return {}
        with open(self._reports, "rb") as file:
            text = file.read()
        report: dict[str, Any] = json.loads(text) if text else {}
        return report


def _let_begin(living: int) -> None:
    try:
        os.write(living, b"1")
    except BrokenPipeError:
        return  # it has ended already, and says itself why


def _bind() -> int:
    """The instance's socket, bound and not yet listening: who connects is refused until the model is loaded."""
    path = f"{os.getcwd()}/http.sock"
    if os.path.lexists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    return listener.detach()


def _reap_everything() -> None:
    """Kills and reaps all descendants. A killed parent's children come to the subreaper, so it ends."""
    while True:
        _kill_descendants()
        try:
            os.wait4(-1, 0)
        except ChildProcessError:
            return


def _kill_descendants() -> None:
    pending = _children(os.getpid())
    while pending:
        pid = pending.pop()
        pending += _children(pid)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += [int(child) for child in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return found
    return found


def _grace_s() -> float:
    try:
        with open("stop.json", "rb") as file:
            return float(json.load(file)["grace_s"])
    except FileNotFoundError:
        return DEFAULT_GRACE_S


def _start_time() -> int:
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def _write(name: str, value: object) -> None:
    temporary = f".{name}.{os.getpid()}"
    with open(temporary, "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, name)
