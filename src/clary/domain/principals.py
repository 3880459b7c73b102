"""Who calls. Made by the signature check, read by handlers and policies."""

import hashlib
from dataclasses import dataclass

DEFAULT_ROLE_NAME = "SageMakerExecutionRole"
ROOT_SESSION_NAME = "clary"


@dataclass(frozen=True, slots=True)
class Principal:
    """The verified caller of one request.

    `arn` is an assumed role's (`arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`) or, for the server's own
    calls, a service's name. `user_id` is what GetCallerIdentity answers as UserId.
    """

    access_key_id: str
    account: str
    arn: str
    user_id: str
    is_root: bool = False


def role_arn(account: str, role_name: str = DEFAULT_ROLE_NAME) -> str:
    return f"arn:aws:iam::{account}:role/{role_name}"


def role_id(role_name: str) -> str:
    """The unique id IAM would give the role: AROA and 17 capital letters or digits, derived from its name."""
    digest = hashlib.sha256(role_name.encode()).digest()
    return "AROA" + "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[byte & 31] for byte in digest[:17])


def assumed_role(
    account: str, role_name: str, session_name: str, access_key_id: str, *, is_root: bool = False
) -> Principal:
    return Principal(
        access_key_id=access_key_id,
        account=account,
        arn=f"arn:aws:sts::{account}:assumed-role/{role_name}/{session_name}",
        user_id=f"{role_id(role_name)}:{session_name}",
        is_root=is_root,
    )
