"""`clary doctor`: what this machine offers, what is missing, and what that means for Clary."""

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uv

from clary.cli import server
from clary.cli.status import size
from clary.host import cgroups
from clary.host.engine.engines import Engines
from clary.host.rungs import choose
from clary.settings import Settings

ENOUGH_DISK = 5_000_000_000
ENOUGH_FILES = 4096


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `good`, `note` (works, with a limit) or `bad` (Clary does not work like this)."""

    verdict: str
    subject: str
    text: str


def run(arguments: argparse.Namespace) -> int:
    wanted = server.wanted(arguments)
    findings = [
        *(check() for check in CHECKS),
        _sandbox(wanted),
        _processors(),
        _engine(wanted),
        _disk(wanted.data_dir),
    ]
    for finding in findings:
        mark = {"good": "ok  ", "note": "note", "bad": "BAD "}[finding.verdict]
        print(f"{mark}  {finding.subject:<12} {finding.text}")
    return 1 if any(finding.verdict == "bad" for finding in findings) else 0


def _python() -> Finding:
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("good", "Python", version)
    return Finding("bad", "Python", f"{version}; Clary needs 3.11, 3.12 or 3.13")


def _system() -> Finding:
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        return Finding("good", "system", f"Linux {platform.release()}")
    return Finding("bad", "system", "Clary needs Linux 5.10 or newer (pidfd)")


def _sandbox(found: Settings) -> Finding:
    """Makes the sandbox once, as the host does when it starts."""
    rung = choose(found.sandbox, found.sandbox_uid_base)
    verdict = "bad" if rung.refusal else "good" if rung.number else "note"
    return Finding(verdict, "sandbox", rung.summary)


def _processors() -> Finding:
    """Makes a CPU group once, as the host does when it starts."""
    ground = cgroups.find(len(os.sched_getaffinity(0)))
    return Finding("note" if ground.group is None else "good", "processors", ground.summary)


def _engine(found: Settings) -> Finding:
    """Only images of one's own need one, so there being none is worth a note, not more."""
    engines = Engines(found.container_engine, os.environ, found.run_dir / "podman.sock")
    summary = engines.summary
    return Finding("note" if summary.startswith("none") else "good", "containers", summary)


def _uv() -> Finding:
    try:
        found = subprocess.run([uv.find_uv_bin(), "--version"], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        return Finding("bad", "uv", f"does not run ({error}); reinstall Clary with its dependencies")
    return Finding("good", "uv", found.stdout.strip())


def _disk(place: Path) -> Finding:
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{size(free)} free below {place}"
    return Finding(
        "good" if free > ENOUGH_DISK else "note",
        "disk",
        text if free > ENOUGH_DISK else f"{text}: little for models",
    )


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard >= ENOUGH_FILES:
        return Finding("good", "open files", f"{soft}, may be raised to {hard}")
    return Finding("note", "open files", f"at most {hard}: raise it (ulimit -Hn) for hundreds of endpoints")


def _sockets() -> Finding:
    try:
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "probe").touch(mode=0o600)
    except OSError as error:
        return Finding(
            "bad", "temporary", f"no file can be made in {tempfile.gettempdir()}: {error.strerror}"
        )
    return Finding("good", "temporary", tempfile.gettempdir())


CHECKS: tuple[Callable[[], Finding], ...] = (
    _system, _python, _uv, _sockets, _files,
)  # fmt: skip
