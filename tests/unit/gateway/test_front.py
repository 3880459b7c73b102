"""CONNECT, as it is read; and where a tunnel may lead."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from clary.gateway.front import Front, parse_connect
from clary.gateway.tunnels import Refused, Tunnels, is_off_limits
from clary.links.upstream_proxy import UpstreamProxy, found_in

T = TypeVar("T")
PUBLIC = "203.0.113.7"


def test_U02_a_connect_names_host_port_and_token() -> None:
    read = parse_connect(
        b"CONNECT STS.us-east-1.amazonaws.com:443 HTTP/1.1\r\nProxy-Authorization: Basic eA==\r\n\r\n"
    )
    assert (read.host, read.port, read.authorization) == ("sts.us-east-1.amazonaws.com", 443, b"Basic eA==")
    assert parse_connect(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n").host == "2001:db8::1"
    assert parse_connect(b"CONNECT localhost.:443 HTTP/1.0\r\n\r\n").host == "localhost"


def test_Z04_a_request_that_has_come_in_time_is_not_closed_upon_because_it_is_read_late() -> None:
    async def work() -> None:
        heard = asyncio.Event()

        class Plain(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                heard.set()

        loop = asyncio.get_running_loop()
        tunnels = Tunnels(UpstreamProxy)
        front = Front(Plain, Plain, "token", lambda host: None, tunnels)
        client, accepted = socket.socketpair()
        with client:
            transport, _ = await loop.connect_accepted_socket(front.connection, accepted)
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            for each in front.openings:
                front.openings[each] = loop.time()
            front._tick()  # after the machine stood still, say: times come before what can be read
            await heard.wait()
            transport.close()
            front.close()
            await asyncio.sleep(0)

    asyncio.run(work())


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"CONNECT / HTTP/1.1\r\n\r\n",
        b"CONNECT host HTTP/1.1\r\n\r\n",
        b"CONNECT host:x HTTP/1.1\r\n\r\n",
        b"CONNECT user@host:443 HTTP/1.1\r\n\r\n",
        b"CONNECT host:443 HTTP/2.0\r\n\r\n",
        b"CONNECT host:443\r\n\r\n",
        b"CONNECT host:443 HTTP/1.1\r\n\r\nearly",
        b"CONNECT h:443 HTTP/1.1\r\nproxy-authorization: a\r\nproxy-authorization: b\r\n\r\n",
        b"CONNECT \xff\xfe:443 HTTP/1.1\r\n\r\n",
    ],
)
def test_Z01_any_other_connect_is_refused(request_bytes: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse_connect(request_bytes)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("address", "is_off"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("0.0.0.0", True),
        ("169.254.169.254", True),
        ("224.0.0.1", True),
        ("::1", True),
        ("::", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:169.254.169.254", True),
        ("fe80::1%lo", True),
        (PUBLIC, False),
        ("::ffff:203.0.113.7", False),
        ("2001:db8::7", False),
    ],
)
def test_Z01_no_tunnel_leads_back_to_this_machine(address: str, is_off: bool) -> None:
    assert is_off_limits(address) is is_off


def test_Z01_a_name_that_leads_here_is_refused_whatever_else_it_leads_to() -> None:
    async def reach(addresses: list[str], proxy: UpstreamProxy, host: str) -> Refused:
        tunnels = Tunnels(lambda: proxy, resolve=_always(addresses), dial=_nobody)
        with pytest.raises(Refused) as refused:
            await tunnels.reach(host)
        return refused.value

    proxy = UpstreamProxy("http://proxy.example:3128")
    assert asyncio.run(reach([PUBLIC, "127.0.0.1"], UpstreamProxy(), "sly.example")).status == 403
    assert asyncio.run(reach(["10.0.0.1", "::1"], proxy, "sly.example")).status == 403
    assert asyncio.run(reach([], proxy, "localhost")).status == 403
    assert asyncio.run(reach([], proxy, "deep.localhost")).status == 403
    assert "no address" in str(asyncio.run(reach([], UpstreamProxy(), "nowhere.example")))


def test_U02_a_tunnel_passes_bytes_both_ways_until_both_have_ended() -> None:
    async def story() -> None:
        dialled: list[tuple[str, int]] = []
        there, far = _pair()

        async def dial(host: str, port: int) -> socket.socket:
            dialled.append((host, port))
            if host == "203.0.113.6":
                raise ConnectionRefusedError("nobody there")
            return far

        tunnels = Tunnels(UpstreamProxy, resolve=_always(["203.0.113.6", PUBLIC]), dial=dial)
        client = await _joined(tunnels, "pypi.org")
        assert dialled == [("203.0.113.6", 443), (PUBLIC, 443)]
        loop = asyncio.get_running_loop()
        big = bytes(range(256)) * 8192
        sending = loop.create_task(loop.sock_sendall(client, big))
        assert await _read(there, len(big)) == big
        await sending
        client.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(there, 1) == b""
        await loop.sock_sendall(there, b"bye")
        there.close()
        assert await _read(client, 3) == b"bye"
        assert await loop.sock_recv(client, 1) == b""
        client.close()

    asyncio.run(story())


def test_U02_the_proxy_configured_before_is_gone_through() -> None:
    async def story(no_proxy: str) -> list[tuple[str, int]]:
        dialled: list[tuple[str, int]] = []
        there, far = _pair()

        async def dial(host: str, port: int) -> socket.socket:
            dialled.append((host, port))
            return far

        proxy = UpstreamProxy("http://me:p%40ss@proxy.example:3128", no_proxy)
        tunnels = Tunnels(lambda: proxy, resolve=_always([PUBLIC]), dial=dial)
        loop = asyncio.get_running_loop()
        joining = loop.create_task(_joined(tunnels, "pypi.org"))
        if not no_proxy:
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += await loop.sock_recv(there, 4096)
            assert asked.startswith(b"CONNECT pypi.org:443 HTTP/1.1\r\n")
            assert b"proxy-authorization: Basic bWU6cEBzcw==" in asked
            await loop.sock_sendall(there, b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nhello")
        else:
            await loop.sock_sendall(there, b"hello")
        client = await joining
        assert await _read(client, 5) == b"hello"
        tunnels.close()
        client.close()
        there.close()
        await asyncio.sleep(0)
        return dialled

    assert asyncio.run(story("")) == [("proxy.example", 3128)]
    assert asyncio.run(story("example.com,.pypi.org,pypi.org")) == [(PUBLIC, 443)]


def test_U02_what_the_proxy_before_refuses_is_said() -> None:
    async def story() -> None:
        there, far = _pair()

        async def dial(host: str, port: int) -> socket.socket:
            return far

        tunnels = Tunnels(lambda: UpstreamProxy("http://p.example"), resolve=_always([]), dial=dial)
        reaching = asyncio.get_running_loop().create_task(tunnels.reach("pypi.org"))
        await asyncio.get_running_loop().sock_sendall(there, b"HTTP/1.1 403 Forbidden\r\n\r\n")
        with pytest.raises(Refused, match=r"answered 403 for pypi\.org"):
            await reaching
        there.close()

    asyncio.run(story())


def test_U02_our_own_proxy_is_nobody_s_upstream() -> None:
    assert found_in({"HTTPS_PROXY": "http://clary:abc@127.0.0.1:8470"}) is None
    assert found_in({}) == UpstreamProxy()
    assert found_in(
        {"https_proxy": "proxy:3128", "HTTPS_PROXY": "http://other:1", "NO_PROXY": "a"}
    ) == UpstreamProxy("http://proxy:3128", "a")


def test_Z01_a_proxy_s_password_is_not_shown() -> None:
    assert "secret" not in repr(UpstreamProxy("http://me:secret@proxy:3128"))


def _always(addresses: list[str]) -> Callable[[str], Awaitable[list[str]]]:
    async def resolve(host: str) -> list[str]:
        return addresses

    return resolve


async def _nobody(host: str, port: int) -> socket.socket:
    raise AssertionError("nobody is to be called")


def _pair() -> tuple[socket.socket, socket.socket]:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    return left, right


async def _joined(tunnels: Tunnels, host: str) -> socket.socket:
    """A client's end of a tunnel to the host."""
    client, near = _pair()
    far = await tunnels.reach(host)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    await tunnels.join(transport, far)
    return client


async def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
        assert part, "it ended early"
        data += part
    return data
