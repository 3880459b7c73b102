"""Who may do what: the policies of every user and role at hand, asked about one principal and one request.

The root key may do everything. Anybody else may do what the policies of its user or role allow, narrowed down by a
permissions boundary and by the policy its session was made with. Somebody whose user or role is gone may do nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from clary.domain.faults import Fault
from clary.domain.policies import Decision, Policy, Request, decide, parse_policy, trusts
from clary.domain.principals import Principal

SAGEMAKER = "sagemaker.amazonaws.com"


@dataclass(frozen=True, slots=True)
class Access:
    """What is kept about one user or role: its policies, as text, and a role's trust policy."""

    arn: str
    policies: tuple[str, ...] = ()
    boundary: str = ""
    trust: str = ""
    max_session_s: int = 3600


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, and which sort of policy made it: for messages."""

    decision: Decision
    by: Literal["identity-based policy", "permissions boundary", "session policy"] = "identity-based policy"

    @property
    def is_allowed(self) -> bool:
        return self.decision == "allowed"


@dataclass(frozen=True, slots=True)
class Rights:
    """The users and roles at hand, by ARN."""

    of: Mapping[str, Access] = field(default_factory=dict)

    @classmethod
    def from_accesses(cls, accesses: Iterable[Access]) -> "Rights":
        return cls({access.arn: access for access in accesses})

    def judge(self, principal: Principal, request: Request) -> Verdict:
        """What the principal's policies say of the request."""
        if principal.is_root:
            return Verdict("allowed")
        access = self.of.get(principal.issuer)
        if access is None:
            return Verdict("implicitDeny")
        return judge(access, request, principal.session_policy)

    def check(self, principal: Principal, request: Request) -> None:
        """Raises the fault that says the principal may not."""
        verdict = self.judge(principal, request)
        if not verdict.is_allowed:
            raise denied(principal, request, verdict)

    def find(self, word: str, name: str) -> str | None:
        """The ARN of the `user` or `role` of this name, whatever its path and case; None when there is none."""
        ending = f"/{name.lower()}"
        return next((arn for arn in self.of if f":{word}/" in arn and arn.lower().endswith(ending)), None)

    def lets_service_assume(self, role_arn: str, service: str = SAGEMAKER) -> bool:
        """Whether the role is at hand and its trust policy names the service."""
        access = self.of.get(role_arn)
        if access is None or not access.trust:
            return False
        request = Request("sts:AssumeRole", role_arn)
        return trusts(parse_policy(access.trust, "trust"), [("Service", service)], request)


def judge(access: Access, request: Request, session_policy: str = "") -> Verdict:
    """Every layer of policies must allow; the first that does not makes the verdict, explicit denials first."""
    layers = [Verdict(decide(_parsed(*access.policies), request))]
    if access.boundary:
        layers.append(Verdict(decide(_parsed(access.boundary), request), "permissions boundary"))
    if session_policy:
        layers.append(Verdict(decide(_parsed(session_policy), request), "session policy"))
    for decision in ("explicitDeny", "implicitDeny"):
        found = next((layer for layer in layers if layer.decision == decision), None)
        if found is not None:
            return found
    return layers[0]


def denied(principal: Principal, request: Request, verdict: Verdict) -> Fault:
    """AWS's words; S3 puts the resource in quotes."""
    resource = f'"{request.resource}"' if request.action.startswith("s3:") else request.resource
    if verdict.decision == "explicitDeny":
        article = "an" if verdict.by.startswith("i") else "a"
        reason = f"with an explicit deny in {article} {verdict.by}"
    else:
        reason = f"because no {verdict.by} allows the {request.action} action"
    return Fault(
        "AccessDeniedException",
        f"User: {principal.arn} is not authorized to perform: {request.action} on resource: {resource} {reason}",
        403,
    )


def caller_context(principal: Principal, region: str, now: datetime) -> dict[str, tuple[str, ...]]:
    """What conditions may ask about the caller of a request."""
    known = {
        "aws:currenttime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "aws:epochtime": str(int(now.timestamp())),
        "aws:principalaccount": principal.account,
        "aws:principalarn": principal.issuer or principal.arn,
        "aws:principaltype": "User" if principal.name else "AssumedRole",
        "aws:requestedregion": region,
        "aws:securetransport": "false",
        "aws:userid": principal.user_id,
    }
    if principal.name:
        known["aws:username"] = principal.name
    if principal.is_session:
        known["aws:multifactorauthpresent"] = "false"
    return {key: (value,) for key, value in known.items()}


_NEVER_PRESENT = frozenset(
    [
        "aws:calledvia",
        "aws:multifactorauthage",
        "aws:multifactorauthpresent",
        "aws:principalisawsservice",
        "aws:principalorgid",
        "aws:principalorgpaths",
        "aws:sourcearn",
        "aws:sourceaccount",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:username",
        "aws:viaawsservice",
        "aws:vpcsourceip",
        "iam:passedtoservice",
        "s3:prefix",
        "s3:delimiter",
        "s3:max-keys",
        "sts:externalid",
        "sts:rolesessionname",
        "sagemaker:targetcontainerhostname",
        "sagemaker:targetmodel",
        "sagemaker:instancetypes",
        "aws:tagkeys",
    ]
)
"""Keys whose absence from a request is a fact, not our ignorance."""


def knows(key: str) -> bool:
    """Whether this server can tell the key's value, or that the request has none. The key is in lower case."""
    return key in _ALWAYS_PRESENT or key in _NEVER_PRESENT or key.startswith("aws:requesttag/")


_ALWAYS_PRESENT = frozenset(
    [
        "aws:currenttime",
        "aws:epochtime",
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principaltype",
        "aws:requestedregion",
        "aws:securetransport",
        "aws:userid",
    ]
)


def _parsed(*texts: str) -> list[Policy]:
    return [parse_policy(text) for text in texts]
