"""Threads that cannot be started, as on a machine that is at its limit for a moment."""

import threading

import pytest


def refuse_threads(patch: pytest.MonkeyPatch, once: list[str] | None = None) -> None:
    """None starts; or each of these names is refused once, and goes from the list."""
    start = threading.Thread.start

    def start_or_not(thread: threading.Thread) -> None:
        if once is None or thread.name in once:
            if once is not None:
                once.remove(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    patch.setattr(threading.Thread, "start", start_or_not)
