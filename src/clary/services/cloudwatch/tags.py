"""Tags of alarms."""

from collections.abc import Mapping

from clary.domain.arns import parse_arn
from clary.domain.faults import Fault
from clary.services.cloudwatch.alarm_views import tag_map
from clary.services.cloudwatch.faults import bad_value
from clary.store import Resource, Store, Transaction
from clary.store.alarms import find_alarm
from clary.wire.operations import Call, operation
from clary.wire.shapes import cloudwatch as shapes

MOST_TAGS = 50


class Tags:
    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("TagResource")
    def tag_resource(self, call: Call, request: shapes.TagResourceInput) -> shapes.TagResourceOutput:
        with self._store.write() as tx:
            alarm = _tagged(tx, call, request["ResourceARN"])
            tx.tags.put(alarm.uid, tag_map(request["Tags"]))
            check_count(dict(tx.tags.page(alarm.uid, limit=MOST_TAGS + 1)))
        return {}

    @operation("UntagResource")
    def untag_resource(self, call: Call, request: shapes.UntagResourceInput) -> shapes.UntagResourceOutput:
        with self._store.write(on_full_disk=True) as tx:
            tx.tags.remove(_tagged(tx, call, request["ResourceARN"]).uid, request["TagKeys"])
        return {}

    @operation("ListTagsForResource")
    def list_tags_for_resource(
        self, call: Call, request: shapes.ListTagsForResourceInput
    ) -> shapes.ListTagsForResourceOutput:
        with self._store.read() as tx:
            found = tx.tags.page(_tagged(tx, call, request["ResourceARN"]).uid)
        return {"Tags": [{"Key": key, "Value": value} for key, value in found]}


def check_count(tags: Mapping[str, str]) -> None:
    if len(tags) > MOST_TAGS:
        raise bad_value(f"An alarm has at most {MOST_TAGS} tags.")


def _tagged(tx: Transaction, call: Call, text: str) -> Resource:
    arn = parse_arn(text)
    if arn is None or arn.service != "cloudwatch":
        raise bad_value(f"Invalid arn syntax: {text}")
    found = None
    if (arn.account, arn.region) == (call.account, call.region):
        found = find_alarm(tx, call.account, call.region, arn.resource.removeprefix("alarm:"))
    if found is None:
        raise Fault("ResourceNotFoundException", f"Unknown resource {text}", 404)
    return found
