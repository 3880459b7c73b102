"""`clary deployments NAME`: what was deployed to an endpoint, by whom, the steps with their evidence, the verdict."""

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from clary.cli import server
from clary.cli.evidence import told
from clary.cli.status import table

WIDTH = 110
_LABEL = 14
_EVIDENCE_AT = 36
_EVIDENCE_WIDTH = WIDTH - _EVIDENCE_AT
_STRATEGIES = {"ALL_AT_ONCE": "all at once", "CANARY": "canary", "LINEAR": "linear", "ROLLING": "rolling"}


def run(arguments: argparse.Namespace) -> int:
    found = server.running(arguments)
    with server.answered():
        answer = found.client().admin("GET", f"/_clary/deployments/{arguments.name}")
    if arguments.json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines(answer, in_full=arguments.all)))
    return 0


def lines(answer: Mapping[str, Any], *, in_full: bool = False) -> list[str]:
    """The answer of ListDeployments as a person reads it: a table, then the steps of the newest, or of all."""
    deployments = answer["Deployments"]
    shown = [f"endpoint {answer['Name']}: {answer['Status']}"]
    if not deployments:
        return [*shown, "no deployments on record"]
    shown += ["", table(_COLUMNS, [_row(deployment) for deployment in deployments])]
    for deployment in deployments if in_full else deployments[:1]:
        shown += ["", *_story(deployment)]
    return shown


_COLUMNS = ("started", "took", "from", "to", "how", "verdict", "asked for by")


def _row(deployment: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{_moment(deployment['StartedAt']):%Y-%m-%d %H:%M:%S}",
        _took(deployment),
        deployment["From"] or "-",
        deployment["To"],
        _STRATEGIES[deployment["Policy"]["Strategy"]],
        _verdict(deployment),
        deployment["RequestedBy"].partition(":")[2].rpartition(":")[2] or deployment["RequestedBy"],
    )


def _story(deployment: Mapping[str, Any]) -> Iterator[str]:
    began = f"{_moment(deployment['StartedAt']):%Y-%m-%d %H:%M:%S}"
    way = f"{deployment['From']} → {deployment['To']}" if deployment["From"] else deployment["To"]
    yield f"{deployment['Operation']} at {began}, {way}: {_verdict(deployment)}"
    yield from _labelled("asked for by", [deployment["RequestedBy"]])
    yield from _labelled("how", [_policy(deployment["Policy"])])
    yield from _labelled("changed", deployment["Changes"])
    if deployment["Reason"]:
        yield from _labelled("reason", deployment["Reason"].split("\n"))
    for number, step in enumerate(deployment["Steps"]):
        yield from _step(step, "steps" if number == 0 else "", deployment)


def _labelled(label: str, texts: Sequence[str]) -> Iterator[str]:
    """Paragraphs behind a label, each wrapped."""
    for text in texts:
        for line in textwrap.wrap(text, WIDTH - _LABEL - 2) or [""]:
            yield f"  {label:<{_LABEL}}{line}".rstrip()
            label = ""


def _step(step: Mapping[str, Any], label: str, deployment: Mapping[str, Any]) -> Iterator[str]:
    """One step, and below it the evidence. What is told elsewhere, or twice, is left out."""
    known, short, long = {deployment["Reason"]}, [], []
    for name, value in step["Evidence"].items():
        text = told(value)
        if not text or text in known:
            continue
        if isinstance(value, str):  # a reason, say; equal numbers of two things are two things
            known.add(text)
        if isinstance(value, list) and name.endswith("tail"):
            long += [f"| {line}" for line in value]
        elif len(text) > WIDTH // 2:
            long += textwrap.wrap(f"{name}: {text}", _EVIDENCE_WIDTH)
        else:
            short.append(f"{name}={text}")
    at = _moment(step["At"])
    after_s = (at - _moment(deployment["StartedAt"])).total_seconds()
    yield f"  {label:<{_LABEL}}{at:%H:%M:%S} +{after_s:<7.1f} {step['Step']}"
    yield from (f"{'':<{_EVIDENCE_AT}}{text}" for text in (*_filled(short), *long))


def _filled(items: Sequence[str]) -> list[str]:
    """Items side by side, in as many lines as they need."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 2 <= _EVIDENCE_WIDTH:
            lines[-1] += f"  {item}"
        else:
            lines.append(item)
    return lines


def _policy(policy: Mapping[str, Any]) -> str:
    words = [_STRATEGIES[policy["Strategy"]]]
    if policy["Step"]:
        words[0] += (
            f", {_size(policy['Step'])} at first"
            if policy["Strategy"] == "CANARY"
            else (f", {_size(policy['Step'])} at a time")
        )
    if policy["WaitSeconds"]:
        words.append(f"{policy['WaitSeconds']:g} s watched after each step")
    if policy["TerminationWaitSeconds"]:
        words.append(f"the old fleet kept {policy['TerminationWaitSeconds']:g} s longer")
    if policy["MaximumExecutionSeconds"]:
        words.append(f"given up after {policy['MaximumExecutionSeconds']:g} s")
    if policy["Alarms"]:
        words.append(f"rolled back on {', '.join(policy['Alarms'])}")
    return "; ".join(words)


def _size(size: Mapping[str, Any]) -> str:
    return f"{size['value']} %" if size["type"] == "CAPACITY_PERCENT" else f"{size['value']} instance(s)"


def _verdict(deployment: Mapping[str, Any]) -> str:
    return str(deployment["Verdict"]).replace("-", " ")


def _took(deployment: Mapping[str, Any]) -> str:
    if deployment["EndedAt"] is None:
        return "…"
    seconds = (_moment(deployment["EndedAt"]) - _moment(deployment["StartedAt"])).total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _moment(text: str) -> datetime:
    """In the reader's own time zone."""
    return datetime.fromisoformat(text).astimezone()
