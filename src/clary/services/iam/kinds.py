"""What is kept about users, roles, policies and keys, how they are found, and IAM's words when they are not.

IAM knows no regions: its resources lie in the region "". Names are unique without regard to case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from clary.domain.faults import Fault
from clary.domain.policies import MalformedPolicy, parse_policy
from clary.services import page_tokens
from clary.store import DuplicateName, Resource, Transaction
from clary.wire.operations import Call
from clary.wire.shapes import iam as shapes

REGION = ""
MOST_TAGS = 50

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind:
    """`name` is the store's word, `word` the ARN's, `noun` stands in messages."""

    name: str
    word: str
    noun: str

    def arn(self, account: str, path: str, name: str) -> str:
        return f"arn:aws:iam::{account}:{self.word}{path}{name}"


USER = Kind("iam-user", "user", "user")
ROLE = Kind("iam-role", "role", "role")
POLICY = Kind("iam-policy", "policy", "policy")
ACCESS_KEY = Kind("iam-access-key", "access-key", "Access Key")


@dataclass(frozen=True, slots=True)
class Entity:
    """A user or a role: `inline` policies by name, ARNs of `attached` ones. What follows is a role's."""

    path: str = "/"
    tags: dict[str, str] = field(default_factory=dict)
    inline: dict[str, str] = field(default_factory=dict)
    attached: tuple[str, ...] = ()
    boundary: str = ""
    trust: str = ""
    description: str = ""
    max_session_s: int = 3600


@dataclass(frozen=True, slots=True)
class Version:
    number: int
    document: str
    created_at: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class ManagedPolicy:
    path: str
    versions: tuple[Version, ...]
    default: int = 1
    last: int = 1  # the highest number there ever was: none is used twice
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def document(self) -> str:
        return self.version(self.default).document

    def version(self, number: int) -> Version:
        return next(version for version in self.versions if version.number == number)


@dataclass(frozen=True, slots=True)
class Key:
    user: str
    secret: str
    is_active: bool = True


def find(tx: Transaction, call: Call, kind: Kind, name: str) -> Resource | None:
    return tx.resources.find(call.account, REGION, kind.name, name)


def require(tx: Transaction, call: Call, kind: Kind, name: str) -> Resource:
    """The resource, or the fault that says there is none."""
    found = find(tx, call, kind, name)
    if found is None:
        raise no_such(f"The {kind.noun} with name {name} cannot be found.")
    return found


def insert(
    tx: Transaction,
    account: str,
    kind: Kind,
    uid: str,
    name: str,
    path: str,
    spec: object,
    *,
    parent: str = "",
) -> Resource:
    try:
        return tx.resources.insert(
            uid=uid,
            account=account,
            region=REGION,
            kind=kind.name,
            arn=kind.arn(account, path, name),
            name=name,
            status="",
            spec=spec,
            parent=parent,
        )
    except DuplicateName:
        if kind is POLICY:
            message = f"A policy called {name} already exists. Duplicate names are not allowed."
        else:
            message = f"{kind.noun.capitalize()} with name {name} already exists."
        raise Fault("EntityAlreadyExists", message, 409) from None


def everything(tx: Transaction, call: Call, kind: Kind) -> list[Resource]:
    """All of a kind, by name."""
    found = (r for r in tx.resources.all(kind.name) if r.account == call.account)
    return sorted(found, key=lambda resource: resource.name)


def no_such(message: str) -> Fault:
    return Fault("NoSuchEntity", message, 404)


def delete_conflict(message: str) -> Fault:
    return Fault("DeleteConflict", message, 409)


def limit_exceeded(message: str) -> Fault:
    return Fault("LimitExceeded", message, 409)


def check_document(text: str, kind: Literal["identity", "trust"] = "identity") -> str:
    """The policy as it was written, or the fault that says what is wrong with it."""
    try:
        parse_policy(text, kind)
    except MalformedPolicy as error:
        raise Fault("MalformedPolicyDocument", str(error)) from error
    return text


def encoded(document: str) -> str:
    """IAM gives policies percent-encoded (RFC 3986); SDKs decode them."""
    return quote(document, safe="")


def tag_map(tags: Sequence[shapes.Tag], before: Mapping[str, str] | None = None) -> dict[str, str]:
    wanted = {**(before or {}), **{tag["Key"]: tag["Value"] for tag in tags}}
    if len(wanted) > MOST_TAGS:
        raise limit_exceeded(f"The number of tags has reached the maximum limit of {MOST_TAGS}.")
    return wanted


def tag_list(tags: Mapping[str, str]) -> list[shapes.Tag]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def page(
    items: Sequence[T], params: Mapping[str, Any], names: Sequence[str]
) -> tuple[list[T], dict[str, Any]]:
    """One page of `items`, which stand in the order of `names`, and the members that say whether more follow."""
    after = ""
    query = {key: value for key, value in params.items() if key not in ("Marker", "MaxItems")}
    if "Marker" in params:
        position = page_tokens.read(params["Marker"], query)
        if not isinstance(position, str):
            raise Fault("ValidationError", "The specified value for Marker is invalid.")
        after = position
    rest = [(name, item) for name, item in zip(names, items, strict=True) if name > after]
    shown = rest[: params.get("MaxItems", 100)]
    more: dict[str, Any] = {"IsTruncated": len(rest) > len(shown)}
    if more["IsTruncated"]:
        more["Marker"] = page_tokens.make(query, shown[-1][0])
    return [item for _, item in shown], more
