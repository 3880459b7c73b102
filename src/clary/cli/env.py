"""`clary env`: shell lines that point AWS clients at the running server."""

import argparse
import shlex

from clary.cli import CommandError, server


def run(arguments: argparse.Namespace) -> int:
    if not arguments.minimal:
        raise CommandError(
            "only `clary env --minimal` is built: endpoint, keys and region, which is all that boto3 and the AWS CLI "
            "need. The proxy and certificate for the SageMaker SDKs come with a later release."
        )
    print("\n".join(lines(server.running(arguments))))
    return 0


def lines(found: server.Running) -> list[str]:
    variables = variables_of(found)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    # A profile or a session token from before would be sent along with our key and be refused.
    return [*exports, "unset AWS_SESSION_TOKEN AWS_PROFILE AWS_DEFAULT_PROFILE"]


def variables_of(found: server.Running) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": found.url,
        "AWS_ACCESS_KEY_ID": found.key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": found.key.secret_access_key,
        "AWS_DEFAULT_REGION": found.settings.region,
        "AWS_REGION": found.settings.region,
    }
