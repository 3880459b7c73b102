"""IAM's policies: documents as clients write them, and what they say about one request. Pure.

    decide(policies, Request("s3:GetObject", "arn:aws:s3:::data/rows.csv", context)) -> Decision

An explicit Deny wins, then any Allow; where nothing matches the answer is an implicit denial. A condition on a key
that this server cannot know about a request (`Request.knows`) never gives a right: its Allow does not count, and
its Deny does.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from clary.domain.conditions import (
    Conditions,
    Context,
    UnknownOperator,
    check_operator,
    holds,
    matches,
    substitute,
)

Effect = Literal["Allow", "Deny"]
Decision = Literal["allowed", "explicitDeny", "implicitDeny"]

_VERSIONS = ("2012-10-17", "2008-10-17")


class MalformedPolicy(ValueError):
    """The text is no policy; the message says why."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. Of each pair (`actions`, `not_actions` …) one is empty; actions are in lower case."""

    effect: Effect
    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    not_resources: tuple[str, ...] = ()
    principals: tuple[tuple[str, str], ...] = ()  # ("AWS", "arn:…"), ("Service", "sagemaker.amazonaws.com")
    not_principals: tuple[tuple[str, str], ...] = ()
    conditions: Conditions = ()
    sid: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    statements: tuple[Statement, ...]
    has_variables: bool = True  # policies of 2008 have none


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants to do. `knows` says whether a context key is one this server can tell."""

    action: str
    resource: str
    context: Context = field(default_factory=dict)
    knows: Callable[[str], bool] = lambda key: True


@lru_cache(maxsize=1024)
def parse_policy(text: str, kind: Literal["identity", "trust"] = "identity") -> Policy:
    """Reads an identity's policy, or a role's trust policy. Raises MalformedPolicy."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedPolicy("Syntax errors in policy.") from error
    if not isinstance(document, dict):
        raise MalformedPolicy("Syntax errors in policy.")
    if unknown := sorted(document.keys() - {"Version", "Id", "Statement"}):
        raise MalformedPolicy(f"Syntax error at position (1,1): unknown element {unknown[0]}.")
    version = document.get("Version", "2008-10-17")
    if version not in _VERSIONS:
        raise MalformedPolicy("The policy must contain a valid version string.")
    statements = _listed(document.get("Statement"))
    if not statements:
        raise MalformedPolicy("Syntax errors in policy.")
    return Policy(tuple(_statement(item, kind) for item in statements), version == _VERSIONS[0])


def decide(policies: Iterable[Policy], request: Request) -> Decision:
    """What an identity's policies, together, say."""
    decision: Decision = "implicitDeny"
    for policy in policies:
        for statement in policy.statements:
            if not _concerns(statement, request, policy.has_variables):
                continue
            if statement.effect == "Deny":
                return "explicitDeny"
            decision = "allowed"
    return decision


def trusts(policy: Policy, principals: Iterable[tuple[str, str]], request: Request) -> bool:
    """Whether a trust policy lets one who is known under these principals do what is requested."""
    known = tuple(principals)
    decision = False
    for statement in policy.statements:
        if not (_names(statement, known) and _acts(statement, request)):
            continue
        if not _conditions_hold(statement, request, policy.has_variables):
            continue
        if statement.effect == "Deny":
            return False
        decision = True
    return decision


def context_keys(policies: Iterable[Policy]) -> set[str]:
    """The keys that conditions ask for, as they are written."""
    return {key for policy in policies for s in policy.statements for _, key, _ in s.conditions}


def _concerns(statement: Statement, request: Request, with_variables: bool) -> bool:
    return (
        _acts(statement, request)
        and _covers(statement, request, with_variables)
        and _conditions_hold(statement, request, with_variables)
    )


def _acts(statement: Statement, request: Request) -> bool:
    action = request.action.lower()
    if statement.actions:
        return any(matches(pattern, action) for pattern in statement.actions)
    return not any(matches(pattern, action) for pattern in statement.not_actions)


def _covers(statement: Statement, request: Request, with_variables: bool) -> bool:
    patterns = statement.resources or statement.not_resources
    if with_variables:
        patterns = tuple(
            text for pattern in patterns if (text := substitute(pattern, request.context)) is not None
        )
    return any(matches(pattern, request.resource) for pattern in patterns) == bool(statement.resources)


