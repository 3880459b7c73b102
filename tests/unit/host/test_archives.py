"""Unpacking: what is good comes out whole, what is hostile is refused by name, and nothing ever lands outside."""

import errno
import gzip
import io
import lzma
import os
import random
import signal
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.clock import SystemClock
from clary.host import archives, unpacking
from clary.host.archives import ArchiveInvalid, Limits, Unpacked, unpack
from clary.host.unpacking import Unpackable, Unpacker

LIMITS = Limits(max_members=1000, max_bytes=256 << 20, max_ratio=200.0)


def tar(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def unpacked(archive: io.BytesIO, target: Path, limits: Limits = LIMITS) -> Unpacked:
    target.mkdir()
    return unpack(archive, str(target), limits)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_files_come_out_whole_from_every_compression(tmp_path: Path, mode: str) -> None:
    archive = tar(
        (member("xgboost-model"), b"model" * 100_000),
        (member("./code/inference.py"), b"pass"),
        (member("code/run.sh", mode=0o6777), b"#!"),
        (member("empty", tarfile.DIRTYPE), b""),
        mode=mode,
    )
    done = unpacked(archive, tmp_path / "out")
    assert (done.members, done.size_bytes) == (4, 500_006)
    assert (tmp_path / "out/xgboost-model").read_bytes() == b"model" * 100_000
    assert (tmp_path / "out/code/inference.py").read_bytes() == b"pass"
    assert (tmp_path / "out/empty").is_dir()
    assert (tmp_path / "out/code/run.sh").stat().st_mode & 0o7000 == 0
    assert os.access(tmp_path / "out/code/run.sh", os.X_OK)


def test_links_that_stay_inside_are_kept(tmp_path: Path) -> None:
    archive = tar(
        (member("current", tarfile.SYMTYPE, "versions/1"), b""),
        (member("versions/1/model"), b"m"),
        (member("versions/1/back", tarfile.SYMTYPE, "../../versions"), b""),
        (member("again", tarfile.LNKTYPE, "versions/1/model"), b""),
    )
    unpacked(archive, tmp_path / "out")
    assert (tmp_path / "out/current/model").read_bytes() == b"m"
    assert (tmp_path / "out/again").read_bytes() == b"m"


@pytest.mark.parametrize(
    ("hostile", "words"),
    [
        (member("/etc/evil"), "absolute path"),
        (member("../evil"), "'..'"),
        (member("a/../../evil"), "'..'"),
        (member("out", tarfile.SYMTYPE, "/etc/passwd"), "links out"),
        (member("a/out", tarfile.SYMTYPE, "../../x"), "links out"),
        (member("hard", tarfile.LNKTYPE, "/etc/passwd"), "absolute path"),
        (member("hard", tarfile.LNKTYPE, "../x"), "'..'"),
        (member("hard", tarfile.LNKTYPE, "missing"), "missing"),
        (member("null", tarfile.CHRTYPE), "a device"),
        (member("disk", tarfile.BLKTYPE), "a device"),
        (member("pipe", tarfile.FIFOTYPE), "a pipe"),
        (member("x" * 300), "longer than 255 bytes"),
    ],
)
def test_a_hostile_member_is_refused_by_name(tmp_path: Path, hostile: tarfile.TarInfo, words: str) -> None:
    with pytest.raises(ArchiveInvalid) as refused:
        unpacked(tar((member("good"), b"x"), (hostile, b"")), tmp_path / "out")
    assert words in str(refused.value)
    assert hostile.name[:100] in str(refused.value)
    assert names(tmp_path) == ["out"]


def test_links_that_lead_out_only_together_are_refused(tmp_path: Path) -> None:
    archive = tar(
        (member("a/b/c/file"), b""),
        (member("a/up", tarfile.SYMTYPE, "b/c"), b""),
        (member("out", tarfile.SYMTYPE, "a/up/../../../.."), b""),
    )
    with pytest.raises(ArchiveInvalid, match="links out"):
        unpacked(archive, tmp_path / "out")


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    archive = tar(
        (member("d", tarfile.SYMTYPE, "../victim"), b""),
        (member("d/file"), b"evil"),
    )
    with pytest.raises(ArchiveInvalid):
        unpacked(archive, tmp_path / "out")
    assert names(tmp_path / "victim") == []


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(2, 1 << 30, 1e9), "more than 2 members"),
        (Limits(100, 1 << 20, 1e9), "more than 1048576 bytes"),
        (Limits(100, 1 << 40, 10.0), "times its packed size"),
    ],
)
def test_a_bomb_is_refused(tmp_path: Path, limits: Limits, words: str) -> None:
    zeros = bytes(archives.RATIO_FREE_BYTES // 2)
    archive = tar(*((member(f"zeros-{number}"), zeros) for number in range(3)))
    with pytest.raises(ArchiveInvalid, match=words):
        unpacked(archive, tmp_path / "out", limits)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"no archive at all",
        lambda data: data[: len(data) // 2],
        lambda data: gzip.compress(b"not a tar" * 100),
        lambda data: lzma.compress(b"not a tar" * 100),
        lambda data: data[:40] + b"\xff" * 40 + data[80:],
    ],
)
def test_H01_what_is_no_archive_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    whole = tar((member("model"), random.Random(1).randbytes(10_000))).getvalue()
    with pytest.raises(ArchiveInvalid):
        unpacked(io.BytesIO(damage(whole)), tmp_path / "out")


