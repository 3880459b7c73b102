"""Sandbox rung 1: namespaces, a root of its own, no privileges. Runs in the fork that becomes an instance.

Like the minder it runs inside the zygote's fork, so the standard library is all there is, and the calls Python
3.11 does not have are made through ctypes. Every process that comes here has one thread and has run no user code.

  `divide`   in the minder: whatever it forks from now on lives in a PID namespace of its own. An ordinary user
             needs a user namespace for that; root does not, and gives the instance a uid of its own instead.
  `enclose`  in the first process of that namespace: mount, IPC and (isolated) network namespaces, a root that
             holds what the plan lists and nothing else, then no capability and no way to get one.

The plan is `clary.links.instances.Sandbox` as a plain mapping. As a script, `sandbox.py PLAN`, it tries all of
that and says in one line of JSON whether it works: that is the probe, and it is the same code on purpose.
"""

# pathlib would be one more import in every minder.
# ruff: noqa: PTH102, PTH103, PTH110, PTH112, PTH114, PTH115, PTH120, PTH123, PTH208, PTH211, S108

import ctypes
import fcntl
import json
import os
import resource
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SETTINGS = (
    "alternatives", "ca-certificates", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "mime.types", "nsswitch.conf", "pki", "protocols", "resolv.conf", "services", "ssl/certs", "ssl/openssl.cnf",
    "timezone",
)  # fmt: skip
"""What programs look up below /etc. Everything else there is the machine's own business."""

KERNEL = ("/sys/devices/system/cpu", "/sys/devices/system/node")
DEVICES = ("null", "zero", "full", "random", "urandom")

_CLONE_NEWNS = 0x00020000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR = 442  # the same on every architecture
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 24, 38, 47
_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)


class SandboxFailed(Exception):
    """The kernel refused a step; the message says which."""


def divide(plan: Mapping[str, Any]) -> None:
    """From now on this process's children live in a PID namespace. It stays outside itself."""
    if plan["uid"] is not None:
        _unshare(_CLONE_NEWPID, "a PID namespace")
        return
    uid, gid = os.geteuid(), os.getegid()
    _unshare(_CLONE_NEWUSER | _CLONE_NEWPID, "a user namespace")
    _note("/proc/self/setgroups", "deny")
    _note("/proc/self/uid_map", f"{uid} {uid} 1")
    _note("/proc/self/gid_map", f"{gid} {gid} 1")


def enclose(plan: Mapping[str, Any]) -> None:
    """Leaves this process and those it forks with the plan's root and without privileges."""
    flags = _CLONE_NEWNS | _CLONE_NEWIPC | (_CLONE_NEWNET if plan["isolated"] else 0)
    _unshare(flags, "mount, IPC and network namespaces")
    if plan["isolated"]:
        _raise_loopback()
    before = os.umask(0o022)
    _build(plan)
    os.umask(before)
    _drop_privileges(plan["uid"])
    _limit(resource.RLIMIT_NPROC, plan["processes"])


def tasks() -> int:
    """Processes and threads of this PID namespace: the limit that RLIMIT_NPROC sets is on their number."""
    return sum(_threads(entry) for entry in os.listdir("/proc") if entry.isdigit())


def be_readable(readable: bool) -> None:
    """Whether others of the same user may look into this process: the instance yes, its init no."""
    _libc.prctl(_PR_SET_DUMPABLE, int(readable), 0, 0, 0)


# The root


def _build(plan: Mapping[str, Any]) -> None:
    root = plan["root"]
    # What is mounted from here on must not travel back to the machine's own mounts.
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("clary", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=4m")
    # First, so that what is to be read may lie below /tmp outside.
    for source, target in plan["writable"]:
        _bind(source, root + target, writable=True)
    bound: list[str] = []
    for path in (*SYSTEM, *KERNEL, *plan["readable"], *_interpreter()):
        _show(root, path, bound)
    _show_etc(root, plan)
    for path in plan["hidden"]:
        if any(path == each or path.startswith(each + "/") for each in bound) and os.path.isdir(root + path):
            _mount("clary", root + path, "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, "mode=000,size=4k")
    _make_dev(root, plan["shm_bytes"])
    _make_proc(root)
    for source, target in plan["placed"]:
        _bind(source, root + target)
    _pivot(root)


def _interpreter() -> list[str]:
    """Where the Python that runs this lies, its symbolic links included."""
    found = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    real = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))
    return [path for path in (*found, real) if path not in ("", "/")]


