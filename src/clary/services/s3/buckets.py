"""Buckets. All regions share one set of names, and a bucket is reached through every region."""

import re
from collections.abc import Mapping
from typing import Any

from clary.blobs.base import BucketExists
from clary.domain.faults import Fault
from clary.services.s3.base import S3Resource, s3_operation
from clary.services.s3.errors import invalid_argument, not_implemented
from clary.services.s3.paging import decode_token, encode_token
from clary.services.s3.tags import tags_in_set
from clary.wire.operations import Call
from clary.wire.shapes import s3 as shapes

_FIRST_REGION = "us-east-1"
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+", re.ASCII)
_RESERVED = (("xn--", "sthree-", "amzn-s3-demo-"), ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"))
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d", re.ASCII)
_MOST_BUCKETS = 10_000


class Buckets(S3Resource):
    @s3_operation("CreateBucket")
    def create_bucket(self, call: Call, params: shapes.CreateBucketRequest) -> Mapping[str, Any]:
        bucket, configuration = params["Bucket"], params.get("CreateBucketConfiguration", {})
        check_name(bucket)
        for member in ("Location", "Bucket"):
            if configuration.get(member):
                raise not_implemented(f"CreateBucketConfiguration.{member}")
        region = _region(call.region, configuration.get("LocationConstraint", ""))
        tags = tags_in_set(configuration.get("Tags", []), of_bucket=True)
        try:
            self._blobs.create_bucket(bucket, region)
            if tags:
                self._blobs.set_bucket_tags(bucket, tags)
        except BucketExists:
            if call.region != _FIRST_REGION:
                raise Fault(
                    "BucketAlreadyOwnedByYou",
                    "Your previous request to create the named bucket succeeded and you already own it.",
                    409,
                    members={"BucketName": bucket},
                ) from None
        return {"Location": f"/{bucket}"}

    @s3_operation("DeleteBucket")
    def delete_bucket(self, call: Call, params: shapes.DeleteBucketRequest) -> None:
        self._blobs.delete_bucket(params["Bucket"])

    @s3_operation("HeadBucket")
    def head_bucket(self, call: Call, params: shapes.HeadBucketRequest) -> Mapping[str, Any]:
        return {"BucketRegion": self._blobs.bucket(params["Bucket"]).region, "AccessPointAlias": False}

    @s3_operation("GetBucketLocation")
    def get_bucket_location(self, call: Call, params: shapes.GetBucketLocationRequest) -> Mapping[str, Any]:
        region = self._blobs.bucket(params["Bucket"]).region
        return {} if region == _FIRST_REGION else {"LocationConstraint": region}

    @s3_operation("ListBuckets")
    def list_buckets(self, call: Call, params: shapes.ListBucketsRequest) -> Mapping[str, Any]:
        most = params.get("MaxBuckets", _MOST_BUCKETS)
        if not 1 <= most <= _MOST_BUCKETS:
            raise invalid_argument(
                "Argument maxBuckets must be an integer between 1 and 10000", "max-buckets"
            )
        prefix, after = params.get("Prefix", ""), decode_token(params.get("ContinuationToken", ""))
        region = params.get("BucketRegion", "")
        wanted = [
            bucket
            for bucket in self._blobs.buckets()
            if bucket.name.startswith(prefix) and bucket.name > after and region in ("", bucket.region)
        ]
        page = wanted[:most]
        return {
            "Owner": {"ID": self._holdings.owner_id},
            "Buckets": [
                {"Name": bucket.name, "CreationDate": bucket.created_at, "BucketRegion": bucket.region}
                for bucket in page
            ],
            **({"Prefix": prefix} if prefix else {}),
            **({"ContinuationToken": encode_token(page[-1].name)} if len(wanted) > most else {}),
        }


def check_name(name: str) -> None:
    """S3's naming rules, and names of kinds of buckets there are none of here."""
    starts, ends = _RESERVED
    if (
        not _NAME.fullmatch(name)
        or ".." in name
        or _ADDRESS.fullmatch(name)
        or name.startswith(starts)
        or name.endswith(ends)
    ):
        raise Fault("InvalidBucketName", "The specified bucket is not valid.", members={"BucketName": name})


def _region(endpoint: str, constraint: str) -> str:
    """The bucket's region: the endpoint's own, which must be said, or any at the first region's endpoint."""
    wanted = {"EU": "eu-west-1"}.get(constraint, constraint)
    if wanted == _FIRST_REGION or (wanted and not _REGION.fullmatch(wanted)):
        raise Fault("InvalidLocationConstraint", "The specified location-constraint is not valid")
    if endpoint == _FIRST_REGION:
        return wanted or _FIRST_REGION
    if wanted != endpoint:
        raise Fault(
            "IllegalLocationConstraintException",
            f"The {wanted or 'unspecified'} location constraint is incompatible for the region specific endpoint this"
            " request was sent to.",
        )
    return wanted
