"""`make bench [PARTS="serving lifecycle control"]`: runs the measurements and writes the page."""

import sys

from benchmarks import control, lifecycle, serving
from benchmarks.report import ROOT, write

PARTS = {"serving": serving.run, "lifecycle": lifecycle.run, "control": control.run}
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
        tables += PARTS[name]()
        print("\n".join(table.markdown() for table in tables[-3:]), flush=True)
    if set(chosen) == set(PARTS):
        write(PAGE, "Performance", "make bench", tables, INTRODUCTION)
        print(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
