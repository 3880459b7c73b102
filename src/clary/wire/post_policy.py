"""What the policy of a form upload allows: its conditions against the fields of the form. Pure.

Every field must be allowed by a condition, so that whoever was handed a policy can add nothing to it.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from clary.domain.faults import Fault

# Fields that need no condition: the signature itself, and what it covers.
_FREE = frozenset(("policy", "signature", "x-amz-signature", "awsaccesskeyid", "file"))


@dataclass(frozen=True, slots=True)
class Policy:
    expires: datetime
    conditions: tuple[tuple[str, str, str], ...]  # eq or starts-with, the field in lower case, the value
    least_bytes: int = 0
    most_bytes: int | None = None

    def check(self, fields: Mapping[str, str], now: datetime) -> None:
        """`fields` by lower-case name, the bucket among them. Raises Fault."""
        if now >= self.expires:
            raise refused("Policy expired.")
        for kind, name, value in self.conditions:
            given = fields.get(name, "")
            if not (given.startswith(value) if kind == "starts-with" else given == value):
                raise refused(f'Policy Condition failed: ["{kind}", "${name}", "{value}"]')
        allowed = {name for _, name, _ in self.conditions} | _FREE | {"bucket"}
        extra = [name for name in fields if name not in allowed and not name.startswith("x-ignore-")]
        if extra:
            raise refused(f"Extra input fields: {', '.join(sorted(extra))}")


def parse_policy(encoded: str) -> Policy:
    """A policy document in base64. Raises Fault."""
    try:
        document = msgspec.json.decode(base64.b64decode(encoded, validate=True))
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError):
        raise _invalid("Invalid JSON.") from None
    if not isinstance(document, dict) or not isinstance(document.get("conditions"), list):
        raise _invalid("Policy missing conditions.")
    conditions: list[tuple[str, str, str]] = []
    least, most = 0, None
    for condition in document["conditions"]:
        match condition:
            case ["content-length-range", low, high]:
                least, most = _length(low), _length(high)
            case [str(kind), str(field), value] if kind in ("eq", "starts-with") and field.startswith("$"):
                conditions.append((kind, field[1:].lower(), str(value)))
            case dict() if condition:
                conditions += [("eq", str(name).lower(), str(value)) for name, value in condition.items()]
            case _:
                raise _invalid("Invalid condition.")
    return Policy(_expiration(document.get("expiration")), tuple(conditions), least, most)


def refused(why: str) -> Fault:
    return Fault("AccessDenied", f"Invalid according to Policy: {why}", 403)


def _expiration(text: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise _invalid("Invalid 'expiration' value.") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _length(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise _invalid("Invalid content-length-range.") from None


def _invalid(why: str) -> Fault:
    return Fault("InvalidPolicyDocument", f"Invalid Policy: {why}")
