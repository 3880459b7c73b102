"""Stateful sessions: opened, continued and closed at one instance, by what their ids say."""

import pytest

from clary.gateway.upstream import Broken
from unit.gateway.runtime_world import Asked, World, story, variant

NEW = "NEW_SESSION"
LATER = "2026-01-01T12:30:00Z"


def open_session(world: World, own: str = "chat-1", end: str = LATER) -> str:
    asked = world.ask(x_amzn_sagemaker_session_id=NEW)
    world.sent[-1].answer(x_amzn_sagemaker_new_session_id=f"{own}; Expires={end}")
    id_, _, rest = asked.header("X-Amzn-SageMaker-New-Session-Id").partition("; ")
    assert (asked.status, rest) == (200, f"Expires={end}")
    return id_


def test_H12_a_session_stays_at_its_instance_under_the_container_s_own_id() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1", "i-2", weight=9), variant("B", "i-3"))
        world.chances = [0.0, 0.9]
        session = open_session(world)
        assert "x-amzn-sagemaker-session-id: NEW_SESSION\r\n" in world.sent[-1].text
        home = world.sent[-1].target
        assert home.instance_id == "i-2"
        for _ in range(5):
            asked = world.ask(b"go on", x_amzn_sagemaker_session_id=session)
            assert world.sent[-1].target is home
            assert "x-amzn-sagemaker-session-id: chat-1\r\n" in world.sent[-1].text
            assert world.sent[-1].text.endswith("\r\n\r\ngo on")
            world.sent[-1].answer()
            assert (asked.status, asked.header("X-Amzn-SageMaker-New-Session-Id")) == (200, "")
        asked = world.ask(x_amzn_sagemaker_session_id=session)
        world.sent[-1].answer(x_amzn_sagemaker_closed_session_id="chat-1")
        assert asked.header("X-Amzn-SageMaker-Closed-Session-Id") == session

    story(work)


def test_H12_a_session_outlives_the_gateway_and_a_change_of_weights() -> None:
    async def work() -> None:
        one = World()
        one.publish(variant("A", "i-1", "i-2"))
        session = open_session(one)
        home = one.sent[-1].target.instance_id
        other = World()  # another process, or the same after a restart
        other.publish(variant("A", "i-1", "i-2", weight=0.0), variant("B", "i-3"))
        other.ask(x_amzn_sagemaker_session_id=session)
        assert other.sent[-1].target.instance_id == home

    story(work)


def test_H12_while_traffic_moves_a_session_stays_in_its_fleet() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1", fleet="blue"))
        session = open_session(world)
        world.publish(variant("A", "i-1", fleet="blue", share=0.0), variant("A", "i-2", fleet="green"))
        world.ask(x_amzn_sagemaker_session_id=session)
        assert world.sent[-1].target.instance_id == "i-1"

    story(work)


def test_H12_a_session_may_be_streamed_but_not_opened_by_a_stream() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1"))
        refused = world.ask(stream=True, x_amzn_sagemaker_session_id=NEW)
        assert refused.status == 400
        assert "cannot be created with InvokeEndpointWithResponseStream" in refused.message
        assert not world.sent
        session = open_session(world)
        asked = world.ask(stream=True, x_amzn_sagemaker_session_id=session)
        world.sent[-1].answer(b"part")
        assert asked.is_whole
        assert b"part" in asked.body

    story(work)


def refusal(world: World, session: str, target_variant: str = "") -> str:
    count = len(world.sent)
    headers = {"x_amzn_sagemaker_target_variant": target_variant} if target_variant else {}
    asked = world.ask(b"", False, **headers, x_amzn_sagemaker_session_id=session)
    assert (asked.status, len(world.sent)) == (400, count)
    assert "ValidationError" in asked.fields.decode()
    return asked.message


def test_H12_what_no_instance_holds_is_refused_with_what_to_do() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1"), variant("B", "i-2"))
        session = open_session(world)
        expired = open_session(world, end="2026-01-01T11:59:59Z")
        assert "expired at 2026-01-01T11:59:59Z. Open a new one" in refusal(world, expired)
        assert "not found: it was not opened here. Open a new one" in refusal(world, "chat-1")
        assert "failed to satisfy constraint" in refusal(world, "no id")
        assert "is held by variant A, not by the target variant B" in refusal(world, session, "B")
        world.publish(variant("A", "i-9"), variant("B", "i-2"))
        assert "not found: the instance that held it is gone. Open a new one" in refusal(world, session)

    story(work)


