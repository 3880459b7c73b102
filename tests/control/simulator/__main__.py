"""As many stories as are asked for; ends with 1 when one of them broke a law, each of which it prints."""

import argparse
import sys

from control.simulator import GUARANTEES, run_many


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="control.simulator", description="Random stories of an endpoint, held to the laws."
    )
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--without", choices=GUARANTEES, help="take one guarantee away")
    asked = parser.parse_args()
    summary = run_many(asked.first, asked.count, jobs=asked.jobs, without=asked.without)
    for seed, law in sorted(summary.broken.items()):
        print(f"seed {seed}: {law}")
    print(
        f"{summary.seeds} stories from seed {asked.first}: {len(summary.broken)} broken; "
        f"{summary.reconciled} reconciliations; deployments: {dict(summary.verdicts)}"
    )
    return 1 if summary.broken else 0


if __name__ == "__main__":
    sys.exit(main())
