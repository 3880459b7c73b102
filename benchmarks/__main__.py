"""`make bench`: runs the measurements and writes the page. `PARTS="rungs sdk"` prints those parts only."""

import sys

from benchmarks import chains, control, handlers, lifecycle, models, objects, rungs, runtimes, sdk, serving
from benchmarks.report import ROOT, write

PARTS = {
    "serving": serving.run,
    "handlers": handlers.run,
    "runtimes": runtimes.run,
    "chains": chains.run,
    "sdk": sdk.run,
    "lifecycle": lifecycle.run,
    "rungs": rungs.run,
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
    tables = []
    for name in chosen:
        print(f"measuring: {name} …", flush=True)
        found = PARTS[name]()
        print("\n".join(table.markdown() for table in found), flush=True)
        tables += found
    if set(chosen) == set(PARTS):
        write(PAGE, "Performance", "make bench", tables, INTRODUCTION)
        print(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