def _conditions_hold(statement: Statement, request: Request, with_variables: bool) -> bool:
    if any(not request.knows(key.lower()) for _, key, _ in statement.conditions):
        return statement.effect == "Deny"
    return holds(statement.conditions, request.context, with_variables=with_variables)


def _names(statement: Statement, known: tuple[tuple[str, str], ...]) -> bool:
    if statement.principals:
        return any(_is_one_of(principal, known) for principal in statement.principals)
    return not any(_is_one_of(principal, known) for principal in statement.not_principals)


def _is_one_of(principal: tuple[str, str], known: tuple[tuple[str, str], ...]) -> bool:
    kind, name = principal
    if name == "*":
        return any(kind in ("*", known_kind) for known_kind, _ in known)
    return principal in known


def _statement(item: object, kind: str) -> Statement:
    if not isinstance(item, dict):
        raise MalformedPolicy("Syntax errors in policy.")
    has_principal = "Principal" in item or "NotPrincipal" in item
    has_resource = "Resource" in item or "NotResource" in item
    if unknown := sorted(item.keys() - _ELEMENTS):
        raise MalformedPolicy(f"Syntax error: unknown statement element {unknown[0]}.")
    if item.get("Effect") not in ("Allow", "Deny"):
        raise MalformedPolicy("Statement's Effect must be Allow or Deny.")
    if ("Action" in item) == ("NotAction" in item):
        raise MalformedPolicy("Policy statement must contain actions.")
    if kind == "trust" and has_resource:
        raise MalformedPolicy("Has prohibited field Resource")
    if kind == "trust" and not has_principal:
        raise MalformedPolicy("Missing required field Principal")
    if kind == "identity" and has_principal:
        raise MalformedPolicy("Policy document should not specify a principal.")
    if kind == "identity" and ("Resource" in item) == ("NotResource" in item):
        raise MalformedPolicy("Policy statement must contain resources.")
    return Statement(
        effect=item["Effect"],
        actions=_actions(item.get("Action")),
        not_actions=_actions(item.get("NotAction")),
        resources=_strings(item.get("Resource")),
        not_resources=_strings(item.get("NotResource")),
        principals=_principals(item.get("Principal")),
        not_principals=_principals(item.get("NotPrincipal")),
        conditions=_conditions(item.get("Condition", {})),
        sid=str(item.get("Sid", "")),
    )


_ELEMENTS = frozenset(
    [
        "Sid",
        "Effect",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Principal",
        "NotPrincipal",
        "Condition",
    ]
)


def _actions(value: object) -> tuple[str, ...]:
    actions = _strings(value)
    for action in actions:
        vendor, colon, name = action.partition(":")
        if action != "*" and not (vendor and colon and name):
            raise MalformedPolicy(
                "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
            )
    return tuple(action.lower() for action in actions)


def _conditions(value: object) -> Conditions:
    if not isinstance(value, dict):
        raise MalformedPolicy("Syntax errors in policy.")
    found = []
    for operator, tests in value.items():
        try:
            check_operator(operator)
        except UnknownOperator:
            raise MalformedPolicy(f"Invalid Condition type : {operator}.") from None
        if not isinstance(tests, dict):
            raise MalformedPolicy("Syntax errors in policy.")
        found += [(operator, str(key), _values(values)) for key, values in tests.items()]
    return tuple(found)


def _principals(value: object) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if value == "*":
        return (("*", "*"),)
    if not isinstance(value, Mapping) or not value.keys() <= {"AWS", "Service", "Federated", "CanonicalUser"}:
        raise MalformedPolicy("Invalid principal in policy.")
    return tuple((kind, _account_arn(name)) for kind, names in value.items() for name in _strings(names))


def _account_arn(name: str) -> str:
    """An account's number means all of the account, as its root's ARN does."""
    return f"arn:aws:iam::{name}:root" if len(name) == 12 and name.isdigit() else name


def _values(value: object) -> tuple[str, ...]:
    found = []
    for item in _listed(value):
        if isinstance(item, bool):
            found.append(str(item).lower())
        elif isinstance(item, str | int | float):
            found.append(str(item))
        else:
            raise MalformedPolicy("Syntax errors in policy.")
    return tuple(found)


def _strings(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    found = _listed(value)
    if not found or not all(isinstance(item, str) and item for item in found):
        raise MalformedPolicy("Syntax errors in policy.")
    return tuple(found)


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]