_NAMES = st.sampled_from(
    ["a", "b", "a/b", "b/c", "a/b/c", "../x", "/x", ".", "..", "a/..", "a//b", "./a", "a/./b"]
)
_TARGETS = st.sampled_from(
    ["a", "b", "..", "../..", "../victim", "/tmp", "a/b", "../a", "b/../..", ".", "", "a/../../victim/file"]
)
_KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)
_MEMBERS = st.lists(st.tuples(_NAMES, _KINDS, _TARGETS), min_size=1, max_size=7)


@settings(max_examples=1000, deadline=None)
@given(_MEMBERS)
def test_a_thousand_hostile_archives_write_nothing_outside(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes, str]]
) -> None:
    root = tmp_path_factory.mktemp("hostile")
    (root / "victim").mkdir()
    (root / "victim/file").write_text("precious")
    archive = tar(
        *(
            (member(name, kind, link), b"evil" if kind == tarfile.REGTYPE else b"")
            for name, kind, link in members
        ),
        mode="w",
    )
    try:
        unpacked(archive, root / "out")
    except ArchiveInvalid:
        accepted = False
    else:
        accepted = True
    assert names(root) == ["out", "victim"]
    assert names(root / "victim") == ["file"]
    assert (root / "victim/file").read_text() == "precious"
    if accepted:
        for path in (root / "out").rglob("*"):
            assert os.path.realpath(path).startswith(os.path.realpath(root / "out"))


@pytest.fixture(scope="module")
def unpacker() -> Iterator[Unpacker]:
    found = Unpacker(SystemClock())
    yield found
    found.close()


def in_a_process(unpacker: Unpacker, archive: Path, timeout_s: float = 120.0) -> Unpacked:
    target = archive.with_suffix(".out")
    target.mkdir()
    return unpacker.unpack(str(archive), target, Limits(10, 1000, 10), timeout_s)


def test_a_process_unpacks_and_refuses_like_the_function(tmp_path: Path, unpacker: Unpacker) -> None:
    (tmp_path / "good").write_bytes(tar((member("model"), b"m")).getvalue())
    (tmp_path / "bad").write_bytes(tar((member("../evil"), b"m")).getvalue())
    assert in_a_process(unpacker, tmp_path / "good") == Unpacked(1, 1)
    assert (tmp_path / "good.out/model").read_bytes() == b"m"
    with pytest.raises(Unpackable) as refused:
        in_a_process(unpacker, tmp_path / "bad")
    assert refused.value.code == "ArtifactInvalid"
    assert "../evil" in str(refused.value)


def test_a_process_s_memory_is_limited(tmp_path: Path, unpacker: Unpacker) -> None:
    """A header may say that it is two gigabytes long; reading it would take as much."""
    header = member("x", tarfile.XHDTYPE)
    header.size = 2 << 30
    (tmp_path / "bomb").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    with pytest.raises(Unpackable) as refused:
        in_a_process(unpacker, tmp_path / "bomb")
    assert refused.value.code == "ArtifactInvalid"


def test_an_archive_that_takes_too_long_is_left_and_its_process_with_it(
    tmp_path: Path, unpacker: Unpacker
) -> None:
    os.mkfifo(tmp_path / "endless")  # nobody ever writes to it
    holder = os.open(tmp_path / "endless", os.O_RDWR)
    with pytest.raises(Unpackable) as refused:
        in_a_process(unpacker, tmp_path / "endless", timeout_s=0.2)
    os.close(holder)
    assert refused.value.code == "DownloadTimeout"
    (tmp_path / "good").write_bytes(tar((member("model"), b"m")).getvalue())
    assert in_a_process(unpacker, tmp_path / "good").members == 1


