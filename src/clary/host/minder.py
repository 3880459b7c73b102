"""The minder: one small process beside each instance, which is there when the instance ends.

Runs inside the zygote's fork, so the standard library is all there is, and as little of it as can be: what the
minder touches becomes private memory of every instance. It starts a session of its own, forks the instance,
passes SIGTERM on, kills whatever the instance leaves behind (it is the subreaper, so a daemonised child comes
back to it), and writes exit.json. The host may die and come back meanwhile; the minder does not care.

The files are described in `clary.links.instances`, which cannot be imported here.

On rung 1 the fork is an init, process 1 of a PID namespace: it makes the sandbox (`clary.host.sandbox`), forks the
instance inside, passes SIGTERM on, reaps, and tells the minder through a pipe how the instance ended. When it ends,
the kernel ends whatever is left in there. The socket is bound out here and handed in, so that an instance
cannot put anything else in its place.

The order in `run` is what makes "the same instance never runs twice" hold over any kill: lock, look for
process.json and exit.json, write process.json, fork.
"""

# pathlib would be one more import in every minder.
# ruff: noqa: PTH102, PTH104, PTH106, PTH108, PTH109, PTH110, PTH112, PTH123, PTH208

import ctypes
import errno
import fcntl
import importlib
import json
import os
import random
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from clary.host import sandbox

DEFAULT_GRACE_S = 30.0
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


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
        _say(log_descriptor, "the instance could not be started:\n" + traceback.format_exc())
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
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl_name(b"clary-minder")
    minding = _Minding()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, minding.on_terminate)
    signal.signal(signal.SIGALRM, minding.on_overdue)
    _write("process.json", {"pid": os.getpid(), "start_time": _start_time()})
    try:
        minding.begin(launch, log_descriptor)
    except (sandbox.SandboxFailed, OSError) as error:
        _write("exit.json", {"ended_at": time.time(), "refused": str(error)})
        return 1
    # The minder has nothing to say, and must not keep the log or the zygote's output open.
    _to_null(0, 1, 2)
    os.close(log_descriptor)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    minding.wait()
    _remove_cpu_group(launch)
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
                _run_instance(launch, log_descriptor, lambda: _join_cpu_group(launch, 0, log_descriptor))
            return
        listener = _bind()
        self._reports, report = os.pipe()
        lives, living = os.pipe()
        sandbox.divide(box)
        self.child = os.fork()
        if self.child == 0:
            _keep_only(log_descriptor, listener, report, lives)
            _run_init(launch, log_descriptor, listener, report, lives)
        for descriptor in (listener, report, lives):
            os.close(descriptor)
        # The kernel takes its time, in which the init builds the root. It forks the instance when it may.
        _join_cpu_group(launch, self.child, log_descriptor)
        # `living` stays open: its end tells an init that begins late that there is no minder any more.
        _let_begin(living)

    def on_terminate(self, number: int, frame: object) -> None:
        """SIGTERM: pass it on, and see that it takes no longer than stop.json allows."""
        self._asked = True
        grace_s = _grace_s()
        if grace_s > 0:
            self._signal_group(signal.SIGTERM)
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

    def _signal_group(self, number: signal.Signals) -> None:
        _signal_group(self.child, number)


def _run_init(
    launch: Mapping[str, Any], log_descriptor: int, listener: int, report: int, lives: int
) -> NoReturn:
    """Process 1 of the instance's namespace. Its end is the end of everything in it."""
    said: dict[str, object] = {}
    try:
        os.setpgid(0, 0)
        sandbox.enclose(launch["sandbox"])
        # After the change of uid, which would undo it. A minder that died before has closed its end.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if not os.read(lives, 1) or select.select([lives], [], [], 0)[0]:
            os._exit(1)
        sandbox.be_readable(False)
        child = os.fork()
        if child == 0:
            _run_instance(launch, log_descriptor, _settle_in_sandbox, listener)
        said["status"] = _wait_as_init(child, log_descriptor, listener)
        # What was the instance's own process is gone already, so a little less than the limit is the limit.
        if (tasks := sandbox.tasks()) >= 0.9 * launch["sandbox"]["processes"]:
            said["processes"] = tasks
    except (sandbox.SandboxFailed, OSError) as error:
        said = {"refused": str(error)}
    finally:
        try:
            os.write(report, json.dumps(said).encode())
        finally:
            os._exit(0)  # also where nobody is left to hear it: what follows is the minder's


def _settle_in_sandbox() -> None:
    sandbox.be_readable(True)
    os.chdir("/opt/ml")


