"""Completes a lock that names torch's CPU build: `python weave_torch_hashes.py FRAMEWORK/requirements.lock`.

A lock is made where one wheel of that build can be reached, or a few, and uv writes down the hashes of what it sees.
`pytorch/torch-wheels.txt` has those of every Python and processor Clary runs on, as the build's own index lists them.
"""

import re
import sys
from pathlib import Path

WHEELS = Path(__file__).parent / "pytorch" / "torch-wheels.txt"
ENTRY = re.compile(r"^torch==(?P<version>\S+\+cpu)(?P<marker> ;.*)? \\\n(?:    --hash=.*\n)+", re.MULTILINE)


def woven(lock: str, wheels: str) -> str:
    """The lock with all hashes of its torch. Raises `KeyError` for a version the list does not have."""
    hashes: dict[str, list[str]] = {}
    for line in wheels.splitlines():
        digest, name = line.split()
        hashes.setdefault(name.split("-")[1], []).append(digest)

    def entry(found: re.Match[str]) -> str:
        head = f"torch=={found['version']}{found['marker'] or ''}"
        lines = [f"    --hash=sha256:{digest}" for digest in sorted(hashes[found["version"]])]
        return " \\\n".join((head, *lines)) + "\n"

    return ENTRY.sub(entry, lock)


if __name__ == "__main__":
    for _name in sys.argv[1:]:
        _path = Path(_name)
        _path.write_text(woven(_path.read_text(), WHEELS.read_text()))
