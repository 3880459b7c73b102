"""The `clary` command.

A command is a module with `run(arguments) -> int`; only the one that is asked for is imported, so that
`clary --help` and `clary env` are quick. What a person reads goes to stdout, complaints to stderr with exit code 1;
2 is argparse's own, for a command line that makes no sense.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from clary.settings import SettingsError

COMMANDS = {
    "up": ("clary.cli.up", "start Clary and keep it running until Ctrl-C"),
    "down": ("clary.cli.down", "stop everything that runs on a data directory"),
    "restart": ("clary.cli.restart", "replace every process by a new one while endpoints serve"),
    "env": ("clary.cli.env", "print the variables that point AWS clients here"),
    "run": ("clary.cli.run", "run a command whose AWS clients are pointed here"),
    "demo": (
        "clary.cli.demo",
        "train, deploy and call a real model with plain boto3, then with the SageMaker SDK",
    ),
    "status": ("clary.cli.status", "what runs, and what it takes"),
    "logs": ("clary.cli.logs", "what an endpoint's instances wrote"),
    "why": ("clary.cli.why", "explain where an endpoint stands, with evidence"),
    "deployments": (
        "clary.cli.deployments",
        "who deployed what to an endpoint, step by step, and what came of it",
    ),
    "image": ("clary.cli.image", "which runtime answers for an image; make one of a requirements file"),
    "models": (
        "clary.cli.models",
        "the models of a multi-model endpoint: what is loaded, pinned and why not",
    ),
    "doctor": ("clary.cli.doctor", "check this machine and say what would help"),
}


class CommandError(Exception):
    """The command cannot do what was asked; the message says why and what to do next."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    module = importlib.import_module(COMMANDS[arguments.command][0])
    try:
        return int(module.run(arguments))
    except (CommandError, SettingsError) as error:
        print(f"clary: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has gone, as with `clary logs … | head`
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130


class _InAnyOrder(argparse.ArgumentParser):
    """Options may stand between a command's words: `clary image make --on pytorch NAME -r FILE`."""

    _is_inside = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._is_inside or any(action.nargs == argparse.REMAINDER for action in self._actions):
            return super().parse_known_args(args, namespace)
        self._is_inside = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_inside = False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clary",
        description="SageMaker on your own machines.",
        epilog='First steps: `clary up`; in another terminal `eval "$(clary env)"`; then any AWS code.',
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_InAnyOrder
    )
    for name, (_, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        command.add_argument("--data-dir", metavar="DIR", help="where everything is kept (default: ~/.clary)")
        _OPTIONS.get(name, lambda _: None)(command)
    return parser


def _up_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, help="the one port to listen on (default: 8470; 0: any free one)")
    parser.add_argument("--account", help="the AWS account id to be (default: 123456789012)")
    parser.add_argument("--gateways", type=int, help="gateway processes (default: 2)")
    parser.add_argument(
        "--ephemeral", action="store_true", default=None,
        help="for test suites: temporary data, everything gone at the end",
    )  # fmt: skip


def _env_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--minimal",
        action="store_true",
        help="endpoint, keys and region only, which is enough for boto3 and the CLI",
    )


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "clary run [--data-dir DIR] -- COMMAND [ARGUMENT ...]"
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="the command and its arguments, behind `--`",
    )


def _logs_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="an endpoint's name")
    parser.add_argument("-f", "--follow", action="store_true", help="go on printing as lines arrive")


def _why_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="an endpoint's name")


def _deployments_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="an endpoint's name; it may be gone")
    parser.add_argument(
        "--all", action="store_true", help="the steps of every deployment, not only the newest"
    )
    parser.add_argument("--json", action="store_true", help="everything, as JSON")


def _image_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=("list", "show", "make", "remove"), metavar="ACTION",
        help="list: all images; show NAME: one; make NAME -r FILE: one of your own; remove NAME: one of your own",
    )  # fmt: skip
    parser.add_argument("name", nargs="?", metavar="NAME", help="an image's name or URI")
    parser.add_argument("-r", "--requirements", metavar="FILE", help="make: the packages to add")
    parser.add_argument(
        "--on", metavar="FRAMEWORK", help="make: the framework to add them to (default: sklearn)"
    )


def _models_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "clary models [--data-dir DIR] [--all] [--json] ENDPOINT\n"
        "       clary models [--data-dir DIR] {pin,unpin,prefetch} ENDPOINT MODEL ..."
    )
    parser.add_argument(
        "words", nargs="+", metavar="ENDPOINT",
        help="an endpoint's name; or pin, unpin or prefetch, an endpoint's name and models as in TargetModel",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="all models, not only the forty most worth it")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", metavar="FILE", help="a CSV table; its last column is predicted (default: diabetes)"
    )
    parser.add_argument(
        "--output", metavar="DIR", default="demo-output", help="where the plot goes (default: demo-output)"
    )
    parser.add_argument(
        "--no-sdk", action="store_true", help="leave out the second half, with the SageMaker SDK"
    )


_OPTIONS = {
    "up": _up_options,
    "env": _env_options,
    "run": _run_options,
    "logs": _logs_options,
    "why": _why_options,
    "deployments": _deployments_options,
    "models": _models_options,
    "demo": _demo_options,
    "image": _image_options,
}


def _version() -> str:
    from importlib.metadata import version

    return f"clary {version('clary')}"
