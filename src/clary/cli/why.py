"""`clary why NAME`: where an endpoint stands and how it came there, as a time line with the evidence."""

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from clary.cli import server
from clary.cli.evidence import told
from clary.cli.status import listed, table

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
    shown = [f"{story['Kind']} {story['Name']}: {story['Status']}"]
    if under_way := story.get("Deployment"):
        shown.append(deploying(under_way))
    if reason := story.get("FailureReason"):
        if story["Status"] == "InService":
            shown += ["", "It serves. Its last update failed:"]
        shown += ["", *(line for paragraph in reason.split("\n") for line in textwrap.wrap(paragraph, WIDTH))]
    if instances := story.get("Instances"):
        shown += ["", *_instances(instances)]
    shown += ["", *(_event(event) for event in story["Events"])]
    if tail := story.get("LogTail"):
        whose = story.get("LogStream", story["Name"])
        shown += ["", f"the last lines of {whose}:", *(f"  | {line}" for line in tail)]
    if following := story.get("Next"):
        shown += ["", "next:", *(f"  {command}" for command in following)]
    return shown


def _instances(instances: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            i["Id"],
            i["Variant"],
            i.get("Config", ""),
            i.get("Zone", ""),
            i["Phase"] if i["Wanted"] else f"{i['Phase']}, not wanted",
            listed(i.get("Containers", ())),
        )
        for i in instances
    ]
    last = "containers" if any(row[-1] for row in rows) else ""
    columns = ("instance", "variant", "config", "zone", "phase", last)
    return [f"  {line}" for line in table(columns, rows).split("\n")]


def deploying(deployment: Mapping[str, Any]) -> str:
    """The deployment under way, in one sentence."""
    since = datetime.fromisoformat(deployment["Since"]).astimezone()
    variants = ", ".join(
        f"{v['Name']} {v['Ready']} of {v['Wanted']} ready, {v['Activated']} with traffic"
        for v in deployment["Variants"]
    )
    way = f"{deployment['From']} → {deployment['To']}" if deployment["From"] else deployment["To"]
    why = f"; {deployment['Reason']}" if deployment["Reason"] else ""
    return f"deploying {way}: {deployment['Stage']} since {since:%H:%M:%S} ({variants}){why}"


def _event(event: Mapping[str, Any]) -> str:
    """One line. What stands elsewhere in the story, or has no value yet, is left out."""
    at = datetime.fromisoformat(event["At"]).astimezone()
    shown = [
        f"{name}={text}"
        for name, value in event["Detail"].items()
        if name not in _ELSEWHERE and value and (text := told(value))
    ]
    line = f"  {at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}  {event['Step']:<20} {' '.join(shown)}"
    return line.rstrip()
