"""`clary why NAME`: where an endpoint stands and how it came there, as a time line with the evidence."""

import argparse
import textwrap
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from clary.cli import server

WIDTH = 100
_ELSEWHERE = frozenset({"reason", "log_tail"})


def run(arguments: argparse.Namespace) -> int:
    found = server.running(arguments)
    with server.answered():
        story = found.client().admin("GET", f"/_clary/why/{arguments.name}")
    print("\n".join(lines(story)))
    return 0


def lines(story: Mapping[str, Any]) -> list[str]:
    """The answer of Explain as a person reads it."""
    told = [f"{story['Kind']} {story['Name']}: {story['Status']}"]
    if reason := story.get("FailureReason"):
        told += ["", *(line for paragraph in reason.split("\n") for line in textwrap.wrap(paragraph, WIDTH))]
    told += ["", *(_event(event) for event in story["Events"])]
    if tail := story.get("LogTail"):
        told += ["", "the last lines it wrote:", *(f"  | {line}" for line in tail)]
    if following := story.get("Next"):
        told += ["", "next:", *(f"  {command}" for command in following)]
    return told


def _event(event: Mapping[str, Any]) -> str:
    """One line. What stands elsewhere in the story, or has no value yet, is left out."""
    at = datetime.fromisoformat(event["At"]).astimezone()
    shown = [f"{name}={value}" for name, value in event["Detail"].items() if name not in _ELSEWHERE and value]
    line = f"  {at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}  {event['Step']:<20} {' '.join(shown)}"
    return line.rstrip()
