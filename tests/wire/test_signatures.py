"""Requests signed by botocore are accepted; the same with any single change are refused.

CLARY_SIGNATURES sets how many of each are tried (make chaos: 10000). The seed is Hypothesis's own, printed on
failure.
"""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import botocore.session
import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from clary.domain.faults import Fault
from clary.wire.heads import Head
from clary.wire.sessions import Credentials, KeyFileError, KeyRing
from clary.wire.sigv4 import Identity, Signer, Verifier, needs_body_hash, sign

ROOT = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
RING = KeyRing(ROOT, b"k" * 32, "123456789012")
EXAMPLES = int(os.environ.get("CLARY_SIGNATURES", "150"))
MANY = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


class Signed:
    """One request as it arrives: what a mutation changes."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.target, self.headers, self.body = method, target, headers, body

    def verify(
        self, ring: KeyRing = RING, at: float | None = None, verifier: Verifier | None = None
    ) -> Identity:
        """As a gateway does it, the body's hash included."""
        head = Head(
            self.method.encode(),
            self.target.encode(),
            {name.lower().encode(): value.encode("latin-1") for name, value in self.headers.items()},
        )
        if verifier is None:
            verifier = Verifier(ring) if at is None else Verifier(ring, lambda: at)
        sha256 = hashlib.sha256(self.body).hexdigest()
        if needs_body_hash(head):
            return verifier.verify(head, sha256)
        identity = verifier.verify(head)
        if len(identity.payload) == 64 and identity.payload != sha256:
            raise Fault("XAmzContentSHA256Mismatch", "as whoever consumes the body finds")
        return identity

    def signer(self, verifier: Verifier) -> Signer:
        """As a gateway does it for an invocation."""
        head = Head(
            self.method.encode(),
            self.target.encode(),
            {name.lower().encode(): value.encode("latin-1") for name, value in self.headers.items()},
        )
        return verifier.signer(head, hashlib.sha256(self.body).hexdigest())


def signed_by_botocore(
    service: str,
    method: str,
    path: str,
    query: list[tuple[str, str]],
    headers: dict[str, str],
    body: bytes,
    *,
    credentials: Credentials = ROOT,
    region: str = "us-east-1",
    presigned: bool = False,
) -> Signed:
    text = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query)
    url = f"http://127.0.0.1:8470{path}" + (f"?{text}" if text else "")
    request = AWSRequest(method, url, headers=headers, data=body)
    keys = BotocoreCredentials(
        credentials.access_key_id, credentials.secret_access_key, credentials.session_token or None
    )
    signer: Any
    if presigned:
        signer = (S3SigV4QueryAuth if service == "s3" else SigV4QueryAuth)(keys, service, region, expires=60)
    else:
        signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(keys, service, region)
    signer.add_auth(request)
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    sent = {name.lower(): sent_text(value) for name, value in prepared.headers.items()}
    return Signed(
        method, parts.path + (f"?{parts.query}" if parts.query else ""), {"host": parts.netloc, **sent}, body
    )


def sent_text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


TEXT = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FFF, blacklist_categories=["Cs"]), min_size=1, max_size=8
)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
SEGMENT = TEXT.filter(lambda text: text not in (".", "..")).map(lambda text: quote(text, safe="-_.~"))


