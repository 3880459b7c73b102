"""What a minder and its forks ask of the kernel that the standard library has no name for, or no single one."""

import ctypes
import os
import resource
import signal

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NAME = 15
_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def name_process(name: bytes) -> None:
    _libc.prctl(_PR_SET_NAME, name, 0, 0, 0)


def signal_group(leader: int, number: signal.Signals) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        # It has not made its group yet, or is gone already.
        try:
            os.kill(leader, number)
        except ProcessLookupError:
            return


def to_null(*descriptors: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def keep_only(*descriptors: int) -> None:
    """Closes all but the first three and these."""
    below = 2
    for descriptor in sorted(descriptors):
        os.closerange(below + 1, descriptor)
        below = descriptor
    os.closerange(below + 1, open_files_limit())


def open_files_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 65536 if soft == resource.RLIM_INFINITY else soft


def say(descriptor: int, text: str) -> None:
    try:
        os.write(descriptor, text.encode("utf-8", "backslashreplace"))
    except OSError:
        return  # the disk is full: an instance that runs is worth more than the line
