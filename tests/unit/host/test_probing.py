"""One ping: only an HTTP 200 is well, and everything else says what it was."""

import asyncio
from pathlib import Path

import pytest

from clary.host.probing import Answer, ping


def asked(path: Path, answer: bytes | None, timeout_s: float = 30) -> Answer:
    """A ping of a server that answers with these bytes and keeps the connection; None: it never answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is not None:
            writer.write(answer)
            if answer.startswith(b"HTTP"):
                await reader.read()
        else:
            await reader.read()
        writer.close()

    async def run() -> Answer:
        async with await asyncio.start_unix_server(serve, str(path)):
            return await ping(str(path), timeout_s)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", Answer(True, "HTTP 200")),
        (b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nfine", Answer(True, "HTTP 200: 'fine'")),
        (b"HTTP/1.1 503 No\r\n\r\nloading", Answer(False, "HTTP 503: 'loading'")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(False, "HTTP 204")),
        (b"garbage\r\n\r\n", Answer(False, "no HTTP answer: 'garbage'")),
        (b"", Answer(False, "it closed the connection without an answer")),
    ],
)
def test_only_200_is_well(tmp_path: Path, answer: bytes, expected: Answer) -> None:
    assert asked(tmp_path / "s", answer) == expected


def test_silence_is_an_answer_after_the_timeout(tmp_path: Path) -> None:
    assert asked(tmp_path / "s", None, timeout_s=0.05) == Answer(False, "no answer within 0.05 s")


def test_nobody_there_is_an_answer(tmp_path: Path) -> None:
    assert asyncio.run(ping(str(tmp_path / "none"), 1)) == Answer(False, "it does not listen yet")
