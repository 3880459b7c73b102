"""What of a server runs and lies about: its instances while it is up, and what is left when it is down."""

from pathlib import Path

import psutil

from benchmarks.chaos.experiment import hold
from clary.links import instances, processes
from clary.links.processes import ProcessIdentity
from clary.settings import Settings


def instance_directories(settings: Settings) -> list[Path]:
    return sorted(settings.instances_dir.glob("i-*"))


def minders(settings: Settings) -> dict[str, ProcessIdentity]:
    """Instance id → the minder that runs it now."""
    found = {path.name: instances.minder_of(path) for path in instance_directories(settings)}
    return {id_: minder for id_, minder in found.items() if minder is not None and processes.is_alive(minder)}


def instance_processes(settings: Settings) -> dict[str, set[int]]:
    """Instance id → pids that work in its directory: the minder, the instance and whatever it started."""
    found: dict[str, set[int]] = {}
    for process in psutil.process_iter():
        directory = _working_directory(process)
        if directory.startswith(f"{settings.instances_dir}/"):
            found.setdefault(Path(directory).relative_to(settings.instances_dir).parts[0], set()).add(
                process.pid
            )
    return found


def nothing_is_left(settings: Settings) -> str:
    """Raises `Broken` when a process, an instance's directory or a socket of this data directory is there."""
    lingering = [_describe(process) for process in psutil.process_iter() if _belongs(process, settings)]
    hold(not lingering, f"{len(lingering)} processes left: {', '.join(sorted(set(lingering)))}")
    directories = [path.name for path in instance_directories(settings)]
    hold(not directories, f"instance directories left: {directories}")
    sockets = [str(path) for path in settings.data_dir.rglob("*") if path.is_socket()]
    hold(not sockets, f"sockets left: {sockets}")
    listening = [
        line for line in Path("/proc/net/unix").read_text().splitlines() if str(settings.data_dir) in line
    ]
    hold(not listening, f"sockets still open: {listening}")
    return "0 processes, 0 instance directories, 0 sockets left"


def _belongs(process: psutil.Process, settings: Settings) -> bool:
    """Whether it works in the data directory, was started for it, or holds a file of it open."""
    marker = str(settings.data_dir)
    try:
        if marker in " ".join(process.cmdline()) or _working_directory(process).startswith(marker):
            return True
        # A sandboxed instance works elsewhere, as far as it knows; what it sees there is mounted from here.
        return f"{settings.data_dir.name}/instances/" in Path(f"/proc/{process.pid}/mountinfo").read_text()
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError):
        return False


def _working_directory(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return ""
    except OSError:  # a stranger's may have a name that is too long to be read
        return ""


def _describe(process: psutil.Process) -> str:
    """The module or script it runs."""
    try:
        words = process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return "one that ended meanwhile"
    return next(
        (Path(word).name for word in words if word.startswith("clary.") or word.endswith(".py")), words[0]
    )
