"""Which service a request is for, and in which protocol, before anything else is known about it.

All services arrive on one port, most of them as `POST /`. What tells them apart, in this order: the admin path,
`X-Amz-Target`, the path of RPC v2, the service in the signature's scope, the form's `Action` and `Version`, the
path; what is left is S3. The answer always names a protocol, so that even a refusal comes in a form its client can
read.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from clary.domain.faults import Fault
from clary.wire.heads import Head
from clary.wire.sigv4 import Identity, Signer


@dataclass(frozen=True, slots=True)
class Identified:
    """`service` is botocore's name, "" when it is none of ours; `operation` is None where the route decides."""

    service: str
    protocol: str  # json, rest-json, query, rest-xml, smithy-rpc-v2-cbor
    operation: str | None = None
    signing_name: str = ""
    is_query_mode: bool = False  # JSON whose errors carry the query protocol's codes as well
    json_version: str = "1.1"


# X-Amz-Target's prefix, which is also RPC v2's name of the service, → service, signing name, JSON version
_TARGETS = {
    "SageMaker": ("sagemaker", "sagemaker", "1.1"),
    "Logs_20140328": ("logs", "logs", "1.1"),
    "AmazonEC2ContainerRegistry_V20150921": ("ecr", "ecr", "1.1"),
    "GraniteServiceVersion20100801": ("cloudwatch", "monitoring", "1.0"),
    "AnyScaleFrontendService": ("application-autoscaling", "application-autoscaling", "1.1"),
}

# signing name → service
_QUERY_SERVICES = {"sts": "sts", "iam": "iam", "monitoring": "cloudwatch", "sns": "sns"}

_QUERY_VERSIONS = {"2011-06-15": "sts", "2010-05-08": "iam", "2010-08-01": "cloudwatch", "2010-03-31": "sns"}

# Services signed under these names speak REST-JSON; those of them that are served have their path here.
_REST_JSON = frozenset(("sagemaker", "lambda", "execute-api", "apigateway"))
_RUNTIME_PATH = b"/endpoints/"
_OTHER_REST_JSON_PATHS = (b"/BatchPutMetrics", b"/BatchGetMetrics", b"/FeatureGroup/", b"/2015-03-31/")

_JSON_SERVICES = frozenset(
    (
        "logs",
        "application-autoscaling",
        "ecr",
        "events",
        "states",
        "kms",
        "cloudtrail",
        "sqs",
        "secretsmanager",
        "ssm",
    )
)

ADMIN_PATH = b"/_clary/"


def identify(head: Head, form: bytes = b"") -> Identified:
    """The service, protocol and, where head or form say it, the operation. `form` is the body of a form POST."""
    if head.path.startswith(ADMIN_PATH):
        return Identified("clary", "rest-json", signing_name="clary")
    target = head.headers.get(b"x-amz-target")
    if target is not None:
        return _by_target(head, target.decode("latin-1"))
    if head.headers.get(b"smithy-protocol") == b"rpc-v2-cbor":
        return _by_rpc_path(head)
    signing_name = scope_service(head)
    if signing_name in _QUERY_SERVICES:
        return _query(_QUERY_SERVICES[signing_name], signing_name, head, form)
    if head.path.startswith(_RUNTIME_PATH) and signing_name in ("", "sagemaker"):
        return Identified("sagemaker-runtime", "rest-json", signing_name="sagemaker")
    if signing_name in _REST_JSON or (not signing_name and head.path.startswith(_OTHER_REST_JSON_PATHS)):
        return Identified("", "rest-json", signing_name=signing_name)
    if signing_name in _JSON_SERVICES:
        return Identified("", "json", signing_name=signing_name)
    if signing_name not in ("", "s3"):
        return Identified("", "query" if is_form(head) else "rest-json", signing_name=signing_name)
    if not signing_name and (is_form(head) or b"Action=" in head.query):
        version = _form_fields(head, form).get("Version", "")
        return _query(_QUERY_VERSIONS.get(version, ""), "", head, form)
    return Identified("s3", "rest-xml", signing_name="s3")


def is_form(head: Head) -> bool:
    """Whether the body is a form, which must be read before the operation is known."""
    return head.headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded")


def is_post_form(head: Head) -> bool:
    """Whether it is an upload to S3 by form, whose signature stands in its body."""
    return (
        head.method == b"POST"
        and head.headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        and b"authorization" not in head.headers
        and b"X-Amz-" not in head.query
        and b"Signature=" not in head.query
    )


def check_scope(identified: Identified, identity: Identity | Signer) -> None:
    """Refuses a request signed for one service and addressed to another."""
    if identified.signing_name != identity.service:
        raise Fault(
            "InvalidSignatureException",
            f"Credential should be scoped to correct service: '{identified.signing_name}'.",
            403,
        )


_CREDENTIAL = re.compile(rb"Credential=[^,\s]*?/\d{8}/[^/,\s]+/([^/,\s]+)/aws4_request")
_PRESIGNED = re.compile(rb"(?:^|&)X-Amz-Credential=([^&]*)")


def scope_service(head: Head) -> str:
    """The service in the signature's scope, "" when the request tells none."""
    found = _CREDENTIAL.search(head.headers.get(b"authorization", b""))
    if found is not None:
        return found[1].decode("latin-1")
    if b"X-Amz-Credential=" in head.query:
        presigned = _PRESIGNED.search(head.query)
        parts = unquote(presigned[1].decode("latin-1")).split("/") if presigned else []
        return parts[3] if len(parts) == 5 else ""
    return ""


def _by_target(head: Head, target: str) -> Identified:
    prefix, _, operation = target.partition(".")
    service, signing_name, version = _TARGETS.get(prefix, ("", scope_service(head), "1.1"))
    return Identified(
        service,
        "json",
        operation or target,
        signing_name,
        is_query_mode=head.headers.get(b"x-amzn-query-mode", b"").lower() == b"true",
        json_version="1.0" if b"json-1.0" in head.headers.get(b"content-type", b"") else version,
    )


_RPC_PATH = re.compile(rb"/service/(?:[^/]*\.)?([^/.]+)/operation/([^/]+)")


def _by_rpc_path(head: Head) -> Identified:
    found = _RPC_PATH.fullmatch(head.path)
    name, operation = (part.decode("latin-1") for part in found.groups()) if found else ("", "")
    service, signing_name, _ = _TARGETS.get(name, ("", scope_service(head), ""))
    return Identified(
        service,
        "smithy-rpc-v2-cbor",
        operation or None,
        signing_name,
        is_query_mode=head.headers.get(b"x-amzn-query-mode", b"").lower() == b"true",
    )


def _query(service: str, signing_name: str, head: Head, form: bytes) -> Identified:
    if not signing_name:
        signing_name = {"cloudwatch": "monitoring"}.get(service, service)
    return Identified(service, "query", _form_fields(head, form).get("Action"), signing_name)


def _form_fields(head: Head, form: bytes) -> dict[str, str]:
    source = form if head.method == b"POST" and form else head.query
    try:
        return dict(parse_qsl(source.decode("latin-1"), keep_blank_values=True, max_num_fields=10_000))
    except ValueError:
        return {}
