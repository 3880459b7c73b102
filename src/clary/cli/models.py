"""`clary models`: what a multi-model endpoint's instances hold, since when, why a model had to go; pins, prefetches.

The instances' host knows it: what is shown is what it says now. Calls are those that the gateways told it of, about a
second late; hits are calls that found their model loaded.
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from clary.cli import CommandError, server
from clary.cli.status import size, table

ACTIONS = ("pin", "unpin", "prefetch")
SHOWN = 40
_ALWAYS = frozenset({"loaded", "loading", "downloading", "failed"})
COLUMNS = ("model", "instance", "state", "since", "memory", "on disk", "calls", "hits", "")


def run(arguments: argparse.Namespace) -> int:
    words = arguments.words
    if words[0] in ACTIONS and len(words) > 1:
        return _act(arguments, words[0], words[1], words[2:])
    if len(words) > 1:
        raise CommandError(
            f"{words[0]!r} is followed by too much: clary models ENDPOINT, or {' | '.join(ACTIONS)}"
        )
    found = server.running(arguments)
    with server.answered():
        story = found.client().admin("GET", f"/_clary/models/{words[0]}")
    print(
        json.dumps(story, indent=1) if arguments.json else "\n".join(lines(story, everything=arguments.all))
    )
    return 0


def lines(story: Mapping[str, Any], *, everything: bool) -> list[str]:
    """The answer of ListEndpointModels as a person reads it: what was used last comes first."""
    models = sorted(story["Models"], key=lambda model: model["LastUsedAt"] or "", reverse=True)
    states = Counter(model["State"] for model in models)
    summary = ", ".join(f"{count:,} {state}" for state, count in states.most_common()) or "none loaded yet"
    shown = [f"endpoint {story['Name']}, {_instances(story)}: {summary}"]
    rows = models if everything else _worth_showing(models)
    if rows:
        shown += ["", table(COLUMNS, [_row(model) for model in rows])]
    if left := len(models) - len(rows):
        shown += ["", f"{left:,} more; all of them: clary models {story['Name']} --all"]
    return shown


def _worth_showing(models: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Pins and failures whatever they are, then what is there, then the newest of what is not."""
    first = [model for model in models if model["IsPinned"] or model["State"] == "failed"]
    rest = [model for model in models if model not in first]
    there = [model for model in rest if model["State"] in _ALWAYS]
    gone = [model for model in rest if model["State"] not in _ALWAYS]
    return [*first, *[*there, *gone][: max(0, SHOWN - len(first))]]


def _instances(story: Mapping[str, Any]) -> str:
    return f"{story['Instances']} instance{'' if story['Instances'] == 1 else 's'}"


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    since = model["LoadedAt"]
    return (
        model["TargetModel"] + (" (pinned)" if model["IsPinned"] else ""),
        model["InstanceId"],
        model["State"],
        f"{datetime.fromisoformat(since).astimezone():%Y-%m-%d %H:%M:%S}" if since else "",
        size(model["MemoryBytes"]) if model["MemoryBytes"] else "",
        size(model["SizeBytes"]) if model["SizeBytes"] else "",
        str(model["Calls"]),
        str(model["Hits"]),
        model["Reason"],
    )


def _act(arguments: argparse.Namespace, action: str, endpoint: str, models: Sequence[str]) -> int:
    if not models:
        raise CommandError(f"which models? clary models {action} {endpoint} MODEL …, as in TargetModel")
    found = server.running(arguments)
    with server.answered():
        params = {"Action": action, "Models": list(models)}
        done = found.client().admin("POST", f"/_clary/models/{endpoint}", params)
    failed = [each for each in done["Models"] if each["State"] == "failed"]
    for each in done["Models"]:
        reason = f": {each['Reason']}" if each["Reason"] else ""
        print(f"{each['TargetModel']} on {each['InstanceId']}: {each['State']}{reason}")
    if action != "prefetch":
        what = "pinned" if action == "pin" else "no longer pinned"
        print(f"{', '.join(models)}: {what} on {_instances(done)} of {done['Name']}")
    return 1 if failed else 0
