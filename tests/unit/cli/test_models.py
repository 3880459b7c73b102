"""`clary models`: what a person reads of a multi-model endpoint."""

from typing import Any

from clary.cli import models


def model(number: int, state: str = "loaded", **changes: Any) -> dict[str, Any]:
    return {
        "TargetModel": f"m{number}.tar.gz",
        "InstanceId": "i-1",
        "State": state,
        "LoadedAt": "2026-11-21T09:00:00+00:00" if state == "loaded" else None,
        "LastUsedAt": f"2026-11-21T09:{number:02d}:00+00:00",
        "MemoryBytes": 120_000 if state == "loaded" else 0,
        "SizeBytes": 70_000,
        "Calls": 7,
        "Loads": 2,
        "Hits": 5,
        "IsPinned": False,
        "Reason": "",
    } | changes


def shown(*found: dict[str, Any], everything: bool = False) -> list[str]:
    story = {"Name": "mme", "Instances": 1, "Models": list(found)}
    return [line for text in models.lines(story, everything=everything) for line in text.split("\n")]


def test_M04_what_is_loaded_stands_with_its_figures_and_what_is_not_with_the_reason() -> None:
    lines = shown(
        model(1), model(2, "on disk", Reason="memory: m1.tar.gz needed room"), model(3, IsPinned=True)
    )
    assert lines[0] == "endpoint mme, 1 instance: 2 loaded, 1 on disk"
    head, pinned, loaded, gone = lines[2:]
    assert head.split() == ["model", "instance", "state", "since", "memory", "on", "disk", "calls", "hits"]
    assert pinned.startswith("m3.tar.gz (pinned)")
    assert loaded.split()[-6:] == ["120.0", "kB", "70.0", "kB", "7", "5"]
    assert gone.endswith("memory: m1.tar.gz needed room")


def test_M04_of_very_many_the_ones_in_use_are_shown() -> None:
    many = [model(number % 60, "on disk") for number in range(100)]
    lines = shown(*many, model(1), model(2, "failed", Reason="no model"))
    assert len(lines) == 2 + 1 + models.SHOWN + 2
    assert [line.split()[2] for line in lines[3:6]] == ["failed", "loaded", "on"]
    assert lines[-1] == "62 more; all of them: clary models mme --all"
    assert len(shown(*many, everything=True)) == 103


def test_M04_before_the_first_call_there_is_nothing() -> None:
    assert shown() == ["endpoint mme, 1 instance: none loaded yet"]
