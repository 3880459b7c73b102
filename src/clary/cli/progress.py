"""Phases on the terminal: what is going on, for how long already, and how long it took."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

TICK_S = 1.0


@dataclass(slots=True)
class Phases:
    """Numbers and times the phases; `times` is the summary for the end."""

    times: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def phase(self, title: str, detail: Callable[[], str] | None = None) -> Iterator[None]:
        """Runs its block as one phase. Every second, `detail()` tells what it is doing right now."""
        label = f"{len(self.times) + 1:2d}  {title}"
        began = time.monotonic()
        done = threading.Event()
        ticker = threading.Thread(target=_tick, args=(label, began, done, detail), daemon=True)
        ticker.start()
        try:
            yield
        finally:
            done.set()
            ticker.join()
        took = time.monotonic() - began
        self.times.append((title, took))
        _overwrite(f"{label:<66}{took:7.2f} s", final=True)


def _tick(label: str, began: float, done: threading.Event, detail: Callable[[], str] | None) -> None:
    while not done.wait(TICK_S):
        doing = detail() if detail else ""
        _overwrite(f"{label} … {time.monotonic() - began:.0f} s  {doing}", final=not sys.stdout.isatty())


def _overwrite(line: str, final: bool) -> None:
    """One line that the next one replaces on a terminal; where output is a file, every line stays."""
    if sys.stdout.isatty():
        sys.stdout.write("\r\033[K" + line[:119] + ("\n" if final else ""))
    elif final:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
