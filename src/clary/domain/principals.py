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
    issuer: str = ""  # ARN of the user or role whose policies count
    session_policy: str = ""  # narrows the issuer's policies down, when not empty
    is_session: bool = False  # called with temporary credentials

    @property
    def name(self) -> str:
        """A user's name; empty for role sessions."""
        return self.issuer.rpartition("/")[2] if ":user/" in self.issuer else ""


def role_arn(account: str, role_name: str = DEFAULT_ROLE_NAME) -> str:
    return f"arn:aws:iam::{account}:role/{role_name}"


def role_id(role_name: str) -> str:
    """The unique id IAM would give the role: AROA and 17 capital letters or digits, derived from its name."""
    return unique_id("AROA", role_name)


def unique_id(prefix: str, of: str) -> str:
    """An id as IAM gives them, the same for the same thing."""
    digest = hashlib.sha256(of.encode()).digest()
    return prefix + "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[byte & 31] for byte in digest[:17])


def user(account: str, arn: str, access_key_id: str, *, is_session: bool = False) -> Principal:
    """A user with one of its access keys, or with a session made with one."""
    return Principal(
        access_key_id=access_key_id,
        account=account,
        arn=arn,
        user_id=unique_id("AIDA", arn),
        issuer=arn,
        is_session=is_session,
    )


def assumed_role(
    account: str,
    role_name: str,
    session_name: str,
    access_key_id: str,
    *,
    is_root: bool = False,
    issuer: str = "",
    session_policy: str = "",
    is_session: bool = False,
) -> Principal:
    """A session of a role. `issuer` is the role's ARN where it has a path."""
    return Principal(
        access_key_id=access_key_id,
        account=account,
        arn=f"arn:aws:sts::{account}:assumed-role/{role_name}/{session_name}",
        user_id=f"{role_id(role_name)}:{session_name}",
        is_root=is_root,
        issuer=issuer or role_arn(account, role_name),
        session_policy=session_policy,
        is_session=is_session,
    )
