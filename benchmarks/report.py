"""Tables of results, the machine they were taken on, and the page they are written to."""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(slots=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", _row(self.columns), _row(("---",) * len(self.columns))]
        lines += [_row(row) for row in self.rows]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join([*lines, ""])


def verdict(value: float, bar: float, *, at_least: bool) -> str:
    """`value` against `bar`, in words for a table."""
    return "met" if (value >= bar if at_least else value <= bar) else "**missed**"


def machine() -> str:
    """The machine in a sentence: what decides the absolute figures."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GiB of memory, Linux {platform.release()}, "
        f"Python {platform.python_version()}; the load generator runs on the same cores"
    )


def write(path: Path, title: str, command: str, tables: list[Table], introduction: str = "") -> None:
    """Writes the page whole. What a person adds by hand stands in a page of its own and is linked."""
    head = [f"# {title}", "", f"Measured on {datetime.now(UTC):%Y-%m-%d} by `{command}` on: {machine()}.", ""]
    if introduction:
        head += [introduction, ""]
    path.write_text("\n".join(head + [table.markdown() for table in tables]))


def enter(path: Path, title: str, introduction: str, parts: Mapping[str, list[Table] | None]) -> None:
    """Writes the page anew: the parts with tables as they were just measured, the others as they stand there."""
    standing = _standing(path)
    lines = [f"# {title}", "", f"Taken on: {machine()}.", "", introduction, ""]
    for name, tables in parts.items():
        if tables is not None:
            measured = f"*{datetime.now(UTC):%Y-%m-%d}, `make bench PARTS={name}`*"
            text = "\n".join([measured, "", *(table.markdown() for table in tables)])
        else:
            text = standing.get(name, "")
        if text:
            lines += [_MARK.format(name), f"{text.rstrip()}\n"]
    path.write_text("\n".join(lines).rstrip() + "\n")


_MARK = "<!-- part: {} -->"


def _standing(path: Path) -> dict[str, str]:
    """The page's parts by name, as they are."""
    if not path.exists():
        return {}
    found = re.split(r"^<!-- part: (\w+) -->\n", path.read_text(), flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