def test_a_process_serves_many_archives_and_is_replaced_after_a_bad_one(tmp_path: Path) -> None:
    with closing(Unpacker(SystemClock())) as unpacker:
        for name in ("first", "second"):
            (tmp_path / name).write_bytes(tar((member("model"), b"m")).getvalue())
        (tmp_path / "bad").write_bytes(b"no archive")
        in_a_process(unpacker, tmp_path / "first")
        (first,) = unpacker.pids()
        in_a_process(unpacker, tmp_path / "second")
        assert unpacker.pids() == [first]
        with pytest.raises(Unpackable):
            in_a_process(unpacker, tmp_path / "bad")
        (other,) = unpacker.pids()
        assert other != first


def test_a_process_that_was_killed_while_it_was_idle_is_replaced(tmp_path: Path) -> None:
    with closing(Unpacker(SystemClock())) as unpacker:
        for name in ("first", "second"):
            (tmp_path / name).write_bytes(tar((member("model"), b"m")).getvalue())
            assert in_a_process(unpacker, tmp_path / name).members == 1
            (pid,) = unpacker.pids()
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_process_that_is_killed_before_it_takes_an_archive_up_is_replaced(tmp_path: Path) -> None:
    """It stands still, so that what it is sent lies there unread when it is killed."""
    (tmp_path / "first").write_bytes(tar((member("model"), b"m")).getvalue())
    (tmp_path / "second").write_bytes(tar((member("model"), b"m")).getvalue())
    with closing(Unpacker(SystemClock())) as unpacker, ThreadPoolExecutor(1) as pool:
        in_a_process(unpacker, tmp_path / "first")
        (pid,) = unpacker.pids()
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        unpacked = pool.submit(in_a_process, unpacker, tmp_path / "second")
        while unpacker.pids():
            os.sched_yield()
        os.kill(pid, signal.SIGKILL)
        assert unpacked.result(120).members == 1


def test_processes_that_never_take_an_archive_up_are_not_started_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def ended() -> unpacking._Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = unpacking._Worker(subprocess.Popen(["sleep", "60"], stdin=theirs.fileno()), ours)
        theirs.close()
        worker.process.send_signal(signal.SIGSTOP)
        started.append(worker)
        return worker

    monkeypatch.setattr(unpacking, "_start", ended)
    (tmp_path / "first").write_bytes(b"")
    with closing(Unpacker(SystemClock())) as unpacker, ThreadPoolExecutor(1) as pool:
        refused = pool.submit(in_a_process, unpacker, tmp_path / "first")
        while not refused.done():
            for worker in list(started):
                worker.process.kill()
        with pytest.raises(Unpackable, match="before it takes one up"):
            refused.result()


@pytest.mark.parametrize("die", [1, 100])
def test_a_process_that_dies_before_it_is_sent_an_archive_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, die: int
) -> None:
    started: list[unpacking._Worker] = []
    start = unpacking._start

    def start_or_not() -> unpacking._Worker:
        started.append(start())
        if len(started) <= die:
            os.kill(started[-1].process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, started[-1].process.pid, os.WEXITED | os.WNOWAIT)
        return started[-1]

    monkeypatch.setattr(unpacking, "_start", start_or_not)
    (tmp_path / "first").write_bytes(tar((member("model"), b"m")).getvalue())
    with closing(Unpacker(SystemClock())) as unpacker:
        if die == 1:
            assert in_a_process(unpacker, tmp_path / "first").members == 1
        else:
            with pytest.raises(Unpackable, match="before it takes one up"):
                in_a_process(unpacker, tmp_path / "first")
    assert [each.process.returncode for each in started[:die]] == [-signal.SIGKILL] * len(started[:die])


def test_an_answer_stands_although_no_process_can_be_started_for_the_next_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []
    start = unpacking._start

    def start_once() -> unpacking._Worker:
        if refused:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        refused.append(errno.EMFILE)
        return start()

    monkeypatch.setattr(unpacking, "_start", start_once)
    monkeypatch.setattr(unpacking, "ARCHIVES_A_PROCESS", 1)
    (tmp_path / "first").write_bytes(tar((member("model"), b"m")).getvalue())
    with closing(Unpacker(SystemClock())) as unpacker:
        assert in_a_process(unpacker, tmp_path / "first").members == 1
        assert unpacker.pids() == []


def test_a_process_that_cannot_be_started_leaves_no_descriptor_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is dropped open warns, which is an error here."""

    def refuse(*arguments: object, **options: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with closing(Unpacker(SystemClock())) as unpacker, pytest.raises(BlockingIOError):
        unpacker.warm()
