"""AssumeRole and GetSessionToken: credentials that carry their own meaning and end by themselves.

A role is assumed by whom its trust policy names. Where that names the account, the caller's own policies must allow
it too; where it names the caller, that is enough. The root key has every right of its own, but a trust policy
binds it as well.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from clary.domain.faults import Fault, access_denied, not_supported, validation
from clary.domain.policies import MalformedPolicy, Request, parse_policy, trusts
from clary.domain.principals import Principal, role_id
from clary.domain.rights import Access, Rights, caller_context, denied, knows
from clary.wire.operations import Call, operation
from clary.wire.sessions import Credentials, KeyRing
from clary.wire.shapes import sts as shapes

CHAINED_S = 3600
_USER_S, _ROOT_S = 43200, 3600


class Sessions:
    def __init__(self, keys: KeyRing, rights: Callable[[], Rights], now: Callable[[], float]) -> None:
        self._keys = keys
        self._rights = rights
        self._now = now

    @operation("AssumeRole")
    def assume_role(self, call: Call, params: shapes.AssumeRoleRequest) -> shapes.AssumeRoleResponse:
        for member in ("PolicyArns", "Tags", "TransitiveTagKeys", "ProvidedContexts", "SourceIdentity"):
            if member in params:
                raise not_supported(member)
        _refuse_mfa(params.get("SerialNumber"), params.get("TokenCode"))
        arn, session = params["RoleArn"], params["RoleSessionName"]
        role = self._assumable(call, arn, session, params.get("ExternalId"))
        duration = _duration(call.principal, role, params.get("DurationSeconds"))
        policy = _session_policy(params.get("Policy", ""))
        name, expires = arn.rpartition("/")[2], int(self._now()) + duration
        issued = self._keys.issue_session(name, session, call.account, expires, issuer=arn, policy=policy)
        return {
            "Credentials": _shown(issued, expires),
            "AssumedRoleUser": {
                "AssumedRoleId": f"{role_id(name)}:{session}",
                "Arn": f"arn:aws:sts::{call.account}:assumed-role/{name}/{session}",
            },
        }

    @operation("GetSessionToken")
    def get_session_token(
        self, call: Call, params: shapes.GetSessionTokenRequest
    ) -> shapes.GetSessionTokenResponse:
        principal = call.principal
        if principal.is_session:
            raise access_denied("Cannot call GetSessionToken with session credentials")
        _refuse_mfa(params.get("SerialNumber"), params.get("TokenCode"))
        longest = _ROOT_S if principal.is_root else _USER_S
        wanted = params.get("DurationSeconds", longest)
        if principal.is_root:
            wanted = min(wanted, _ROOT_S)  # as at AWS: asked for more, root gets an hour
        expires = int(self._now()) + wanted
        return {"Credentials": _shown(self._keys.issue_session_of(principal, expires), expires)}

    def _assumable(self, call: Call, arn: str, session: str, external_id: str | None) -> Access:
        """The role, if the caller may assume it. One that does not exist is refused in the same words."""
        principal = call.principal
        context = caller_context(principal, call.region, datetime.fromtimestamp(self._now(), UTC))
        context["sts:rolesessionname"] = (session,)
        if external_id is not None:
            context["sts:externalid"] = (external_id,)
        request = Request("sts:AssumeRole", arn, context, knows)
        rights = self._rights()
        role = rights.of.get(arn)
        if role is None or not role.trust:
            raise _may_not_assume(principal, arn)
        trust = parse_policy(role.trust, "trust")
        verdict = rights.judge(principal, request)
        if verdict.decision == "explicitDeny":
            raise denied(principal, request, verdict)
        if trusts(trust, _own_names(principal), request):
            return role
        if not (verdict.is_allowed and trusts(trust, _all_names(principal), request)):
            raise _may_not_assume(principal, arn)
        return role


def _own_names(principal: Principal) -> list[tuple[str, str]]:
    """What a trust policy calls the caller alone."""
    return [("AWS", principal.arn), ("AWS", principal.issuer)]


def _all_names(principal: Principal) -> list[tuple[str, str]]:
    return [*_own_names(principal), ("AWS", f"arn:aws:iam::{principal.account}:root")]


def _may_not_assume(principal: Principal, arn: str) -> Fault:
    return access_denied(
        f"User: {principal.arn} is not authorized to perform: sts:AssumeRole on resource: {arn}"
    )


def _duration(principal: Principal, role: Access, wanted: int | None) -> int:
    """How long the session lasts; the model has checked 900 to 43 200 seconds."""
    if principal.is_session and (wanted or 0) > CHAINED_S:
        raise validation(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining"
        )
    if wanted is not None and wanted > role.max_session_s:
        raise validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
    return wanted or CHAINED_S


def _session_policy(text: str) -> str:
    if text:
        try:
            parse_policy(text)
        except MalformedPolicy as error:
            raise Fault("MalformedPolicyDocument", str(error)) from error
    return text


def _refuse_mfa(serial_number: str | None, token_code: str | None) -> None:
    if serial_number is not None or token_code is not None:
        raise not_supported("MFA (SerialNumber, TokenCode)")


def _shown(issued: Credentials, expires: int) -> shapes.Credentials:
    return {
        "AccessKeyId": issued.access_key_id,
        "SecretAccessKey": issued.secret_access_key,
        "SessionToken": issued.session_token,
        "Expiration": datetime.fromtimestamp(expires, UTC),
    }
