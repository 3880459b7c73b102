"""What the handlers of all kinds do alike: find by name or refuse, insert or refuse, delete."""

from clary.domain.faults import Fault, validation
from clary.domain.resources import Kind
from clary.store import DuplicateName, Resource, Transaction
from clary.wire.operations import Call
from clary.wire.shapes import sagemaker as shapes

MOST_TAGS = 50


def arn(call: Call, kind: Kind, name: str) -> str:
    return kind.arn(call.region, call.account, name)


def require(tx: Transaction, call: Call, kind: Kind, name: str) -> Resource:
    """The resource, or the fault that says there is none."""
    found = tx.resources.find(call.account, call.region, kind.name, name)
    if found is None:
        raise kind.absent(arn(call, kind, name))
    return found


def insert(
    tx: Transaction,
    call: Call,
    kind: Kind,
    uid: str,
    name: str,
    spec: object,
    *,
    tags: list[shapes.Tag] | None,
    status: str = "",
    state: object = None,
) -> Resource:
    """The new resource with its tags, or the fault that says there is one already."""
    wanted = tag_map(tags or [])
    try:
        resource = tx.resources.insert(
            uid=uid,
            account=call.account,
            region=call.region,
            kind=kind.name,
            arn=arn(call, kind, name),
            name=name,
            status=status,
            spec=spec,
            state=state,
        )
    except DuplicateName:
        raise kind.duplicate(arn(call, kind, name)) from None
    tx.tags.put(uid, wanted)
    return resource


def tag_map(tags: list[shapes.Tag]) -> dict[str, str]:
    wanted = {tag["Key"]: tag["Value"] for tag in tags}
    if len(wanted) != len(tags):
        raise validation("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    if reserved := next((key for key in wanted if key.lower().startswith("aws:")), None):
        raise validation(f"Tag keys must not begin with aws: ({reserved})")
    if len(wanted) > MOST_TAGS:
        raise too_many_tags()
    return wanted


def too_many_tags() -> Fault:
    return Fault("ResourceLimitExceeded", f"A resource has at most {MOST_TAGS} tags.")