@pytest.mark.parametrize("how", [Broken.LOST, Broken.UNREACHABLE])
def test_H12_a_session_s_request_goes_nowhere_else(how: Broken) -> None:
    async def work() -> None:
        world = World(retry_user_code=True)
        world.publish(variant("A", "i-1", "i-2", "i-3"))
        session = open_session(world)
        asked = world.ask(x_amzn_sagemaker_session_id=session)
        count = len(world.sent)
        world.sent[-1].break_off(how)
        assert (asked.status, len(world.sent)) == (503, count)

    story(work)


def test_H12_a_session_that_may_have_been_opened_is_not_opened_twice() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1", "i-2"))
        asked = world.ask(x_amzn_sagemaker_session_id=NEW)
        world.sent[-1].break_off(Broken.LOST)
        assert (asked.status, len(world.sent)) == (503, 1)
        world.ask(x_amzn_sagemaker_session_id=NEW)
        world.sent[-1].break_off(Broken.UNREACHABLE)  # it has seen nothing
        assert len(world.sent) == 3

    story(work)


@pytest.mark.parametrize("body", [b"small", b"x" * 300_000])
def test_H12_a_container_s_header_that_cannot_be_used_is_its_error(body: bytes) -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1"))
        asked = world.ask(x_amzn_sagemaker_session_id=NEW)
        world.sent[-1].answer(body, x_amzn_sagemaker_new_session_id="no end")
        assert asked.status == 424
        assert "New-Session-Id cannot be used: 'no end' is not of the form" in asked.message
        assert world.metrics()["InvocationModelErrors", "A"].sum == 1

    story(work)


def test_H12_session_headers_that_nobody_asked_for_stay_here() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1"))
        asked = world.ask()
        world.sent[-1].answer(x_amzn_sagemaker_new_session_id=f"s; Expires={LATER}")
        assert asked.header("X-Amzn-SageMaker-New-Session-Id") == ""

    story(work)


def sticky(world: World, key: str, **headers: str) -> tuple[Asked, str]:
    asked = world.ask(b"", False, x_clary_sticky_key=key, **headers)
    return asked, world.sent[-1].target.instance_id


def test_H12_a_sticky_key_leads_to_one_variant_and_instance() -> None:
    async def work() -> None:
        world = World()
        routes = variant("A", "i-1", "i-2"), variant("B", "i-3", "i-4")
        world.publish(*routes)
        homes = {str(user): sticky(world, str(user))[1] for user in range(40)}
        assert set(homes.values()) == {"i-1", "i-2", "i-3", "i-4"}
        other = World()
        other.publish(*routes)
        assert {user: sticky(other, user)[1] for user in homes} == homes
        assert "sticky" not in world.sent[-1].text
        other.publish(variant("A", "i-1"), routes[1])
        moved = {user: sticky(other, user)[1] for user in homes}
        assert {user for user in homes if moved[user] != homes[user]} == {
            u for u in homes if homes[u] == "i-2"
        }
        named = {sticky(world, user, x_amzn_sagemaker_target_variant="B")[1] for user in homes}
        assert named == {"i-3", "i-4"}

    story(work)


def test_H12_a_sticky_key_moves_on_when_its_instance_does_not_answer() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1", "i-2", "i-3"))
        asked, home = sticky(world, "user")
        world.sent[-1].break_off(Broken.UNREACHABLE)
        assert world.sent[-1].target.instance_id != home
        world.sent[-1].answer()
        assert asked.status == 200

    story(work)


def test_H12_a_new_session_of_a_sticky_key_is_opened_where_the_key_leads() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1", "i-2", "i-3"))
        _, home = sticky(world, "user")
        assert sticky(world, "user", x_amzn_sagemaker_session_id=NEW)[1] == home
        too_long = world.ask(x_clary_sticky_key="k" * 257)
        assert too_long.status == 400
        assert "257 characters; 256 are allowed" in too_long.message

    story(work)
