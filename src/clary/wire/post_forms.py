"""S3's uploads by form: `POST /BUCKET` with a policy, whose signature stands in the form instead of in the head.

So a gateway cannot verify it and passes it on without an identity; here it is verified before anything is done. What
it asks for is a PutObject, and is answered as one: the same checks, rights and limits, in another wrapping.
"""

import base64
import hmac
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from clary.domain.clock import Clock
from clary.domain.faults import Fault
from clary.wire.answering import Answering
from clary.wire.chunked import SigningKeys, Source
from clary.wire.identify import Identified
from clary.wire.messages import Request, Response
from clary.wire.multipart_form import Form, read_form
from clary.wire.post_policy import parse_policy
from clary.wire.protocols.markup import PROLOGUE, MarkupError, element, escape, read_document
from clary.wire.sessions import Grant
from clary.wire.sigv4 import UNSIGNED, Identity, signing_key

S3 = Identified("s3", "rest-xml", "PutObject", "s3")

# Fields that become headers of the PutObject under another name, or under their own.
_RENAMED = {"acl": "x-amz-acl"}
_HEADERS = frozenset(
    (
        "cache-control",
        "content-type",
        "content-disposition",
        "content-encoding",
        "content-language",
        "expires",
    )
)
_OF_THE_SIGNATURE = frozenset(
    ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature", "x-amz-security-token")
)
_STATUSES = {"200": 200, "201": 201}


class FormKeys(SigningKeys, Protocol):
    """What policies are signed with."""

    def grant(self, access_key_id: str, token: str) -> Grant: ...


class PostForms:
    def __init__(self, answering: Answering, keys: FormKeys, clock: Clock) -> None:
        self._answering = answering
        self._keys = keys
        self._clock = clock

    def answer(self, request: Request, source: Source, request_id: str) -> Response:
        """`request` without its body, its bucket in the path; `source` gives the body. Blocks while it comes."""
        try:
            bucket = _bucket(request)
            form = read_form(request.headers.get("content-type", ""), source)
            identity = self._verified(form, bucket)
            key = _key(form)
            put = Request("PUT", f"/{bucket}/{quote(key)}", "", _headers(form))
            plan = self._answering.plan_of(S3, "PutObject")
            response = self._answering.answer(plan, put, identity, request_id, form.file)
            return response if response.status != 200 else _answered(request, form, bucket, key, response)
        except Fault as fault:
            return self._answering.refuse(S3, fault, request, request_id)

    def _verified(self, form: Form, bucket: str) -> Identity:
        fields = form.fields
        encoded = fields.get("policy", "")
        if not encoded:
            raise Fault("AccessDenied", "Access Denied", 403)
        identity = (
            self._by_v4(fields, encoded) if "x-amz-signature" in fields else self._by_v2(fields, encoded)
        )
        policy = parse_policy(encoded)
        policy.check({**fields, "bucket": bucket}, self._clock.now())
        form.file.least, form.file.most = policy.least_bytes, policy.most_bytes
        return identity

    def _by_v4(self, fields: Mapping[str, str], encoded: str) -> Identity:
        parts = fields.get("x-amz-credential", "").split("/")
        if fields.get("x-amz-algorithm") != "AWS4-HMAC-SHA256" or len(parts) != 5:
            raise Fault(
                "InvalidArgument",
                "x-amz-algorithm must be AWS4-HMAC-SHA256, and x-amz-credential a whole one.",
            )
        access_key_id, date, region, service, _ = parts
        amz_date, token = fields.get("x-amz-date", ""), fields.get("x-amz-security-token", "")
        grant = self._keys.grant(access_key_id, token)
        key = signing_key(grant.secret, date, region, service)
        expected = hmac.new(key, encoded.encode(), "sha256").hexdigest()
        if service != "s3" or amz_date[:8] != date or not _is_same(expected, fields["x-amz-signature"]):
            raise _mismatch()
        return Identity(grant.principal, "s3", region, amz_date, fields["x-amz-signature"], UNSIGNED, token)

    def _by_v2(self, fields: Mapping[str, str], encoded: str) -> Identity:
        """What boto3 writes by default."""
        if "awsaccesskeyid" not in fields or "signature" not in fields:
            raise Fault("AccessDenied", "Access Denied", 403)
        token = fields.get("x-amz-security-token", "")
        grant = self._keys.grant(fields["awsaccesskeyid"], token)
        digest = hmac.new(grant.secret.encode(), encoded.encode(), "sha1").digest()
        if not _is_same(base64.b64encode(digest).decode(), fields["signature"]):
            raise _mismatch()
        amz_date = self._clock.now().strftime("%Y%m%dT%H%M%SZ")
        return Identity(grant.principal, "s3", "us-east-1", amz_date, "", UNSIGNED, token)


