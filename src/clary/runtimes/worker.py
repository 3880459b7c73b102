"""A worker: a process that holds a user's script and answers one request at a time, as the toolkit's workers do.

It is forked from the model server before any code of the user's ran, so what the script imports, starts, holds or
breaks is in here: the server goes on answering pings, and ends a worker that does not come back. Both talk over a
socket pair, in frames of a length and a marshalled tuple; the two sides run the same Python, and trust each other
no more than a container trusts itself.

    worker → server   (True, "", how many requests it takes at once), or (False, why not, 0)
    server → worker   for each request: content type, accept, custom attributes, headers, body
    worker → server   for each request: status, content type, body, custom attributes, session fields
"""

import ctypes
import gc
import marshal
import os
import random
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from clary.runtimes.contract import InvocationHead, InvocationRequest, InvocationResponse, LoadError
from clary.runtimes.handler import Answers, AnswersTogether, words_of

LENGTH = struct.Struct("<Q")
_PR_SET_PDEATHSIG = 1
_LARGEST_READ = 1 << 20


def frame(message: tuple[Any, ...]) -> bytes:
    data = marshal.dumps(message)
    return LENGTH.pack(len(data)) + data


def run(channel: socket.socket, load: Callable[[], Answers], tells_why: bool) -> NoReturn:
    """Loads, then answers until the server's end closes. Called in a fresh fork; never returns.

    Of several workers that fail to load in the same way one writes the stack to the log: `tells_why`.
    """
    status = 1
    try:
        _settle(channel)
        if (answers := _load(channel, load, tells_why)) is not None:
            _answer_on(channel, answers)
            status = 0
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server is gone
    except BaseException:  # noqa: BLE001  the end of a process: nobody above
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        os._exit(status)


def _settle(channel: socket.socket) -> None:
    """Ends with the server, and keeps nothing of it open."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The platform signals the whole group. The server finishes what runs, and closes the channel when it is done.
    # A function, not SIG_IGN: programs that a script starts would inherit that.
    signal.signal(signal.SIGTERM, lambda number, stack: None)
    signal.signal(signal.SIGINT, lambda number, stack: None)
    os.closerange(3, channel.fileno())
    os.closerange(channel.fileno() + 1, 65536)
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(int.from_bytes(os.urandom(4), "little"))


def _load(channel: socket.socket, load: Callable[[], Answers], tells_why: bool) -> Answers | None:
    try:
        answers = load()
    except LoadError as error:
        why = str(error)
    except BaseException as error:  # noqa: BLE001  (a user's code: it may even exit)
        if tells_why:
            traceback.print_exc(file=sys.__stderr__)
        why = words_of(error)
    else:
        gc.collect()
        gc.freeze()
        together = answers.most_together if isinstance(answers, AnswersTogether) else 1
        channel.sendall(frame((True, "", together)))
        return answers
    channel.sendall(frame((False, why, 0)))
    return None


def _answer_on(channel: socket.socket, answers: Answers) -> None:
    me = os.getpid()
    answer_all = answers.answer_all if isinstance(answers, AnswersTogether) else _one_by_one(answers)
    while (message := _receive(channel)) is not None:
        requests = [InvocationRequest(InvocationHead(*each[:4]), each[4]) for each in message]
        responses = answer_all(requests)
        if os.getpid() != me:
            return  # a script that forked and came back twice: only the first may answer
        channel.sendall(frame(tuple(map(tuple, responses))))


def _one_by_one(answers: Answers) -> Callable[[Sequence[InvocationRequest]], list[InvocationResponse]]:
    return lambda requests: [answers.answer(request) for request in requests]


def _receive(channel: socket.socket) -> tuple[Any, ...] | None:
    head = _read(channel, LENGTH.size)
    if head is None:
        return None
    data = _read(channel, LENGTH.unpack(head)[0])
    if data is None:
        return None
    message: tuple[Any, ...] = marshal.loads(data)
    return message


def _read(channel: socket.socket, count: int) -> bytearray | None:
    """None at the end."""
    data = bytearray()
    while len(data) < count:
        part = channel.recv(min(count - len(data), _LARGEST_READ))
        if not part:
            return None
        data += part
    return data


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        return  # the disk is full or the script closed it: nobody is left to tell
