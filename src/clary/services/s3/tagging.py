"""The tags of objects and buckets."""

from collections.abc import Mapping
from typing import Any

from clary.domain.faults import Fault
from clary.services.s3.base import S3Resource, s3_operation
from clary.services.s3.checksums import check_whole_body
from clary.services.s3.tags import tag_set, tags_in_set
from clary.wire.operations import Call
from clary.wire.shapes import s3 as shapes


class Tagging(S3Resource):
    @s3_operation("PutObjectTagging")
    def put_object_tagging(self, call: Call, params: shapes.PutObjectTaggingRequest) -> Mapping[str, Any]:
        check_whole_body(call)
        self._blobs.set_tags(params["Bucket"], params["Key"], tags_in_set(params["Tagging"]["TagSet"]))
        return {}

    @s3_operation("GetObjectTagging")
    def get_object_tagging(self, call: Call, params: shapes.GetObjectTaggingRequest) -> Mapping[str, Any]:
        info = self._blobs.head(params["Bucket"], params["Key"])
        return {"TagSet": tag_set(info.attributes.tags)}

    @s3_operation("DeleteObjectTagging")
    def delete_object_tagging(
        self, call: Call, params: shapes.DeleteObjectTaggingRequest
    ) -> Mapping[str, Any]:
        self._blobs.set_tags(params["Bucket"], params["Key"], {})
        return {}

    @s3_operation("PutBucketTagging")
    def put_bucket_tagging(self, call: Call, params: shapes.PutBucketTaggingRequest) -> None:
        check_whole_body(call)
        self._blobs.set_bucket_tags(
            params["Bucket"], tags_in_set(params["Tagging"]["TagSet"], of_bucket=True)
        )

    @s3_operation("GetBucketTagging")
    def get_bucket_tagging(self, call: Call, params: shapes.GetBucketTaggingRequest) -> Mapping[str, Any]:
        tags = self._blobs.bucket_tags(params["Bucket"])
        if not tags:
            raise Fault(
                "NoSuchTagSet", "The TagSet does not exist", 404, members={"BucketName": params["Bucket"]}
            )
        return {"TagSet": tag_set(tags)}

    @s3_operation("DeleteBucketTagging")
    def delete_bucket_tagging(self, call: Call, params: shapes.DeleteBucketTaggingRequest) -> None:
        self._blobs.set_bucket_tags(params["Bucket"], {})