def _bucket(request: Request) -> str:
    bucket, _, rest = request.path.removeprefix("/").partition("/")
    if not bucket or rest:
        raise Fault("MethodNotAllowed", "The specified method is not allowed against this resource.", 405)
    return bucket


def _key(form: Form) -> str:
    key = form.fields.get("key", "")
    if not key:
        raise Fault(
            "InvalidArgument",
            "Bucket POST must contain a field named 'key'. If it is specified, please check the order of the fields.",
            members={"ArgumentName": "key", "ArgumentValue": ""},
        )
    file_name = form.file_name.replace("\\", "/").rpartition("/")[2]
    return key.replace("${filename}", file_name)


def _headers(form: Form) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in form.fields.items():
        if name == "tagging":
            headers["x-amz-tagging"] = _tagging(value)
        elif name in _RENAMED:
            headers[_RENAMED[name]] = value
        elif name in _HEADERS or (name.startswith("x-amz-") and name not in _OF_THE_SIGNATURE):
            headers[name] = value
    return headers


def _tagging(text: str) -> str:
    try:
        tags = [
            tag for tag_set in read_document(text.encode()).named("TagSet") for tag in tag_set.named("Tag")
        ]
        pairs = [(next(iter(tag.named("Key"))).text, next(iter(tag.named("Value"))).text) for tag in tags]
    except (MarkupError, StopIteration):
        raise Fault("MalformedXML", "The field tagging holds no well-formed tagging document.") from None
    return urlencode(pairs)


def _answered(request: Request, form: Form, bucket: str, key: str, put: Response) -> Response:
    """The form's own wishes: where to go next, or which status to tell."""
    etag = next((value for name, value in put.headers if name.lower() == "etag"), "")
    kept = [
        (name, value) for name, value in put.headers if name.lower() not in ("content-type", "content-length")
    ]
    target = form.fields.get("success_action_redirect") or form.fields.get("redirect", "")
    if target and (place := _redirect(target, bucket, key, etag)):
        return Response(303, [*kept, ("Location", place)])
    location = f"http://{request.headers.get('host', 'localhost')}/{bucket}/{quote(key, safe='')}"
    headers = [*kept, ("Location", location)]
    status = _STATUSES.get(form.fields.get("success_action_status", ""), 204)
    if status != 201:
        return Response(status, headers)
    told = {"Location": location, "Bucket": bucket, "Key": key, "ETag": etag}
    content = "".join(element(name, escape(value)) for name, value in told.items())
    body = (PROLOGUE + element("PostResponse", content)).encode()
    return Response(201, [*headers, ("Content-Type", "application/xml")], body)


def _redirect(target: str, bucket: str, key: str, etag: str) -> str:
    """The page to go to, told what was made; "" when it is no address that can be gone to."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.netloc or not target.isprintable():
        return ""
    query = [
        *parse_qsl(parts.query, keep_blank_values=True),
        ("bucket", bucket),
        ("key", key),
        ("etag", etag),
    ]
    return parts._replace(query=urlencode(query)).geturl()


def _is_same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode())


def _mismatch() -> Fault:
    return Fault(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your key and signing"
        " method.",
        403,
    )
