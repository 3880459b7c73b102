from collections.abc import Iterator
from pathlib import Path

import pytest

from control.harness import Control


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    control = Control(tmp_path)
    control.model()
    control.config()
    yield control
    control.close()
