"""Tags of anything with an ARN."""

from clary.domain.arns import parse_arn
from clary.domain.faults import Fault, validation
from clary.domain.resources import kind_named
from clary.services.sagemaker.access import MOST_TAGS, tag_map, too_many_tags
from clary.services.sagemaker.listing import read_token, write_token
from clary.store import Resource, Store, Transaction
from clary.wire.operations import Call, operation
from clary.wire.shapes import sagemaker as shapes


class Tags:
    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("AddTags")
    def add_tags(self, call: Call, params: shapes.AddTagsInput) -> shapes.AddTagsOutput:
        """Answers with all tags the resource has now."""
        wanted = tag_map(params["Tags"])
        with self._store.write() as tx:
            resource = _tagged(tx, call, params["ResourceArn"])
            tx.tags.put(resource.uid, wanted)
            found = tx.tags.page(resource.uid, limit=MOST_TAGS + 1)
            if len(found) > MOST_TAGS:
                raise too_many_tags()
        return {"Tags": _shown(found)}

    @operation("ListTags")
    def list_tags(self, call: Call, params: shapes.ListTagsInput) -> shapes.ListTagsOutput:
        arn, limit = params["ResourceArn"].lower(), params.get("MaxResults", MOST_TAGS)
        after = ""
        if token := params.get("NextToken"):
            after = str(read_token(token, arn)[0])
        with self._store.read() as tx:
            found = tx.tags.page(_tagged(tx, call, params["ResourceArn"]).uid, after, limit + 1)
        answer: shapes.ListTagsOutput = {"Tags": _shown(found[:limit])}
        if len(found) > limit:
            answer["NextToken"] = write_token(arn, (found[limit - 1][0],))
        return answer

    @operation("DeleteTags")
    def delete_tags(self, call: Call, params: shapes.DeleteTagsInput) -> None:
        with self._store.write(on_full_disk=True) as tx:
            resource = _tagged(tx, call, params["ResourceArn"])
            tx.tags.remove(resource.uid, params["TagKeys"])


def _tagged(tx: Transaction, call: Call, text: str) -> Resource:
    arn = parse_arn(text)
    if arn is None or arn.service != "sagemaker" or "/" not in arn.resource:
        raise validation(f"Invalid ARN: {text}")
    kind_name, _, name = arn.resource.partition("/")
    kind = kind_named(kind_name)
    if kind is None:
        raise _absent(text)
    if (arn.account, arn.region) != (call.account, call.region):
        raise kind.absent(text)
    found = tx.resources.find(call.account, call.region, kind.name, name)
    if found is None:
        raise kind.absent(text)
    return found


def _absent(text: str) -> Fault:
    return validation(f'Could not find resource "{text}".')


def _shown(tags: list[tuple[str, str]]) -> list[shapes.Tag]:
    return [{"Key": key, "Value": value} for key, value in tags]
