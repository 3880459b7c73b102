"""Why an instance ended, in words a person can act on.

`Refused` is what stops an instance before it runs; the rest of the module makes `Failure`s of what was seen of
one that ran. The codes are listed with `clary.domain.instances.Failure`.
"""

import signal as signals
from collections.abc import Sequence

from clary.domain.instance_types import has_local_disk
from clary.domain.instances import Failure, InstanceSpec
from clary.links.instances import Exit

OUT_OF_DISK = "OutOfDisk"

LINES = 20
READ_LINES = 100
LONGEST_LINE = 500


class Refused(Exception):
    """The instance cannot be started; `code` is one of `Failure`'s."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def refused(spec: InstanceSpec, error: Refused) -> Failure:
    return Failure(code=error.code, reason=str(error), next_command=_next_command(spec))


def ping_timeout(spec: InstanceSpec, answer: str) -> Failure:
    return Failure(
        code="PingTimeout",
        reason=(
            f"the {spec.container} container did not pass the ping health check within "
            f"{spec.startup_timeout_s:g} s; the last ping: {answer}"
        ),
        next_command=_next_command(spec),
    )


def out_of_memory(spec: InstanceSpec, resident_bytes: int, total_bytes: int) -> Failure:
    """`total_bytes` is what all containers of the instance used together."""
    others = ""
    if spec.member_count:
        others = f", the most of {spec.member_count} containers that used {_mebibytes(total_bytes)} together,"
    return Failure(
        code="OutOfMemory",
        reason=(
            f"the {spec.container} container used {_mebibytes(resident_bytes)} of memory{others} and "
            f"{spec.instance_type} has {_mebibytes(spec.memory_bytes)}; it was ended"
        ),
        memory_peak_bytes=resident_bytes,
        memory_limit_bytes=spec.memory_bytes,
        next_command=_next_command(spec),
    )


def over_disk(spec: InstanceSpec, written_bytes: int, limit_bytes: int) -> Failure:
    others = f", the most of {spec.member_count} containers," if spec.member_count else ""
    return _out_of_disk(
        spec,
        f"the {spec.container} container{others} filled the instance's disk: {_mebibytes(written_bytes)} are written, "
        f"and it has {_mebibytes(limit_bytes)} ({_disk_said_by(spec)}); it was ended. "
        "Have it delete what it no longer needs, or allow it more",
    )


def too_many_files(spec: InstanceSpec, files: int, most: int) -> Failure:
    return _out_of_disk(
        spec,
        f"the {spec.container} container filled the instance's disk with {files:,} files, and one of its size has room "
        f"for {most:,} ({_disk_said_by(spec)}); it was ended. Have it delete what it no longer needs, or allow it more",
    )


def took_last_room(spec: InstanceSpec, written_bytes: int, free_bytes: int, reserve_bytes: int) -> Failure:
    return _out_of_disk(
        spec,
        f"the {spec.container} container wrote the most ({_mebibytes(written_bytes)}) while the server's disk ran "
        f"full: {_mebibytes(free_bytes)} were free, and the last {_mebibytes(reserve_bytes)} are kept (the setting "
        f"disk_reserve_bytes); it was ended. Free some space there, or allow it less ({_disk_said_by(spec)})",
    )


def _out_of_disk(spec: InstanceSpec, reason: str) -> Failure:
    return Failure(code=OUT_OF_DISK, reason=reason, next_command=_next_command(spec))


def _disk_said_by(spec: InstanceSpec) -> str:
    if spec.volume_bytes or has_local_disk(spec.instance_type):
        return "VolumeSizeInGB"
    return "the setting instance_disk_bytes, or VolumeSizeInGB"


def ended(spec: InstanceSpec, exit: Exit | None, was_ready: bool, probe: str) -> Failure:
    """An end nobody asked for."""
    when = "while it was in service" if was_ready else f"before its ping succeeded (the last ping: {probe})"
    if exit is None:
        return Failure(
            code="Killed",
            reason=f"the {spec.container} container was killed {when}, together with the process that minded it",
            next_command=_next_command(spec),
        )
    if exit.refused:
        return Failure(
            code="StartFailed",
            reason=f"the sandbox of the {spec.container} container could not be made: {exit.refused}",
            next_command="clary doctor",
        )
    code, what = ("Exited", f"exited with code {exit.exit_code}")
    if exit.signal is not None:
        code, what = "Killed", f"was ended by {signal_name(exit.signal)}"
    return Failure(
        code=code,
        reason=f"the {spec.container} container {what} {when}{_at_limit(exit)}",
        exit_code=exit.exit_code,
        signal=exit.signal,
        memory_peak_bytes=exit.max_rss_bytes or None,
        memory_limit_bytes=spec.memory_bytes,
        next_command=_next_command(spec),
    )


def _at_limit(exit: Exit) -> str:
    if not exit.processes:
        return ""
    return f"; it was at its limit of processes and threads (the setting sandbox_processes): {exit.processes} were left"


def signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def printable(lines: Sequence[str]) -> tuple[str, ...]:
    """The last log lines for an error message: no control characters, none empty, none endless."""
    told = [line for line in _without_dump(lines) if line.strip()]
    return tuple(_printable(line)[:LONGEST_LINE] for line in told[-LINES:])


_CRASH = "Fatal Python error:"
_CRASH_LINES = 6  # the error, an empty line, the thread and its newest frames
_OF_A_DUMP = ("  File ", "  ...", "Thread 0x", "Current thread 0x", "Extension modules:")


def _without_dump(lines: Sequence[str]) -> list[str]:
    """Python's own report of a crash goes on with every older frame and every module: what came before says more."""
    begin = next((number for number, line in enumerate(lines) if line.startswith(_CRASH)), len(lines))
    head, rest = lines[: begin + _CRASH_LINES], lines[begin + _CRASH_LINES :]
    return [*head, *(line for line in rest if not line.startswith(_OF_A_DUMP))]


def _printable(line: str) -> str:
    return "".join(
        c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line[: LONGEST_LINE * 2].rstrip()
    )


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.0f} MiB"


def _next_command(spec: InstanceSpec) -> str:
    return f"clary logs {spec.log.group.rsplit('/', 1)[-1]}"
