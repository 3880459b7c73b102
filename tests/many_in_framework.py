"""Run by a framework's own Python: models come and go in a server of many, and what they leave behind is counted.

python many_in_framework.py MODULE STORY     STORY: JSON, {"rounds": …, "model": folder, "bad": folder, "body": text,
"kind": its content type, "answer": what comes back, "kills": whether a model's other processes are ended once}

Prints what happened as JSON.
"""

import asyncio
import gc
import importlib
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from clary.runtimes.contract import InvocationHead, InvocationRequest, InvocationResponse
from clary.runtimes.models import Shelf
from clary.runtimes.models_memory import Memory, allocated_bytes


async def main(module: str, story: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    shelf = Shelf(loop, importlib.import_module(module).load, {}, 1, Memory(1 << 40))
    found: dict[str, Any] = {"allocated": []}
    for _ in range(story["rounds"]):
        loaded = await shelf.load("m", story["model"])
        assert loaded.status == 200, loaded.body
        assert await _ask(loop, shelf, story) == story["answer"]
        if story.get("kills"):
            await _outlive(loop, shelf, story)
        assert (await shelf.unload("m")).status == 200
        gc.collect()
        found["allocated"].append(allocated_bytes())
    if story.get("bad"):
        refused = await shelf.load("bad", story["bad"])
        found["bad"] = [refused.status, refused.body.decode()]
    found["children"] = await _left(loop)
    shelf.close()
    return found


async def _outlive(loop: asyncio.AbstractEventLoop, shelf: Shelf, story: dict[str, Any]) -> None:
    """All processes of the model end; it answers again."""
    for pid in shelf.loaded["m"].workers:
        os.kill(pid, signal.SIGKILL)
    while await _ask(loop, shelf, story) != story["answer"]:
        pass


async def _ask(loop: asyncio.AbstractEventLoop, shelf: Shelf, story: dict[str, Any]) -> str:
    answered: asyncio.Future[InvocationResponse] = loop.create_future()
    request = InvocationRequest(InvocationHead(story["kind"], None, "", ()), story["body"].encode())
    shelf.loaded["m"].submit([request], lambda answers: answered.set_result(answers[0]))
    return (await asyncio.wait_for(answered, 60)).body.decode()


async def _left(loop: asyncio.AbstractEventLoop) -> list[str]:
    """The processes that do not end: what is unloaded may take a moment to be gone."""
    deadline = loop.time() + 60
    while (left := _children()) and loop.time() < deadline:  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0.02)
    return left


def _children() -> list[str]:
    found: list[str] = []
    for thread in Path("/proc/self/task").iterdir():
        with suppress(
            FileNotFoundError, ProcessLookupError
        ):  # it has ended meanwhile, as one that loaded does
            found += (thread / "children").read_text().split()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))))