@st.composite
def requests(draw: st.DrawFn, presigned: bool = False) -> Signed:
    service = draw(st.sampled_from(["sagemaker", "s3", "sts", "logs"]))
    path = "/" + "/".join(draw(st.lists(SEGMENT, max_size=3)))
    query = draw(st.dictionaries(TEXT, TEXT, max_size=3)) if service == "s3" else {}
    headers = draw(
        st.dictionaries(
            st.sampled_from(["content-type", "x-amz-target", "x-amz-meta-a", "accept", "x-amzn-thing"]),
            VALUES,
        )
    )
    body = b"" if presigned else draw(st.binary(max_size=30))
    method = draw(st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"]))
    credentials = draw(st.sampled_from([ROOT, SESSION]))
    region = draw(st.sampled_from(["us-east-1", "eu-central-1"]))
    return signed_by_botocore(
        service,
        method,
        path,
        sorted(query.items()),
        headers,
        body,
        credentials=credentials,
        region=region,
        presigned=presigned,
    )


def now() -> float:
    return datetime.now(UTC).timestamp()


# It outlives every run of these tests, however long others take before them.
SESSION = RING.issue_session("SomeRole", "some-session", "123456789012", int(now()) + 12 * 3600)


@MANY
@given(request=st.booleans().flatmap(requests))
def test_Z04_what_botocore_signs_is_accepted(request: Signed) -> None:
    identity = request.verify()
    assert identity.principal.account == "123456789012"
    assert Identity.decode(identity.encode()) == identity
    verifier = Verifier(RING)
    for _ in range(2):  # new to it, and known
        assert request.verify(verifier=verifier) == identity


def flip(data: st.DataObject, text: str, allowed: str = "abcXYZ019-_/") -> str:
    at = data.draw(st.integers(0, len(text) - 1)) if text else 0
    kind = data.draw(st.sampled_from(["replace", "insert", "delete"] if text else ["insert"]))
    letter = data.draw(st.sampled_from(allowed))
    if kind == "replace":
        return text[:at] + letter + text[at + 1 :]
    return text[:at] + letter + text[at:] if kind == "insert" else text[:at] + text[at + 1 :]


@MANY
@given(request=requests(), data=st.data())
def test_Z04_any_single_change_to_a_signed_request_is_refused(request: Signed, data: st.DataObject) -> None:
    authorization = request.headers["authorization"]
    signed_names = authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    what = data.draw(
        st.sampled_from(["method", "target", "header", "added", "removed", "body", "authorization"])
    )
    before = (request.method, request.target, dict(request.headers), request.body)
    accepting = Verifier(RING)  # has accepted the original before it sees the change
    request.verify(verifier=accepting)
    if what == "method":
        request.method = data.draw(st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH"]))
    elif what == "target":
        request.target = "/" + flip(data, request.target[1:], "abc019-_/=&%.?")
        assume(meaning(request.target) != meaning(before[1]))
    elif what == "header":
        name = data.draw(st.sampled_from(signed_names))
        request.headers[name] = flip(data, request.headers[name])
    elif what == "added":
        request.headers[
            data.draw(st.sampled_from(["x-amz-acl", "x-amz-copy-source", "x-amz-grant-read"]))
        ] = "x"
    elif what == "removed":
        del request.headers[data.draw(st.sampled_from(signed_names))]
    elif what == "body":
        request.body = flip(data, request.body.decode("latin-1")).encode("latin-1")
    else:
        request.headers["authorization"] = flip(data, authorization, "abcXYZ019/=;, ")
        assume(request.headers["authorization"].replace(" ", "") != authorization.replace(" ", ""))
    assume(before != (request.method, request.target, request.headers, request.body))
    with pytest.raises(Fault) as caught:
        request.verify()
    assert caught.value.status in (400, 403)
    with pytest.raises(Fault):
        request.verify(verifier=accepting)


@MANY
@given(request=requests(presigned=True), data=st.data())
def test_Z04_any_single_change_to_a_presigned_request_is_refused(
    request: Signed, data: st.DataObject
) -> None:
    before = request.target
    request.target = "/" + flip(data, request.target[1:], "abc019-_/=&%.?")
    assume(meaning(request.target) != meaning(before))
    with pytest.raises(Fault):
        request.verify()


def meaning(target: str) -> tuple[object, ...]:
    """What a target means to its reader: `?a` and `?a=` and `?a=&` are the same request."""
    path, _, query = target.partition("?")
    pairs = [part.partition("=")[::2] for part in query.split("&") if part]
    return [unquoted(segment) for segment in path.split("/")], sorted(
        (unquoted(n), unquoted(v)) for n, v in pairs
    )


def unquoted(text: str) -> str:
    return unquote(text, encoding="latin-1")


def code_of(request: Signed, **verify: Any) -> str:
    with pytest.raises(Fault) as caught:
        request.verify(**verify)
    return caught.value.code


@pytest.mark.parametrize("change", ["body", "x-amz-date", "content-type", "host", "added", "signature"])
def test_Z04_an_invocations_signer_is_found_and_any_change_refused(change: str) -> None:
    verifier = Verifier(RING)
    request = a_request()
    for _ in range(3):
        signer = request.signer(verifier)
        identity = request.verify(verifier=verifier)
        assert signer == Signer(identity.principal, identity.service, identity.region)
    if change == "body":
        request.body += b"2"
    elif change == "signature":
        request.headers["authorization"] = request.headers["authorization"][:-64] + "0" * 64
    elif change == "added":
        request.headers["x-amz-acl"] = "public"
    else:
        request.headers[change] += "0"
    with pytest.raises(Fault):
        request.signer(verifier)


def test_Z04_an_invocations_session_ends_at_its_expiry() -> None:
    times = [datetime.now(UTC).timestamp()]
    session = RING.issue_session("SomeRole", "some-session", "123456789012", int(times[0]) + 10)
    verifier = Verifier(RING, lambda: times[-1])
    request = a_request(credentials=session)
    assert request.signer(verifier) == request.signer(verifier)
    times.append(times[0] + 11)
    with pytest.raises(Fault) as caught:
        request.signer(verifier)
    assert caught.value.code == "ExpiredTokenException"


def a_request(service: str = "sagemaker", **more: Any) -> Signed:
    return signed_by_botocore(service, "POST", "/", [], {"content-type": "text/csv"}, b"1", **more)


def test_Z04_another_key_or_a_wrong_secret_is_refused() -> None:
    unknown = Credentials("AKIAUNKNOWN", ROOT.secret_access_key)
    wrong = Credentials(ROOT.access_key_id, "wrong")
    assert code_of(a_request(credentials=unknown)) == "UnrecognizedClientException"
    assert code_of(a_request(credentials=wrong)) == "InvalidSignatureException"


def test_Z04_skew_is_refused_after_five_minutes_and_for_s3_after_fifteen() -> None:
    before = now()
    request, to_s3 = a_request(), a_request("s3")
    after = now()
    assert request.verify(at=before + 290)
    assert code_of(request, at=after + 310) == "InvalidSignatureException"
    assert code_of(request, at=before - 310) == "InvalidSignatureException"
    assert to_s3.verify(at=before + 800)
    assert code_of(to_s3, at=after + 910) == "RequestTimeTooSkewed"


def test_Z04_a_session_ends_at_its_expiry() -> None:
    request = a_request("s3", credentials=SESSION)
    assert request.verify().principal.arn.endswith("assumed-role/SomeRole/some-session")
    short = RING.issue_session("R", "s", "123456789012", int(datetime.now(UTC).timestamp()) - 1)
    assert code_of(a_request(credentials=short)) == "ExpiredTokenException"


def test_Z04_a_token_that_was_changed_or_belongs_to_another_installation_is_refused() -> None:
    body, _, tag = SESSION.session_token.partition(".")
    for token in (f"{body}x.{tag}", f"{body}.{tag[:-2]}", body, "nonsense", "é"):
        forged = Credentials(SESSION.access_key_id, SESSION.secret_access_key, token)
        assert RING.grant(forged.access_key_id, token) is None
    other = KeyRing(ROOT, b"o" * 32, "123456789012")
    assert code_of(a_request(credentials=SESSION), ring=other) == "UnrecognizedClientException"


def test_Z04_a_presigned_request_ends_at_its_expiry_and_says_so() -> None:
    before = now()
    request = signed_by_botocore("s3", "GET", "/b/k", [], {}, b"", presigned=True)
    assert request.verify(at=before + 50)
    with pytest.raises(Fault, match="Request has expired") as caught:
        request.verify(at=now() + 70)
    assert caught.value.status == 403


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
@pytest.mark.parametrize("credentials", [ROOT, SESSION], ids=["root", "session"])
def test_Z04_what_boto3_presigns_by_default_is_accepted(region: str, credentials: Credentials) -> None:
    client = s3_client(region, credentials)
    url = client.generate_presigned_url(
        "get_object", Params={"Bucket": "b", "Key": "a b/ü", "VersionId": "1"}
    )
    parts = urlsplit(url)
    request = Signed("GET", f"{parts.path}?{parts.query}", {"host": parts.netloc}, b"")
    assert request.verify().service == "s3"
    request.method = "PUT"
    with pytest.raises(Fault):
        request.verify()
    later = datetime.now(UTC) + timedelta(hours=2)
    request.method = "GET"
    with pytest.raises(Fault):
        request.verify(at=later.timestamp())


def s3_client(region: str, credentials: Credentials) -> Any:
    return botocore.session.Session().create_client(
        "s3",
        region_name=region,
        endpoint_url="http://127.0.0.1:8470",
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        aws_session_token=credentials.session_token or None,
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "MissingAuthenticationTokenException"),
        ({"authorization": "Basic abc"}, "IncompleteSignatureException"),
        ({"authorization": "AWS4-HMAC-SHA256 "}, "IncompleteSignatureException"),
        ({"authorization": "AWS4-HMAC-SHA256 Credential=a/b/c"}, "IncompleteSignatureException"),
        ({"authorization": "\x7fé"}, "IncompleteSignatureException"),
        (
            {"authorization": "AWS4-HMAC-SHA256 Credential=a,, SignedHeaders=b, Signature=" + "0" * 64},
            "IncompleteSignatureException",
        ),
    ],
)
def test_Z04_what_is_no_signature_is_told_so(headers: dict[str, str], code: str) -> None:
    assert code_of(Signed("POST", "/", {"host": "h", **headers}, b"")) == code


