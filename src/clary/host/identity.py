"""An instance's execution role: how AWS SDKs inside find its credentials.

The instance gets a token of its own in a file and the URL where the gateways give credentials for it
(`clary.gateway.role_credentials`). Nothing is asked of control, and nothing secret stands in the environment.
"""

import os
from pathlib import Path

from clary import credentials
from clary.domain.instances import InstanceSpec
from clary.settings import Settings
from clary.wire.sessions import KeyRing

TOKEN_FILE = "/opt/ml/credentials/token"
URL_PATH = "/_clary/credentials"


def role_environment(settings: Settings, spec: InstanceSpec, directory: Path) -> dict[str, str]:
    """Writes the instance's token and says what its environment holds. Container paths, as `/opt/ml/…`.

    Without a role, or isolated from the network, it gets no credentials.
    """
    if not spec.execution_role_arn or spec.network_isolated:
        return {}
    url = f"http://{settings.host}:{settings.port}"
    keys = KeyRing.load(credentials.path(settings), settings.account)
    _write(directory / TOKEN_FILE.lstrip("/"), keys.instance_token(spec.execution_role_arn, spec.instance_id))
    name = spec.execution_role_arn.rpartition("/")[2]
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}{URL_PATH}/{name}",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": TOKEN_FILE,
    }


def _write(file: Path, token: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(token)
