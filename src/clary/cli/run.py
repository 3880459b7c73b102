"""`clary run -- COMMAND`: a command in the environment of `clary env`. The command takes this process's place, so that
its exit code and its signals are its own.
"""

import argparse
import os
import sys

from clary.cli import CommandError, env, server

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as a shell says it


def run(arguments: argparse.Namespace) -> int:
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words:
        raise CommandError("say what to run, as in: clary run -- python train.py")
    environ = environment(server.running(arguments))
    sys.stdout.flush()
    try:
        os.execvpe(words[0], words, environ)
    except FileNotFoundError:
        print(f"clary: {words[0]}: command not found", file=sys.stderr)
        return _NOT_FOUND
    except OSError as error:
        print(f"clary: {words[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_EXECUTABLE


def environment(found: server.Running) -> dict[str, str]:
    """This process's environment, pointed at the server."""
    left = {name: value for name, value in os.environ.items() if name not in env.unwanted(os.environ)}
    return left | env.full(found, os.environ)
