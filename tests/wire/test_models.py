"""The cut-down service models and their REST routes."""

import tracemalloc
from urllib.parse import urlencode

import pytest

from clary.wire.generate import OPERATIONS
from clary.wire.models import ServiceModels
from clary.wire.protocols import PROTOCOLS

IMPLEMENTED = {(service, name) for service, names in OPERATIONS.items() for name in names}


@pytest.fixture(scope="module")
def models() -> ServiceModels:
    return ServiceModels(IMPLEMENTED)


def s3(models: ServiceModels, method: str, target: str, *headers: str) -> str | None:
    path, _, query = target.partition("?")
    return models.service("s3").match(method, path, query, headers)


def test_every_implemented_operation_has_its_shapes(models: ServiceModels) -> None:
    for service, name in IMPLEMENTED:
        operation = models.service(service).operation(name)
        assert operation.name == name
        if operation.input_shape is not None:
            assert list(operation.input_shape.members) is not None


def test_an_operation_that_is_known_but_not_kept_is_told_apart(models: ServiceModels) -> None:
    sagemaker = models.service("sagemaker")
    assert sagemaker.has_operation("CreateTrainingJob")
    assert not sagemaker.has_operation("CreateUnicorn")
    with pytest.raises(LookupError):
        sagemaker.operation("CreateTrainingJob")


def test_an_unknown_service_is_a_lookup_error(models: ServiceModels) -> None:
    for name in ("sage", "../data/s3", "s3/2006-03-01", ""):
        with pytest.raises(LookupError):
            models.service(name)


@pytest.mark.parametrize(
    ("service", "protocols", "prefix"),
    [
        ("sagemaker", ("json",), "SageMaker"),
        ("sagemaker-runtime", ("rest-json",), None),
        ("s3", ("rest-xml",), None),
        ("sts", ("query",), None),
        ("cloudwatch", ("json", "smithy-rpc-v2-cbor", "query"), "GraniteServiceVersion20100801"),
    ],
)
def test_a_service_says_how_it_is_spoken(
    models: ServiceModels, service: str, protocols: tuple[str, ...], prefix: str | None
) -> None:
    model = models.service(service)
    assert model.protocol_names == protocols
    assert set(protocols) <= PROTOCOLS.keys()
    assert model.target_prefix == prefix


def test_modelled_errors_have_their_status(models: ServiceModels) -> None:
    assert models.service("sagemaker-runtime").error_status("ModelError") == 424
    assert models.service("iam").error_status("NoSuchEntity") == 404
    assert models.service("sagemaker").error_status("ResourceInUse") is None


def test_a_cut_down_model_is_small(models: ServiceModels) -> None:
    tracemalloc.start()
    try:
        ServiceModels(IMPLEMENTED).service("sagemaker")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 << 20


@pytest.mark.parametrize(
    ("method", "target", "headers", "operation"),
    [
        ("GET", "/", (), "ListBuckets"),
        ("PUT", "/bucket", (), "CreateBucket"),
        ("PUT", "/bucket/", (), "CreateBucket"),
        ("HEAD", "/bucket", (), "HeadBucket"),
        ("DELETE", "/bucket", (), "DeleteBucket"),
        ("GET", "/bucket?location", (), "GetBucketLocation"),
        ("GET", "/bucket?location=", (), "GetBucketLocation"),
        ("GET", "/bucket", (), "ListObjects"),
        ("GET", "/bucket?list-type=2&prefix=a%2Fb", (), "ListObjectsV2"),
        ("GET", "/bucket?list-type=1", (), "ListObjects"),
        ("GET", "/bucket?uploads", (), "ListMultipartUploads"),
        ("POST", "/bucket?delete", (), "DeleteObjects"),
        ("PUT", "/bucket/a/b//c", (), "PutObject"),
        ("PUT", "/bucket//", (), "PutObject"),
        ("PUT", "/bucket/key", ("x-amz-copy-source",), "CopyObject"),
        ("PUT", "/bucket/key?partNumber=1&uploadId=u", (), "UploadPart"),
        ("PUT", "/bucket/key?partNumber=1&uploadId=u", ("x-amz-copy-source",), "UploadPartCopy"),
        ("GET", "/bucket/key", (), "GetObject"),
        ("GET", "/bucket/key?uploadId=u", (), "ListParts"),
        ("GET", "/bucket/key?tagging", (), "GetObjectTagging"),
        ("HEAD", "/bucket/key", (), "HeadObject"),
        ("DELETE", "/bucket/key", (), "DeleteObject"),
        ("DELETE", "/bucket/key?uploadId=u", (), "AbortMultipartUpload"),
        ("POST", "/bucket/key?uploads", (), "CreateMultipartUpload"),
        ("POST", "/bucket/key?uploadId=u", (), "CompleteMultipartUpload"),
        ("POST", "/bucket/key", (), None),
        ("PATCH", "/bucket/key", (), None),
        ("DELETE", "/bucket/key?acl", (), None),
        ("DELETE", "/bucket?uploads", (), None),
        ("PUT", "/bucket/key?uploadId=u", (), None),
        ("PUT", "/bucket/key?partNumber=1", (), None),
        ("PUT", "/bucket/key?x-id=PutObject&colour=red", (), "PutObject"),
        ("GET", "/bucket/key?partNumber=1&id=7", (), "GetObject"),
        ("HEAD", "/bucket/key?versionId=7", (), "HeadObject"),
        ("DELETE", "/", (), None),
        ("PUT", "/bucket?lifecycle", (), "PutBucketLifecycleConfiguration"),
        ("GET", "/bucket?notification", (), "GetBucketNotificationConfiguration"),
    ],
)
def test_s3_requests_mean_their_operation(
    models: ServiceModels, method: str, target: str, headers: tuple[str, ...], operation: str | None
) -> None:
    assert s3(models, method, target, *headers) == operation


def test_a_query_of_absurd_length_means_nothing_special(models: ServiceModels) -> None:
    query = urlencode([("uploads", "")] * 5000)
    assert s3(models, "GET", f"/bucket?{query}") == "ListObjects"


def test_runtime_paths_are_told_apart(models: ServiceModels) -> None:
    runtime = models.service("sagemaker-runtime")
    assert runtime.match("POST", "/endpoints/a/invocations", "", ()) == "InvokeEndpoint"
    assert runtime.match(
        "POST", "/endpoints/a/async-invocations", "", ("x-amzn-sagemaker-inputlocation",)
    ) == ("InvokeEndpointAsync")
    assert runtime.match("POST", "/endpoints/a/invocations-response-stream", "", ()) == (
        "InvokeEndpointWithResponseStream"
    )
    assert runtime.match("POST", "/endpoints//invocations", "", ()) is None
    assert runtime.match("GET", "/endpoints/a/invocations", "", ()) is None
