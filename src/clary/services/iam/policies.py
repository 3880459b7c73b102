"""Managed policies and their versions. AWS's own are known by ARN (`aws_managed`) and cannot be changed."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from clary.domain.arns import parse_arn
from clary.domain.faults import Fault
from clary.domain.principals import role_id, unique_id
from clary.services.iam import aws_managed
from clary.services.iam.identities import Identities
from clary.services.iam.kinds import (
    POLICY,
    ROLE,
    USER,
    Entity,
    ManagedPolicy,
    Version,
    check_document,
    delete_conflict,
    encoded,
    everything,
    find,
    insert,
    limit_exceeded,
    no_such,
    page,
    tag_list,
    tag_map,
)
from clary.store import Resource, Store, Transaction
from clary.wire.operations import Call, operation
from clary.wire.shapes import iam as shapes

MOST_VERSIONS = 5


class Policies:
    def __init__(self, store: Store, identities: Identities, new_id: Callable[[], str]) -> None:
        self._store = store
        self._identities = identities
        self._new_id = new_id

    @operation("CreatePolicy")
    def create_policy(self, call: Call, params: shapes.CreatePolicyRequest) -> shapes.CreatePolicyResponse:
        path = params.get("Path", "/")
        version = Version(1, check_document(params["PolicyDocument"]), call.received_at.timestamp())
        policy = ManagedPolicy(
            path,
            (version,),
            description=params.get("Description", ""),
            tags=tag_map(params.get("Tags", [])),
        )
        with self._store.write() as tx:
            created = insert(tx, call.account, POLICY, self._new_id(), params["PolicyName"], path, policy)
        return {"Policy": _shown(created, 0)}

    @operation("GetPolicy")
    def get_policy(self, call: Call, params: shapes.GetPolicyRequest) -> shapes.GetPolicyResponse:
        arn = params["PolicyArn"]
        with self._store.read() as tx:
            count = len(_holders(tx, call, arn))
            known = aws_managed.find(arn)
            if known is not None:
                return {"Policy": _shown_known(arn, known, count)}
            return {"Policy": _shown(_own(tx, call, arn), count)}

    @operation("ListPolicies")
    def list_policies(self, call: Call, params: shapes.ListPoliciesRequest) -> shapes.ListPoliciesResponse:
        scope, prefix = params.get("Scope", "All"), params.get("PathPrefix", "/")
        found: list[shapes.Policy] = []
        with self._store.read() as tx:
            if scope in ("All", "Local"):
                found += [_shown(p, len(_holders(tx, call, p.arn))) for p in everything(tx, call, POLICY)]
            if scope in ("All", "AWS"):
                found += [
                    _shown_known(arn, known, len(_holders(tx, call, arn)))
                    for arn, known in aws_managed.POLICIES.items()
                ]
        if params.get("OnlyAttached"):
            found = [policy for policy in found if policy["AttachmentCount"]]
        found = sorted((p for p in found if p["Path"].startswith(prefix)), key=lambda policy: policy["Arn"])
        shown, more = page(found, params, [policy["Arn"] for policy in found])
        for policy in shown:
            policy.pop("Description", None)
            policy.pop("Tags", None)
        return {"Policies": shown, **more}  # type: ignore[typeddict-item]

    @operation("DeletePolicy")
    def delete_policy(self, call: Call, params: shapes.DeletePolicyRequest) -> None:
        arn = params["PolicyArn"]
        with self._store.write(on_full_disk=True) as tx:
            policy = _own(tx, call, arn)
            if _holders(tx, call, arn) or _bounded(tx, call, arn):
                raise delete_conflict("Cannot delete a policy attached to entities.")
            if len(policy.spec_as(ManagedPolicy).versions) > 1:
                raise delete_conflict(
                    "This policy has more than one version. Before you delete a policy, you must delete the "
                    "policy's versions. The default version is deleted with the policy."
                )
            tx.resources.delete(policy.uid)

    @operation("CreatePolicyVersion")
    def create_policy_version(
        self, call: Call, params: shapes.CreatePolicyVersionRequest
    ) -> shapes.CreatePolicyVersionResponse:
        document = check_document(params["PolicyDocument"])
        with self._store.write() as tx:
            resource = _own(tx, call, params["PolicyArn"])
            policy = resource.spec_as(ManagedPolicy)
            if len(policy.versions) >= MOST_VERSIONS:
                raise limit_exceeded(
                    f"A managed policy can have up to {MOST_VERSIONS} versions. Before you create a new version, "
                    "you must delete an existing version."
                )
            version = Version(policy.last + 1, document, call.received_at.timestamp())
            default = version.number if params.get("SetAsDefault") else policy.default
            changed = replace(
                policy, versions=(*policy.versions, version), default=default, last=version.number
            )
            tx.resources.update(resource, spec=changed)
        self._identities.publish()
        shown = _shown_version(changed, version)
        del shown["Document"]
        return {"PolicyVersion": shown}

    @operation("GetPolicyVersion")
    def get_policy_version(
        self, call: Call, params: shapes.GetPolicyVersionRequest
    ) -> shapes.GetPolicyVersionResponse:
        with self._store.read() as tx:
            policy = require_policy(tx, call, params["PolicyArn"])
        return {
            "PolicyVersion": _shown_version(
                policy, _version(policy, params["PolicyArn"], params["VersionId"])
            )
        }

    @operation("ListPolicyVersions")
    def list_policy_versions(
        self, call: Call, params: shapes.ListPolicyVersionsRequest
    ) -> shapes.ListPolicyVersionsResponse:
        with self._store.read() as tx:
            policy = require_policy(tx, call, params["PolicyArn"])
        shown = [_shown_version(policy, version) for version in reversed(policy.versions)]
        for version in shown:
            del version["Document"]
        return {"Versions": shown, "IsTruncated": False}

    @operation("SetDefaultPolicyVersion")
    def set_default_policy_version(self, call: Call, params: shapes.SetDefaultPolicyVersionRequest) -> None:
        with self._store.write() as tx:
            resource = _own(tx, call, params["PolicyArn"])
            policy = resource.spec_as(ManagedPolicy)
            version = _version(policy, params["PolicyArn"], params["VersionId"])
            tx.resources.update(resource, spec=replace(policy, default=version.number))
        self._identities.publish()

    @operation("DeletePolicyVersion")
    def delete_policy_version(self, call: Call, params: shapes.DeletePolicyVersionRequest) -> None:
        with self._store.write(on_full_disk=True) as tx:
            resource = _own(tx, call, params["PolicyArn"])
            policy = resource.spec_as(ManagedPolicy)
            version = _version(policy, params["PolicyArn"], params["VersionId"])
            if version.number == policy.default:
                raise delete_conflict("Cannot delete the default version of a policy.")
            left = tuple(each for each in policy.versions if each != version)
            tx.resources.update(resource, spec=replace(policy, versions=left))

    @operation("ListEntitiesForPolicy")
    def list_entities_for_policy(
        self, call: Call, params: shapes.ListEntitiesForPolicyRequest
    ) -> shapes.ListEntitiesForPolicyResponse:
        wanted = params.get("EntityFilter", "")
        with self._store.read() as tx:
            require_policy(tx, call, params["PolicyArn"])
            if params.get("PolicyUsageFilter") == "PermissionsBoundary":
                holders = _bounded(tx, call, params["PolicyArn"])
            else:
                holders = _holders(tx, call, params["PolicyArn"])
        users: list[shapes.PolicyUser] = [
            {"UserName": h.name, "UserId": unique_id("AIDA", h.arn)} for h in holders if h.kind == USER.name
        ]
        roles: list[shapes.PolicyRole] = [
            {"RoleName": h.name, "RoleId": role_id(h.name)} for h in holders if h.kind == ROLE.name
        ]
        return {
            "PolicyGroups": [],
            "PolicyUsers": users if wanted in ("", "User") else [],
            "PolicyRoles": roles if wanted in ("", "Role") else [],
            "IsTruncated": False,
        }


def require_policy(tx: Transaction, call: Call, arn: str) -> ManagedPolicy:
    """A policy, one of AWS's or one's own, or the fault that says there is none."""
    return aws_managed.find(arn) or _own(tx, call, arn).spec_as(ManagedPolicy)


def _own(tx: Transaction, call: Call, arn: str) -> Resource:
    parsed = parse_arn(arn)
    if parsed is not None and parsed.account == "aws":
        if aws_managed.find(arn) is not None:
            raise Fault("AccessDenied", f"The policy {arn} belongs to AWS and cannot be changed.", 403)
        raise no_such(f"Policy {arn} does not exist or is not attachable.")
    name = arn.rpartition("/")[2]
    found = find(tx, call, POLICY, name) if parsed is not None and name else None
    if found is None or found.arn != arn:
        raise no_such(f"Policy {arn} was not found.")
    return found


def _holders(tx: Transaction, call: Call, arn: str) -> list[Resource]:
    entities = [*everything(tx, call, USER), *everything(tx, call, ROLE)]
    return [entity for entity in entities if arn in entity.spec_as(Entity).attached]


def _bounded(tx: Transaction, call: Call, arn: str) -> list[Resource]:
    entities = [*everything(tx, call, USER), *everything(tx, call, ROLE)]
    return [entity for entity in entities if arn == entity.spec_as(Entity).boundary]


def _version(policy: ManagedPolicy, arn: str, version_id: str) -> Version:
    found = next((version for version in policy.versions if f"v{version.number}" == version_id), None)
    if found is None:
        raise no_such(f"Policy {arn} version {version_id} does not exist or is not attachable.")
    return found


def _shown(resource: Resource, attachments: int) -> shapes.Policy:
    policy = resource.spec_as(ManagedPolicy)
    shown = _shown_known(resource.arn, policy, attachments)
    shown["UpdateDate"] = resource.modified_at
    if policy.description:
        shown["Description"] = policy.description
    if policy.tags:
        shown["Tags"] = tag_list(policy.tags)
    return shown


def _shown_known(arn: str, policy: ManagedPolicy, attachments: int) -> shapes.Policy:
    created = datetime.fromtimestamp(policy.versions[0].created_at, UTC)
    return {
        "PolicyName": arn.rpartition("/")[2],
        "PolicyId": unique_id("ANPA", arn),
        "Arn": arn,
        "Path": policy.path,
        "DefaultVersionId": f"v{policy.default}",
        "AttachmentCount": attachments,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "CreateDate": created,
        "UpdateDate": created,
    }


def _shown_version(policy: ManagedPolicy, version: Version) -> shapes.PolicyVersion:
    return {
        "Document": encoded(version.document),
        "VersionId": f"v{version.number}",
        "IsDefaultVersion": version.number == policy.default,
        "CreateDate": datetime.fromtimestamp(version.created_at, UTC),
    }
