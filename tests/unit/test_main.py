"""Control, put together, while a part of the server is away."""

from pathlib import Path

import pytest

from clary import credentials
from clary.domain.faults import Fault
from clary.main import Control
from clary.settings import Settings
from clary.testing.clock import FakeClock


def test_U05_a_reset_while_the_host_is_away_asks_for_another_try(tmp_path: Path) -> None:
    found = Settings(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", ephemeral=True)
    found.run_dir.mkdir(parents=True)
    credentials.ensure(found)
    control = Control(found, FakeClock())
    try:
        with pytest.raises(Fault, match=r"no host answers .* Try again") as caught:
            control._reset()
        assert (caught.value.code, caught.value.status) == ("ServiceUnavailable", 503)
    finally:
        control._close()
        for part in (control._metrics, control._blobs, control._store):
            part.close()
