"""Models on the disk, when what an earlier host left cannot be removed yet."""

import shutil
from pathlib import Path

import pytest

from clary.domain.clock import SystemClock
from clary.host.archives import Limits
from clary.host.models_files import MODELS, PARTS, ModelFiles, Note
from clary.host.unpacking import Unpacker


def test_M02_what_an_earlier_host_still_has_unpacked_is_in_nobody_s_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ModelFiles(tmp_path, Unpacker(SystemClock()), Limits(1, 1, 1))
    (tmp_path / PARTS / "gone-0" / "left").mkdir(parents=True)
    (tmp_path / MODELS / "m").mkdir()
    note = Note("m", "m.tar.gz", "etag", 1, 0.0)
    files.note(note)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda path, **options: None)  # as if more came while it is removed
        assert list(files.recover()) == [note]
    files.put_away("m")
    assert not files.has("m")
