"""`clary status`: the processes, the endpoints and the space they take, on one screen."""

import argparse
import os
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from clary.cli import server
from clary.links import processes
from clary.supervisor import names_of, roles

MOST_NAMES = 4


def run(arguments: argparse.Namespace) -> int:
    found = server.running(arguments)
    with server.answered():
        status = found.client().admin("GET", "/_clary/status")
    print(f"Clary at {found.url}, data in {found.settings.data_dir}\n")
    print(table(("process", "pid", "memory"), _processes(found)))
    print()
    print(_endpoints(status["Endpoints"]))
    for name, state in sorted(status["Parts"]["Environments"].items()):
        print(f"environment {name}: {state}")
    if engine := status["Parts"].get("ContainerEngine"):
        print(f"container engine: {engine}")
    print(f"space: {_space(found)}; {size(status['Disk']['FreeBytes'])} free")
    return 0


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain columns, each as wide as its widest cell."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in [columns, *rows]
    ]
    return "\n".join(line.rstrip() for line in lines)


def size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _processes(found: server.Running) -> list[tuple[str, str, str]]:
    rows = []
    for role in ["supervisor", *roles(found.settings)]:
        running = {
            name: identity
            for name in names_of(role, found.settings)
            if (identity := processes.alive(found.settings.run_dir / f"{name}.pid.json"))
        }
        rows += [
            (name, str(identity.pid), size(processes.memory_bytes(identity)))
            for name, identity in running.items()
        ]
        if not running:
            rows.append((role, "not running", ""))
    return rows


def _space(found: server.Running) -> str:
    """What each part of the data directory takes."""
    parts = {path.name: _bytes_below(path) for path in found.settings.data_dir.iterdir()}
    parts["environments (shared)"] = _bytes_below(found.settings.cache_dir / "environments")
    large = sorted(((count, name) for name, count in parts.items() if count >= 1000), reverse=True)
    return ", ".join(f"{name} {size(count)}" for count, name in large) or "nothing yet"


def _bytes_below(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            with suppress(FileNotFoundError):  # gone meanwhile
                total += (Path(directory) / name).lstat().st_blocks * 512
    return total


def _endpoints(endpoints: Sequence[Mapping[str, Any]]) -> str:
    if not endpoints:
        return "no endpoints"
    rows = []
    for endpoint in endpoints:
        known = [variant["Ready"] for variant in endpoint["Variants"] if "Ready" in variant]
        ready = sum(known) if known else "?"  # control is of an older version, before `clary restart`
        wanted = sum(variant["InstanceCount"] for variant in endpoint["Variants"])
        note = deploying(endpoint["Deployment"]) if "Deployment" in endpoint else _trouble(endpoint)
        note = note or _containers(endpoint["Variants"])
        rows.append((endpoint["Name"], endpoint["Status"], f"{ready}/{wanted}", endpoint["Config"], note))
    return table(("endpoint", "status", "ready", "config", ""), rows)


def _trouble(endpoint: Mapping[str, Any]) -> str:
    reason = _short(endpoint.get("FailureReason", ""))
    serves_on = reason and endpoint["Status"] == "InService"
    return f"last update: {reason}" if serves_on else reason


def _containers(variants: Sequence[Mapping[str, Any]]) -> str:
    """What the instances of each variant are made of, where that is more than one container with one model."""
    told = []
    for variant in variants:
        if mode := variant.get("Mode"):
            names = variant.get("Containers", ())
            text = f"{mode}: {listed(names, ', ' if mode == 'Direct' else ' → ')}" if names else mode
            told.append(text if len(variants) == 1 else f"{variant['Name']} {text}")
    return "; ".join(told)


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """Of more than a few only the first, the last and how many."""
    if len(names) <= MOST_NAMES:
        return separator.join(names)
    return f"{names[0]}{separator}…{separator}{names[-1]} ({len(names)})"


def _short(reason: str) -> str:
    """Its first sentence, as far as there is room: `clary why` has the rest."""
    return textwrap.shorten(reason.partition("\n")[0], 100, placeholder=" …")


def deploying(deployment: Mapping[str, Any]) -> str:
    variants = deployment["Variants"]
    activated, wanted = (sum(variant[word] for variant in variants) for word in ("Activated", "Wanted"))
    return f"{deployment['Stage']}: {activated} of {wanted} of {deployment['To']} with traffic"
