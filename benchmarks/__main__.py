"""`make bench`: measures and writes the page. `PARTS="rungs sdk"` takes those parts anew and leaves the others."""

import sys

from benchmarks import (
    batching,
    chains,
    control,
    handlers,
    lifecycle,
    models,
    neighbours,
    objects,
    rungs,
    runtimes,
    sdk,
    serving,
)
from benchmarks.report import ROOT, enter

PARTS = {
    "serving": serving.run,
    "handlers": handlers.run,
    "runtimes": runtimes.run,
    "batching": batching.run,
    "chains": chains.run,
    "sdk": sdk.run,
    "lifecycle": lifecycle.run,
    "rungs": rungs.run,
    "neighbours": neighbours.run,
    "control": control.run,
    "objects": objects.run,
    "models": models.run,
}
PAGE = ROOT / "docs" / "reference" / "performance.md"
INTRODUCTION = (
    "Ratios carry over to other machines, absolute figures do not. What the figures mean, and where the time goes:\n"
    "[the path of a request](../explanation/performance.md)."
)


def main() -> None:
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := set(chosen) - PARTS.keys():
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    for name in chosen:
        print(f"measuring: {name} …", flush=True)
        tables = PARTS[name]()
        print("\n".join(table.markdown() for table in tables), flush=True)
        enter(PAGE, "Performance", INTRODUCTION, {part: tables if part == name else None for part in PARTS})
        print(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
