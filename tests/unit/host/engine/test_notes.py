"""A runner's note of its container, where somebody else may have put something in its place."""

import os
from pathlib import Path

import pytest

from clary.host.engine import notes
from clary.host.engine.notes import Note


def test_a_note_comes_back(tmp_path: Path) -> None:
    note = Note("c", 7, 9, layer="/l", limits_memory=True)
    notes.write(tmp_path, note)
    assert notes.read(tmp_path) == note
    assert notes.first_process(tmp_path) == 7


@pytest.mark.parametrize("has_writer", [False, True])
def test_a_pipe_in_its_place_is_no_note_and_holds_nobody_up(tmp_path: Path, has_writer: bool) -> None:
    """On rung 0 an instance can put one there."""
    os.mkfifo(tmp_path / notes.FILE)
    reader = os.open(tmp_path / notes.FILE, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(tmp_path / notes.FILE, os.O_WRONLY) if has_writer else reader
    try:
        assert notes.read(tmp_path) is None
    finally:
        for each in {reader, writer}:
            os.close(each)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"pid": "x"}', b'{"of": "nobody"}', b"\xff"])
def test_what_is_no_note_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / notes.FILE).write_bytes(content)
    assert notes.read(tmp_path) is None