def _show(root: str, path: str, bound: list[str]) -> None:
    """The same path inside, read-only. `bound` knows what is there already."""
    if not os.path.exists(path) or any(path == each or path.startswith(each + "/") for each in bound):
        return
    if os.path.islink(path) and path in SYSTEM:
        os.symlink(os.readlink(path), root + path)
        return
    _bind(path, root + path)
    bound.append(path)


def _show_etc(root: str, plan: Mapping[str, Any]) -> None:
    for name in SETTINGS:
        if os.path.exists(f"/etc/{name}"):
            _bind(f"/etc/{name}", f"{root}/etc/{name}")
    os.makedirs(f"{root}/etc", exist_ok=True)
    uid = os.geteuid() if plan["uid"] is None else plan["uid"]
    gid = os.getegid() if plan["uid"] is None else plan["uid"]
    _note(f"{root}/etc/passwd", f"clary:x:{uid}:{gid}::/tmp:/usr/sbin/nologin\n")
    _note(f"{root}/etc/group", f"clary:x:{gid}:\n")


def _make_dev(root: str, shm_bytes: int) -> None:
    os.mkdir(f"{root}/dev")
    for name in DEVICES:
        _bind(f"/dev/{name}", f"{root}/dev/{name}", device=True)
    for link, target in (
        ("fd", "self/fd"),
        ("stdin", "self/fd/0"),
        ("stdout", "self/fd/1"),
        ("stderr", "self/fd/2"),
    ):
        os.symlink(f"/proc/{target}", f"{root}/dev/{link}")
    os.mkdir(f"{root}/dev/shm")
    _mount("clary", f"{root}/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode=1777,size={shm_bytes}")


def _make_proc(root: str) -> None:
    os.mkdir(f"{root}/proc")
    _mount("proc", f"{root}/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def _bind(source: str, target: str, *, writable: bool = False, device: bool = False) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    # Recursively, because the kernel lets nobody look below what another namespace mounted.
    _mount(source, target, None, _MS_BIND | _MS_REC)
    attributes = _ATTR_NOSUID | (0 if writable or device else _ATTR_RDONLY) | (0 if device else _ATTR_NODEV)
    _set_attributes(target, attributes)


def _pivot(root: str) -> None:
    os.chdir(root)
    # The old root ends up on top of the new one, and is taken away.
    _check(_libc.pivot_root(b".", b"."), "changing the root")
    _check(_libc.umount2(b".", _MNT_DETACH), "leaving the old root")
    os.chdir("/")
    _mount(None, "/", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)


# Privileges


def _drop_privileges(uid: int | None) -> None:
    """The bounding set while there still is the right to, then the uid, then everything."""
    capability = 0
    while _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _libc.prctl(_PR_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "dropping capabilities")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "giving up new privileges")


def _limit(which: int, wanted: int) -> None:
    _, hard = resource.getrlimit(which)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(which, (limit, limit))


def _threads(pid: str) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack("16xH22x", fcntl.ioctl(probe, _SIOCGIFFLAGS, request))[0]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))


# Calls


def _unshare(flags: int, what: str) -> None:
    _check(_libc.unshare(flags), f"making {what}")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    encoded = [os.fsencode(text) if text is not None else None for text in (source, target, kind)]
    result = _libc.mount(*encoded, ctypes.c_ulong(flags), options.encode() or None)
    _check(result, f"mounting {kind or source or ''} at {target}")


def _set_attributes(target: str, attributes: int) -> None:
    wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(_AT_RECURSIVE),
        wanted,
        ctypes.c_size_t(len(wanted)),
    )
    _check(result, f"protecting {target} (Linux 5.12 or newer)")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise SandboxFailed(f"{what}: {os.strerror(number)}")


def _note(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise SandboxFailed(f"writing {path}: {error.strerror}") from error


# The probe


def probe(plan: Mapping[str, Any]) -> str:
    """Does it all in children; the empty text when it works, else what the kernel refused."""
    answers, answer = os.pipe()
    if os.fork() == 0:
        _try(plan, answer)
    os.close(answer)
    os.wait()
    with os.fdopen(answers, "rb") as file:
        text = file.read().decode("utf-8", "replace")
    return "" if text == "ok" else text or "the trial ended without an answer"


def _try(plan: Mapping[str, Any], answer: int) -> None:
    text = ""
    try:
        divide(plan)
        if os.fork() != 0:
            os.wait()
        else:
            enclose(plan)
            text = "ok" if os.getpid() == 1 else "the PID namespace is not a new one"
    except (SandboxFailed, OSError) as error:
        text = str(error)
    finally:
        os.write(answer, text.encode("utf-8", "backslashreplace"))
        os._exit(0)


if __name__ == "__main__":
    print(json.dumps({"refused": probe(json.loads(sys.argv[1]))}))
