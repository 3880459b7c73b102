"""`GET /_clary/credentials/ROLE`: credentials of an instance's execution role, as AWS's containers get them.

The caller shows the token in its own directory; the token says which role, under a tag, so nothing is looked up in
control, and it is of no use any more when the instance's directory is gone. AWS SDKs find their way here by
AWS_CONTAINER_CREDENTIALS_FULL_URI and fetch again before the credentials expire.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from clary.gateway.callers import Callers
from clary.wire.exchange import BodyError, Exchange
from clary.wire.sigv4 import KeyRing

PATH = b"/_clary/credentials"
SESSION_NAME = "SageMaker"
VALID_S = 3600

_INSTANCE = re.compile(r"i-[0-9a-f]{17}")


class RoleCredentials:
    """Answers instances."""

    def __init__(
        self, keyring: KeyRing, callers: Callers, instances_dir: Path, now: Callable[[], float] = time.time
    ) -> None:
        self._keyring = keyring
        self._callers = callers
        self._instances_dir = instances_dir
        self._now = now

    def takes(self, exchange: Exchange) -> bool:
        """Answers if it is a request for credentials; False when it is something else."""
        if not exchange.head.path.startswith(PATH) or exchange.head.method != b"GET":
            return False
        exchange.collect(0, self._answer, _refuse_body)
        return True

    def _answer(self, exchange: Exchange, body: bytes) -> None:
        status, members = self.credentials(exchange.head.text(b"authorization"))
        _send(exchange, status, members)

    def credentials(self, token: str) -> tuple[int, Mapping[str, str]]:
        """Status and members of the answer to whoever shows this token."""
        found = self._keyring.read_instance_token(token) if token else None
        if found is None:
            return 403, _refusal("AccessDenied", "The authorization token is not one of this server's.")
        role_arn, instance = found
        if not _INSTANCE.fullmatch(instance) or not (self._instances_dir / instance).is_dir():
            return 403, _refusal("AccessDenied", f"The instance {instance} is gone, and its rights with it.")
        if not self._callers.rights.lets_service_assume(role_arn):
            return 403, _refusal("AccessDenied", could_not_assume(role_arn))
        expires = int(self._now()) + VALID_S
        name = role_arn.rpartition("/")[2]
        account = role_arn.split(":")[4]
        issued = self._keyring.issue_session(name, SESSION_NAME, account, expires, issuer=role_arn)
        return 200, {
            "AccessKeyId": issued.access_key_id,
            "SecretAccessKey": issued.secret_access_key,
            "Token": issued.session_token,
            "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires)),
            "RoleArn": role_arn,
        }


def could_not_assume(role_arn: str) -> str:
    return (
        f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
        "'sagemaker.amazonaws.com' to assume the role."
    )


def _refusal(code: str, message: str) -> Mapping[str, str]:
    return {"code": code, "message": message}


def _refuse_body(exchange: Exchange, error: BodyError) -> None:
    _send(exchange, 400, _refusal("ValidationError", "A request for credentials has no body."))


def _send(exchange: Exchange, status: int, members: Mapping[str, str]) -> None:
    fields = b"content-type: application/json\r\ncache-control: no-store\r\n"
    exchange.respond(status, fields, json.dumps(members).encode())