@given(
    authorization=st.text(st.characters(min_codepoint=32, max_codepoint=255)),
    query=st.text("aX-Amz=&%.SignatureCredential/123T"),
)
@settings(max_examples=100, deadline=None)
def test_Z04_nonsense_never_raises_anything_but_a_fault(authorization: str, query: str) -> None:
    for headers in (
        {"authorization": authorization},
        {"authorization": f"AWS4-HMAC-SHA256 {authorization}"},
        {},
    ):
        request = Signed(
            "GET", f"/?X-Amz-Signature=1&{query}", {"host": "h", "x-amz-date": "x", **headers}, b""
        )
        with pytest.raises(Fault):
            request.verify()


def test_a_path_that_could_be_read_in_two_ways_is_refused() -> None:
    for path in ("//endpoints/a/invocations", "/endpoints/../a", "/./a", "/a//b"):
        request = signed_by_botocore("sagemaker", "POST", path, [], {}, b"")
        with pytest.raises(Fault, match="normal form"):
            request.verify()


@MANY
@given(
    path=st.lists(SEGMENT, max_size=3),
    query=st.dictionaries(TEXT, TEXT, max_size=3),
    body=st.binary(max_size=9),
)
def test_what_sign_signs_is_accepted(path: list[str], query: dict[str, str], body: bytes) -> None:
    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items())
    target = "/" + "/".join(path) + (f"?{text}" if text else "")
    headers = {"host": "h:1", "content-type": "a  b"}
    added = sign(
        SESSION,
        "POST",
        target,
        headers,
        hashlib.sha256(body).hexdigest(),
        service="clary",
        region="r",
        at=datetime.now(UTC),
    )
    assert Signed("POST", target, {**headers, **added}, body).verify().service == "clary"


def test_a_key_file_is_read_and_a_broken_one_named(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    with pytest.raises(KeyFileError, match=r"credentials\.json"):
        KeyRing.load(file, "123456789012")
    file.write_text('{"version":1,"root":{"access_key_id":"AKIA","secret_access_key":"s"},"seal_key":"00ff"}')
    assert KeyRing.load(file, "123456789012").root == Credentials("AKIA", "s")
