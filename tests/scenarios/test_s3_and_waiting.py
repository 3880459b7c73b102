"""Clients' other ways to a running server: forms, hosts named after buckets, CBOR; and waiters that need not wait."""

import http.client
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore import model
from urllib3.filepost import encode_multipart_formdata

from clary.testing.server import RunningServer
from platform_models import booster_archive, create, regressor

UNKNOWN_FOR_S = 5.0
"""So long a deployment counts as one that settles soon, while nobody can tell."""


def test_H01_waiters_see_a_warm_start_and_a_deletion_at_their_first_look(server: RunningServer) -> None:
    sagemaker = server.client("sagemaker")
    looks: list[tuple[str, float]] = []
    sagemaker.meta.events.register(
        "after-call.sagemaker.DescribeEndpoint",
        lambda parsed, **_: looks.append((parsed.get("EndpointStatus", "none"), time.monotonic())),
    )
    content = booster_archive(regressor())
    began = time.monotonic()
    create(server, "waited-for", content)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="waited-for")
    check_looks(looks, "InService", began + UNKNOWN_FOR_S)
    looks.clear()
    sagemaker.delete_endpoint(EndpointName="waited-for")
    began = time.monotonic()
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="waited-for")
    check_looks(looks, "none", began + server.settings.hold_describe_s)


def check_looks(looks: list[tuple[str, float]], settled: str, held_until: float) -> None:
    """The first look sees the end. It sees less only on a machine so busy that it was held for as long as may be."""
    assert looks[-1][0] == settled
    assert all(at >= held_until - 0.5 for _, at in looks[:-1]), looks


@pytest.mark.parametrize("signature", ["s3v4", "s3"])
def test_S3_a_form_is_taken_through_the_gateway(server: RunningServer, signature: str) -> None:
    s3, signer = server.client("s3"), server.client("s3", signature_version=signature)
    s3.create_bucket(Bucket="forms")
    post = signer.generate_presigned_post(
        "forms", "form.bin", Conditions=[["content-length-range", 0, 8 << 20]]
    )
    content = bytes(range(256)) * (16 << 10)
    assert _post(post["url"], post["fields"], content) == 204
    assert s3.get_object(Bucket="forms", Key="form.bin")["Body"].read() == content
    assert _post(post["url"], {**post["fields"], "key": "other"}, b"x") == 403
    assert _post(post["url"], post["fields"], b"x" * ((8 << 20) + 1)) == 400
    assert s3.get_object(Bucket="forms", Key="form.bin")["ContentLength"] == len(content)


def test_S3_a_form_without_a_policy_reaches_nothing(server: RunningServer) -> None:
    s3 = server.client("s3")
    s3.create_bucket(Bucket="unsigned")
    assert _post(f"{server.url}/unsigned", {"key": "k"}, b"x") == 403
    assert s3.list_objects_v2(Bucket="unsigned")["KeyCount"] == 0


def test_S3_a_host_may_name_the_bucket(server: RunningServer) -> None:
    s3 = server.client("s3")
    s3.create_bucket(Bucket="hosts")
    s3.put_object(Bucket="hosts", Key="a b", Body=b"x")
    place = urlsplit(server.url)
    virtual = f"hosts.localhost:{place.port}"

    def name_bucket(request: Any, **_: Any) -> None:
        request.url = request.url.replace(f"{place.netloc}/hosts", virtual)

    def to_loopback(request: Any, **_: Any) -> None:
        # The name is signed; the address is loopback's, whatever this machine makes of `*.localhost`.
        request.headers["Host"] = virtual
        request.url = request.url.replace(virtual, place.netloc)

    s3.meta.events.register_first("before-sign.s3.GetObject", name_bucket)
    s3.meta.events.register("before-send.s3.GetObject", to_loopback)
    assert s3.get_object(Bucket="hosts", Key="a b")["Body"].read() == b"x"


def test_L02_metrics_in_cbor(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "PRIORITY_ORDERED_SUPPORTED_PROTOCOLS", ("smithy-rpc-v2-cbor",))
    cloudwatch = server.client("cloudwatch")
    data = [{"MetricName": f"m{number}", "Value": float(number)} for number in range(300)]
    cloudwatch.put_metric_data(Namespace="Cbor", MetricData=data)
    assert len(cloudwatch.list_metrics(Namespace="Cbor")["Metrics"]) == 300


def _post(url: str, fields: dict[str, str], content: bytes) -> int:
    body, content_type = encode_multipart_formdata([*fields.items(), ("file", ("form.bin", content))])
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
    try:
        connection.request("POST", place.path, body, {"Content-Type": content_type})
        return connection.getresponse().status
    finally:
        connection.close()
