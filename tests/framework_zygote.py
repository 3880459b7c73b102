"""A zygote by a framework's own Python: imports it once, and forks a model server for each configuration it is sent.

framework_zygote.py MODULE…     standard input is the socket: a configuration comes with its stdout, stderr and, to say
                                how it ended, one more descriptor
"""

import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path


def main(modules: list[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "preloading started a thread"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=0) as control:
        control.sendall(b"ready")
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 3)
            if not message:
                return
            if os.fork() == 0:
                mind(json.loads(message), *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def mind(config: dict[str, object], out: int, err: int, ended: int) -> None:
    """Forks the server and waits for it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(0, 1)
    child = os.fork()
    if child == 0:
        os.close(ended)
        serve(config)
    os.write(1, b"child %d\n" % child)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(ended, str(code).encode())
    os._exit(0)


def serve(config: dict[str, object]) -> None:
    from clary.runtimes.server import main as run

    code = 1
    try:
        code = run(config)
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
