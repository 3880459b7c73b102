"""How much disk a directory takes."""

import os
from contextlib import suppress
from pathlib import Path


def size_bytes(directory: Path) -> int:
    """All files below it; what vanishes meanwhile does not count."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(folder) / name).lstat().st_size
    return total