def _join_cpu_group(launch: Mapping[str, Any], pid: int, log_descriptor: int) -> None:
    """Puts a process (0: this one) into the instance's group, before there is anything it could have forked."""
    if (group := launch.get("cpu_group")) is None:
        return
    for last in (False, False, True):
        try:
            _put_into(group, pid)
            return
        except ProcessLookupError:
            return  # it has ended already, and says itself why
        except OSError as error:
            # A host removed it while it was still empty: before its file was opened, or before it was written.
            if last or error.errno not in (errno.ENOENT, errno.ENODEV):
                _say(log_descriptor, f"the instance has no share of the processors of its own: {error}\n")
                return


def _put_into(group: Mapping[str, Any], pid: int) -> None:
    directory = group["directory"]
    if not os.path.isdir(directory):
        os.mkdir(directory)
    for name, value in ((group["weight_file"], group["weight"]), ("cgroup.procs", pid)):
        with open(f"{directory}/{name}", "w") as file:
            file.write(str(value))


def _let_begin(living: int) -> None:
    try:
        os.write(living, b"1")
    except BrokenPipeError:
        return  # it has ended already, and says itself why


def _remove_cpu_group(launch: Mapping[str, Any]) -> None:
    if (group := launch.get("cpu_group")) is None:
        return
    try:
        os.rmdir(group["directory"])
    except OSError:
        return  # the host removes it with the instance's directory


def _wait_as_init(child: int, *unneeded: int) -> int:
    """Reaps whatever ends in the namespace until the instance does; its wait status."""
    signal.signal(signal.SIGTERM, lambda number, frame: _signal_group(child, signal.SIGTERM))
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    _prctl_name(b"clary-init")
    _to_null(0, 1, 2)
    for descriptor in unneeded:
        os.close(descriptor)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    while True:
        pid, status, _ = os.wait4(-1, 0)
        if pid == child:
            return status


def _signal_group(leader: int, number: signal.Signals) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        # It has not made its group yet, or is gone already.
        try:
            os.kill(leader, number)
        except ProcessLookupError:
            return


def _bind() -> int:
    """The instance's socket, bound and not yet listening: who connects is refused until the model is loaded."""
    path = f"{os.getcwd()}/http.sock"
    if os.path.lexists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    return listener.detach()


def _run_instance(
    launch: Mapping[str, Any], log_descriptor: int, arrive: Callable[[], None], listener: int | None = None
) -> NoReturn:
    """The instance's own process: a clean one, as far as a fork can be. A listener becomes descriptor 3."""
    code = 1
    try:  # From the first line on: whatever left it would go on with the minder's work, or the init's.
        os.dup2(log_descriptor, 1)
        os.dup2(log_descriptor, 2)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setpgid(0, 0)
        arrive()
        _become_plain(launch, listener)
        code = _call(launch["entry"], launch["config"])
    except SystemExit as error:
        code = _exit_code(error)
    except BaseException:  # noqa: BLE001  what an interpreter does with it: print, exit 1
        traceback.print_exc()
    finally:
        try:
            _flush()
        finally:
            os._exit(code)


def _become_plain(launch: Mapping[str, Any], listener: int | None) -> None:
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    if listener is None:
        os.closerange(3, _open_files_limit())
    else:
        os.dup2(listener, 3)
        os.closerange(4, _open_files_limit())
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    _limit(int(launch["open_files"]))
    _prefer_as_victim()
    os.environ.clear()
    os.environ.update(launch["environment"])
    _prctl_name(b"clary-instance")
    _reseed()


def _call(entry: str, config: object) -> int:
    module, name = entry.split(":")
    function: Callable[[object], int | None] = getattr(importlib.import_module(module), name)
    return int(function(config) or 0)


def _exit_code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # the disk is full or the instance closed it: nobody is left to tell


def _limit(open_files: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = open_files if hard == resource.RLIM_INFINITY else min(open_files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _prefer_as_victim() -> None:
    """A machine out of memory should lose an instance before it loses a process of the platform."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    except OSError:
        return


def _reseed() -> None:
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(int.from_bytes(os.urandom(4), "little"))


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


def _to_null(*descriptors: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def _keep_only(*descriptors: int) -> None:
    """Closes all but the first three and these."""
    below = 2
    for descriptor in sorted(descriptors):
        os.closerange(below + 1, descriptor)
        below = descriptor
    os.closerange(below + 1, _open_files_limit())


def _open_files_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 65536 if soft == resource.RLIM_INFINITY else soft


def _say(descriptor: int, text: str) -> None:
    try:
        os.write(descriptor, text.encode("utf-8", "backslashreplace"))
    except OSError:
        return  # the disk is full: an instance that runs is worth more than the line


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _prctl_name(name: bytes) -> None:
    _libc.prctl(_PR_SET_NAME, name, 0, 0, 0)
