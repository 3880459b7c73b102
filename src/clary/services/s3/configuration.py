"""What is configured of a bucket: the reads that clients probe with, answered as for a bucket where nothing is.

Nothing can be configured here, so these answers are true: what S3 answers empty is empty, what it refuses as absent
is absent. The writes are not supported, and refused by name.
"""

from collections.abc import Mapping
from typing import Any

from clary.domain.faults import Fault
from clary.services.s3.base import S3Resource, s3_operation
from clary.wire.operations import Call
from clary.wire.shapes import s3 as shapes


class Configuration(S3Resource):
    @s3_operation("GetBucketVersioning")
    def get_bucket_versioning(
        self, call: Call, params: shapes.GetBucketVersioningRequest
    ) -> Mapping[str, Any]:
        return self._empty(params)

    @s3_operation("GetBucketLogging")
    def get_bucket_logging(self, call: Call, params: shapes.GetBucketLoggingRequest) -> Mapping[str, Any]:
        return self._empty(params)

    @s3_operation("GetBucketNotificationConfiguration")
    def get_bucket_notification_configuration(
        self, call: Call, params: shapes.GetBucketNotificationConfigurationRequest
    ) -> Mapping[str, Any]:
        return self._empty(params)

    @s3_operation("GetBucketAccelerateConfiguration")
    def get_bucket_accelerate_configuration(
        self, call: Call, params: shapes.GetBucketAccelerateConfigurationRequest
    ) -> Mapping[str, Any]:
        return self._empty(params)

    @s3_operation("GetBucketRequestPayment")
    def get_bucket_request_payment(
        self, call: Call, params: shapes.GetBucketRequestPaymentRequest
    ) -> Mapping[str, Any]:
        self._blobs.bucket(params["Bucket"])
        return {"Payer": "BucketOwner"}

    @s3_operation("GetBucketAcl")
    def get_bucket_acl(self, call: Call, params: shapes.GetBucketAclRequest) -> Mapping[str, Any]:
        self._blobs.bucket(params["Bucket"])
        return self._acl()

    @s3_operation("GetObjectAcl")
    def get_object_acl(self, call: Call, params: shapes.GetObjectAclRequest) -> Mapping[str, Any]:
        self._blobs.head(params["Bucket"], params["Key"])
        return self._acl()

    @s3_operation("GetBucketPolicy")
    def get_bucket_policy(self, call: Call, params: shapes.GetBucketPolicyRequest) -> Mapping[str, Any]:
        raise self._absent(params, "NoSuchBucketPolicy", "The bucket policy does not exist")

    @s3_operation("GetBucketPolicyStatus")
    def get_bucket_policy_status(
        self, call: Call, params: shapes.GetBucketPolicyStatusRequest
    ) -> Mapping[str, Any]:
        raise self._absent(params, "NoSuchBucketPolicy", "The bucket policy does not exist")

    @s3_operation("GetBucketLifecycleConfiguration")
    def get_bucket_lifecycle_configuration(
        self, call: Call, params: shapes.GetBucketLifecycleConfigurationRequest
    ) -> Mapping[str, Any]:
        raise self._absent(
            params, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"
        )

    @s3_operation("GetBucketCors")
    def get_bucket_cors(self, call: Call, params: shapes.GetBucketCorsRequest) -> Mapping[str, Any]:
        raise self._absent(params, "NoSuchCORSConfiguration", "The CORS configuration does not exist")

    @s3_operation("GetBucketWebsite")
    def get_bucket_website(self, call: Call, params: shapes.GetBucketWebsiteRequest) -> Mapping[str, Any]:
        raise self._absent(
            params, "NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration"
        )

    @s3_operation("GetBucketEncryption")
    def get_bucket_encryption(
        self, call: Call, params: shapes.GetBucketEncryptionRequest
    ) -> Mapping[str, Any]:
        raise self._absent(
            params,
            "ServerSideEncryptionConfigurationNotFoundError",
            "The server side encryption configuration was not found",
        )

    @s3_operation("GetBucketReplication")
    def get_bucket_replication(
        self, call: Call, params: shapes.GetBucketReplicationRequest
    ) -> Mapping[str, Any]:
        raise self._absent(
            params, "ReplicationConfigurationNotFoundError", "The replication configuration was not found"
        )

    @s3_operation("GetBucketOwnershipControls")
    def get_bucket_ownership_controls(
        self, call: Call, params: shapes.GetBucketOwnershipControlsRequest
    ) -> Mapping[str, Any]:
        raise self._absent(
            params, "OwnershipControlsNotFoundError", "The bucket ownership controls were not found"
        )

    @s3_operation("GetPublicAccessBlock")
    def get_public_access_block(
        self, call: Call, params: shapes.GetPublicAccessBlockRequest
    ) -> Mapping[str, Any]:
        raise self._absent(
            params,
            "NoSuchPublicAccessBlockConfiguration",
            "The public access block configuration was not found",
        )

    @s3_operation("GetObjectLockConfiguration")
    def get_object_lock_configuration(
        self, call: Call, params: shapes.GetObjectLockConfigurationRequest
    ) -> Mapping[str, Any]:
        raise self._absent(
            params,
            "ObjectLockConfigurationNotFoundError",
            "Object Lock configuration does not exist for this bucket",
        )

    def _empty(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        self._blobs.bucket(params["Bucket"])
        return {}

    def _absent(self, params: Mapping[str, Any], code: str, message: str) -> Fault:
        self._blobs.bucket(params["Bucket"])
        return Fault(code, message, 404, members={"BucketName": params["Bucket"]})

    def _acl(self) -> Mapping[str, Any]:
        """The one there is: everything is private."""
        owner = {"ID": self._holdings.owner_id}
        grantee = {**owner, "Type": "CanonicalUser"}
        return {"Owner": owner, "Grants": [{"Grantee": grantee, "Permission": "FULL_CONTROL"}]}
