"""The minder's forks: the instance itself, and on rung 1 the init around it. None of them ever returns.

Whatever left one of these functions would go on with the work of the process that it was forked from.
"""

# pathlib would be one more import in every minder.
# ruff: noqa: PTH123

import importlib
import json
import os
import random
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from clary.host import minder_calls, sandbox


def run_init(
    launch: Mapping[str, Any], log_descriptor: int, listener: int, report: int, lives: int
) -> NoReturn:
    """Process 1 of the instance's namespace. Its end is the end of everything in it."""
    said: dict[str, object] = {}
    try:
        os.setpgid(0, 0)
        sandbox.enclose(launch["sandbox"])
        # After the change of uid, which would undo it. A minder that died before has closed its end.
        minder_calls.prctl(minder_calls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if not os.read(lives, 1) or select.select([lives], [], [], 0)[0]:
            os._exit(1)
        sandbox.be_readable(False)
        child = os.fork()
        if child == 0:
            run_instance(launch, log_descriptor, _settle_in_sandbox, listener)
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


def _wait_as_init(child: int, *unneeded: int) -> int:
    """Reaps whatever ends in the namespace until the instance does; its wait status."""
    signal.signal(signal.SIGTERM, lambda number, frame: minder_calls.signal_group(child, signal.SIGTERM))
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    minder_calls.name_process(b"clary-init")
    minder_calls.to_null(0, 1, 2)
    for descriptor in unneeded:
        os.close(descriptor)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    while True:
        pid, status, _ = os.wait4(-1, 0)
        if pid == child:
            return status


def run_instance(
    launch: Mapping[str, Any], log_descriptor: int, arrive: Callable[[], None], listener: int | None = None
) -> NoReturn:
    """The instance's own process: a clean one, as far as a fork can be. A listener becomes descriptor 3."""
    code = 1
    try:  # From the first line on: whatever left it would go on with the minder's work, or the init's.
        os.dup2(log_descriptor, 1)
        os.dup2(log_descriptor, 2)
        minder_calls.prctl(minder_calls.PR_SET_PDEATHSIG, signal.SIGKILL)
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
        os.closerange(3, minder_calls.open_files_limit())
    else:
        os.dup2(listener, 3)
        os.closerange(4, minder_calls.open_files_limit())
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    _limit(int(launch["open_files"]))
    _prefer_as_victim()
    os.environ.clear()
    os.environ.update(launch["environment"])
    minder_calls.name_process(b"clary-instance")
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
