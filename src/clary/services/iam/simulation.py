"""SimulatePrincipalPolicy: what the kept policies of a user or role say of actions, without doing them."""

from dataclasses import replace

from clary.domain.conditions import Context
from clary.domain.faults import not_supported
from clary.domain.policies import Request, context_keys, parse_policy
from clary.domain.rights import Access, judge
from clary.services.iam.identities import access_of
from clary.services.iam.kinds import POLICY, ROLE, USER, check_document, everything, no_such, page
from clary.store import Store, Transaction
from clary.wire.operations import Call, operation
from clary.wire.shapes import iam as shapes


class Simulation:
    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("SimulatePrincipalPolicy")
    def simulate_principal_policy(
        self, call: Call, params: shapes.SimulatePrincipalPolicyRequest
    ) -> shapes.SimulatePolicyResponse:
        for member in ("ResourcePolicy", "ResourceOwner", "CallerArn", "ResourceHandlingOption"):
            if member in params:
                raise not_supported(member)
        with self._store.read() as tx:
            access = _access(tx, call, params["PolicySourceArn"])
        added = tuple(check_document(text) for text in params.get("PolicyInputList", []))
        access = replace(access, policies=(*access.policies, *added))
        for text in params.get("PermissionsBoundaryPolicyInputList", []):
            access = replace(access, boundary=check_document(text))
        context = {
            entry["ContextKeyName"].lower(): tuple(entry.get("ContextKeyValues", []))
            for entry in params.get("ContextEntries", [])
            if "ContextKeyName" in entry
        }
        asked = [(a, r) for a in params["ActionNames"] for r in params.get("ResourceArns", []) or ["*"]]
        results = [_result(access, action, resource, context) for action, resource in asked]
        shown, more = page(results, params, [f"{number:06d}" for number in range(len(results))])
        return {"EvaluationResults": shown, **more}  # type: ignore[typeddict-item]


def _access(tx: Transaction, call: Call, arn: str) -> Access:
    """The policies of a user or role. A role may be named without its path's `service-role`, by its own ARN only."""
    entities = [*everything(tx, call, USER), *everything(tx, call, ROLE)]
    found = next((entity for entity in entities if entity.arn == arn), None)
    if found is None:
        raise no_such(f"The principal {arn} cannot be found.")
    return access_of(found, {policy.arn: policy for policy in everything(tx, call, POLICY)})


def _result(access: Access, action: str, resource: str, context: Context) -> shapes.EvaluationResult:
    verdict = judge(access, Request(action, resource, context))
    asked = context_keys(parse_policy(text) for text in access.policies)
    result: shapes.EvaluationResult = {
        "EvalActionName": action,
        "EvalResourceName": resource,
        "EvalDecision": verdict.decision,
        "MatchedStatements": [],
        "MissingContextValues": sorted(key for key in asked if key.lower() not in context),
    }
    if access.boundary:
        result["PermissionsBoundaryDecisionDetail"] = {
            "AllowedByPermissionsBoundary": verdict.by != "permissions boundary"
        }
    return result
