"""`clary logs NAME [-f]`: what an endpoint's instances wrote, through the same CloudWatch Logs API that clients use."""

import argparse
import time
from datetime import datetime
from typing import Any

from clary.cli import CommandError, server
from clary.domain.arns import endpoint_log_group
from clary.wire.client import Client, ClientError, Refused

FOLLOW_EVERY_S = 0.5


def run(arguments: argparse.Namespace) -> int:
    client = server.running(arguments).client()
    group = endpoint_log_group(arguments.name)
    tokens: dict[str, str] = {}
    while True:
        try:
            streams = _streams(client, group)
            for stream in streams:
                _print_new(client, group, stream, tokens, several=len(streams) > 1)
        except ClientError as error:
            _complain(arguments, error)
            client = server.running(arguments).client()  # it may have another port now
        if not arguments.follow:
            return 0
        time.sleep(FOLLOW_EVERY_S)


def _complain(arguments: argparse.Namespace, error: ClientError) -> None:
    """Who follows waits for what passes: an endpoint that is yet to come, a server that is just being restarted."""
    is_away = not isinstance(error, Refused) or error.status >= 500
    is_absent = isinstance(error, Refused) and error.code == "ResourceNotFoundException"
    if arguments.follow and (is_absent or is_away):
        return
    with server.answered():
        if isinstance(error, Refused) and is_absent:
            text = f"no log of an endpoint called {arguments.name!r}: {error.message}"
            raise CommandError(text) from error
        raise error


def _streams(client: Client, group: str) -> list[str]:
    names: list[str] = []
    request: dict[str, Any] = {"logGroupName": group, "orderBy": "LogStreamName"}
    while True:
        page = client.call_json("logs", "DescribeLogStreams", request)
        names += [stream["logStreamName"] for stream in page["logStreams"]]
        if "nextToken" not in page:
            return names
        request["nextToken"] = page["nextToken"]


def _print_new(client: Client, group: str, stream: str, tokens: dict[str, str], *, several: bool) -> None:
    """Prints a stream from where it was left; an unchanged token means that this is all for now."""
    while True:
        request = {"logGroupName": group, "logStreamName": stream, "startFromHead": True}
        if stream in tokens:
            request["nextToken"] = tokens[stream]
        page = client.call_json("logs", "GetLogEvents", request)
        for event in page["events"]:
            at = datetime.fromtimestamp(event["timestamp"] / 1000).astimezone()
            source = f"[{stream}] " if several else ""
            print(f"{at:%H:%M:%S} {source}{event['message']}", flush=True)
        if page["nextForwardToken"] == tokens.get(stream):
            return
        tokens[stream] = page["nextForwardToken"]
