"""`clary env`: shell lines that point AWS clients at the running server.

Endpoint, keys and region are enough for boto3 and the AWS CLI (`--minimal`). The SageMaker SDKs reach a few of AWS's
hosts at fixed names as well, so by default the lines also make the port their HTTPS proxy, with the certificates to
trust.
"""

import argparse
import os
import shlex
from collections.abc import Mapping

from clary import credentials
from clary.cli import CommandError, bundle, server
from clary.links import upstream_proxy

_LEFT_OVER = ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE")
_WAYS_PAST_US = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT")
_DIRECT = ("127.0.0.1", "localhost")


def run(arguments: argparse.Namespace) -> int:
    found = server.running(arguments)
    values = minimal(found) if arguments.minimal else full(found, os.environ)
    print("\n".join(lines(values, os.environ)))
    return 0


def lines(values: Mapping[str, str], environ: Mapping[str, str]) -> list[str]:
    exports = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return [*exports, f"unset {' '.join(unwanted(environ))}"]


def unwanted(environ: Mapping[str, str]) -> list[str]:
    """Variables from before that would lead clients elsewhere, or send along what does not belong to our key."""
    elsewhere = [name for name in environ if name.startswith("AWS_ENDPOINT_URL_") or name in _WAYS_PAST_US]
    return [*_LEFT_OVER, *elsewhere]


def minimal(found: server.Running) -> dict[str, str]:
    """For clients that ask the endpoint they are given."""
    return {
        "AWS_ENDPOINT_URL": found.url,
        "AWS_ACCESS_KEY_ID": found.key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": found.key.secret_access_key,
        "AWS_DEFAULT_REGION": found.settings.region,
        "AWS_REGION": found.settings.region,
    }


def full(found: server.Running, environ: Mapping[str, str]) -> dict[str, str]:
    """For the SageMaker SDKs too. Tells the gateways of the proxy that `environ` names, and writes the bundle."""
    before = upstream_proxy.found_in(environ)
    try:
        if before is not None and before.url:
            upstream_proxy.note(found.settings, before)
        trusted = str(bundle.write(found.settings, environ))
    except FileNotFoundError as error:
        raise CommandError(
            f"{error.filename} is missing: this server was started by an older Clary. Restart it: clary down, clary up"
        ) from None
    proxy = proxy_url(found)
    direct = _direct(environ)
    return minimal(found) | {
        # Both spellings: who reads both prefers the small one, where an older value may stand.
        "HTTPS_PROXY": proxy,
        "https_proxy": proxy,
        "NO_PROXY": direct,
        "no_proxy": direct,
        "AWS_CA_BUNDLE": trusted,
        "REQUESTS_CA_BUNDLE": trusted,
    }


def proxy_url(found: server.Running) -> str:
    token = credentials.proxy_token(found.settings)
    return f"http://{upstream_proxy.OWN_USER}:{token}@{found.settings.host}:{found.settings.port}"


def _direct(environ: Mapping[str, str]) -> str:
    """What is reached without a proxy: this machine, and what was before, except AWS's hosts."""
    before = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    kept = [each.strip() for each in before.split(",")]
    others = [each for each in kept if each and each != "*" and not each.endswith("amazonaws.com")]
    return ",".join(dict.fromkeys((*_DIRECT, *others)))
