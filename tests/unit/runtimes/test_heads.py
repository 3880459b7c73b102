"""Request heads: what is understood, what is refused, and that remembering changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.runtimes.contract import InvocationResponse
from clary.runtimes.heads import HeadCache, MalformedHead, check_beginning, encode_response, parse_head

INVOCATION = (
    b"POST /invocations?x=1 HTTP/1.1\r\nHost: here\r\nContent-Type: text/csv\r\nAccept: application/json\r\n"
    b"X-Amzn-SageMaker-Custom-Attributes: trace=1\r\nContent-Length: 12\r\n\r\n"
)


def test_an_invocation_head_is_understood() -> None:
    head = parse_head(INVOCATION)
    assert (head.method, head.path, head.length) == ("POST", "/invocations", 12)
    assert head.keep_alive
    assert not head.chunked
    assert head.invocation.content_type == "text/csv"
    assert head.invocation.accept == "application/json"
    assert head.invocation.custom_attributes == "trace=1"
    assert ("host", "here") in head.invocation.headers


def test_old_clients_and_closing_ones_are_not_kept() -> None:
    assert not parse_head(b"GET /ping HTTP/1.0\r\n\r\n").keep_alive
    assert not parse_head(b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n").keep_alive


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"POST /invocations\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 5 5\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
        b"POST /inv\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/1.1\n\nGET /other HTTP/1.1\r\n\r\n",
        b"POST /ping HTTP/1.1\nContent-Length: 3\n\nabc\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_ambiguous_or_broken_heads_are_refused(head: bytes) -> None:
    with pytest.raises(MalformedHead):
        parse_head(head)


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_head_or_malformed(data: bytes) -> None:
    cache = HeadCache()
    for _ in range(2):
        try:
            cache.parse(data + b"\r\n\r\n")
        except MalformedHead:
            assert data + b"\r\n\r\n" not in cache.plain


@given(st.integers(0, 40))
def test_a_beginning_is_no_error(cut: int) -> None:
    check_beginning(INVOCATION[:cut])


def test_a_remembered_head_is_the_parsed_one_and_memory_is_bounded() -> None:
    cache = HeadCache()
    assert cache.parse(INVOCATION) is cache.parse(INVOCATION)
    assert cache.parse(INVOCATION) == parse_head(INVOCATION)
    for number in range(3000):
        cache.parse(b"POST /invocations HTTP/1.1\r\nN: %d\r\n\r\n" % number)
    assert 0 < len(cache.plain) <= 1024


@pytest.mark.parametrize(
    "head",
    [
        b"GET /ping HTTP/1.1\r\n\r\n",
        b"POST /ping HTTP/1.1\r\n\r\n",
        b"GET /invocations HTTP/1.1\r\n\r\n",
        b"POST /invocations HTTP/1.0\r\nContent-Length: 1\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nConnection: close\r\nContent-Length: 1\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_only_invocations_that_say_no_more_are_usual(head: bytes) -> None:
    cache = HeadCache()
    cache.parse(head)
    assert not cache.plain


def test_responses_are_written_whole() -> None:
    response = InvocationResponse(200, "text/csv; charset=utf-8", b"1.5\n")
    assert encode_response(response, keep_alive=True) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/csv; charset=utf-8\r\nContent-Length: 4\r\n\r\n1.5\n"
    )
    assert b"Connection: close\r\n" in encode_response(response, keep_alive=False)
    nothing = encode_response(InvocationResponse(204, "", b""), keep_alive=True)
    assert nothing == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_custom_attributes_cannot_end_the_head() -> None:
    response = InvocationResponse(200, "text/csv", b"1\n", custom_attributes="a\r\nSet-Cookie: b")
    head = encode_response(response, keep_alive=True).partition(b"\r\n\r\n")[0]
    assert [line.partition(b":")[0] for line in head.split(b"\r\n")[1:]] == [
        b"Content-Type",
        b"Content-Length",
        b"X-Amzn-SageMaker-Custom-Attributes",
    ]


def test_H12_headers_of_a_session_are_written_and_cannot_end_the_head() -> None:
    fields = (("X-Amzn-SageMaker-New-Session-Id", "a; Expires=b\r\nSet-Cookie: c"),)
    response = InvocationResponse(200, "text/csv", b"1\n", session_fields=fields)
    head = encode_response(response, keep_alive=True).partition(b"\r\n\r\n")[0]
    assert head.split(b"\r\n")[-1] == b"X-Amzn-SageMaker-New-Session-Id: a; Expires=b  Set-Cookie: c"
