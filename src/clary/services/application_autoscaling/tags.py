"""Tags of scalable targets, by their ARN."""

from clary.domain.arns import parse_arn
from clary.domain.faults import Fault
from clary.domain.scaling import SCALABLE_TARGET_KIND
from clary.services.application_autoscaling.targets import MOST_TAGS
from clary.store import Resource, Store, Transaction
from clary.wire.operations import Call, operation
from clary.wire.shapes import application_autoscaling as shapes


class Tags:
    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("TagResource")
    def tag_resource(self, call: Call, params: shapes.TagResourceRequest) -> shapes.TagResourceResponse:
        with self._store.write() as tx:
            target = _tagged(tx, call, params["ResourceARN"])
            tx.tags.put(target.uid, params["Tags"])
            if len(tx.tags.page(target.uid, limit=MOST_TAGS + 1)) > MOST_TAGS:
                raise Fault(
                    "TooManyTagsException",
                    f"A resource has at most {MOST_TAGS} tags.",
                    members={"ResourceName": target.arn},
                )
        return {}

    @operation("UntagResource")
    def untag_resource(self, call: Call, params: shapes.UntagResourceRequest) -> shapes.UntagResourceResponse:
        with self._store.write(on_full_disk=True) as tx:
            tx.tags.remove(_tagged(tx, call, params["ResourceARN"]).uid, params["TagKeys"])
        return {}

    @operation("ListTagsForResource")
    def list_tags_for_resource(
        self, call: Call, params: shapes.ListTagsForResourceRequest
    ) -> shapes.ListTagsForResourceResponse:
        with self._store.read() as tx:
            return {"Tags": dict(tx.tags.page(_tagged(tx, call, params["ResourceARN"]).uid, limit=MOST_TAGS))}


def _tagged(tx: Transaction, call: Call, text: str) -> Resource:
    arn = parse_arn(text)
    found = None
    if arn is not None and arn.service == "application-autoscaling":
        found = tx.resources.get(arn.resource.removeprefix("scalable-target/"))
    is_it = (
        found is not None
        and found.kind == SCALABLE_TARGET_KIND
        and (found.arn, found.account, found.region) == (text, call.account, call.region)
    )
    if found is None or not is_it:
        raise Fault(
            "ResourceNotFoundException",
            f"The resource {text} was not found.",
            members={"ResourceName": text},
        )
    return found
