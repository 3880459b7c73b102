"""Instances of several containers, played by the test: who gets what, in which order, and what fails."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from clary.domain.instances import InstanceId
from clary.domain.policies import Request
from clary.domain.principals import Principal, assumed_role
from clary.domain.rights import Rights, knows
from clary.domain.routes import Target, VariantRoute
from clary.gateway import chains, invocation, runtime
from clary.gateway.callers import Callers
from clary.gateway.upstream import Broken
from clary.wire.heads import Head
from clary.wire.sigv4 import KeyRing, Signer, Verifier
from unit.gateway.runtime_world import Asked, Noting, World, story, variant

NAMES = ("clean", "scale", "predict")


def several(*instances: str, names: Sequence[str] = NAMES, **more: Any) -> VariantRoute:
    targets = tuple(
        Target(
            InstanceId(id),
            f"unix:/none/{id}-1",
            addresses=tuple(f"unix:/none/{id}-{n + 1}" for n in range(len(names))),
        )
        for id in instances
    )
    return VariantRoute("A", 1.0, targets, container=names[0], containers=tuple(names), **more)


def refusal(asked: Asked) -> tuple[int, str]:
    return asked.status, asked.message


class TestAChain:
    def test_C02_each_answer_is_the_next_request_and_the_last_one_is_the_callers(self) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1"))
            asked = world.ask(b"raw", accept="application/json", x_amzn_sagemaker_custom_attributes="trace=1")
            world.sent[0].answer(b"cleaned", x_amzn_sagemaker_custom_attributes="by=clean")
            world.sent[1].waiter.on_head(*_head(world.sent[1], "application/x-npy"))
            world.sent[1].waiter.on_body(b"sca")
            world.sent[1].waiter.on_body(b"led")
            world.sent[1].waiter.on_complete()
            world.sent[2].answer(b"[1.0]", x_amzn_sagemaker_custom_attributes="by=predict")
            assert [each.container for each in world.sent] == [0, 1, 2]
            bodies = [each.text.split("\r\n\r\n")[1] for each in world.sent]
            assert bodies == ["raw", "cleaned", "scaled"]
            types = [_field(each.text, "content-type") for each in world.sent]
            assert types == ["text/csv", "text/csv", "application/x-npy"]
            assert [_field(each.text, "accept") for each in world.sent] == ["", "", "application/json"]
            assert [_field(each.text, "x-amzn-sagemaker-custom-attributes") for each in world.sent] == [
                "trace=1"
            ] * 3
            assert (asked.status, asked.body) == (200, b"[1.0]")
            assert asked.header("x-amzn-sagemaker-custom-attributes") == "by=predict"
            assert asked.header("x-amzn-invoked-production-variant") == "A"
            assert world.table.outstanding == 0

        story(work)

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_C02_the_first_failure_ends_it_and_names_its_container(self, place: int) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1"))
            asked = world.ask()
            for each in range(place):
                world.sent[each].answer(b"x")
            world.sent[place].answer(b"no luck", status=500)
            assert len(world.sent) == place + 1
            assert asked.status == 424
            assert f'Received server error (500) from {NAMES[place]} with message "no luck"' in asked.message
            found = world.metrics()
            assert (found["Invocations", "A"].sum, found["Invocation5XXErrors", "A"].sum) == (1, 1)
            assert world.table.outstanding == 0

        story(work)

    def test_C02_a_time_out_and_an_answer_that_breaks_off_name_their_container(self) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1"))
            for how, words in (
                (Broken.TIMEOUT, "timed out while waiting for a response from container scale"),
                (Broken.CUT, "from scale and could not load the entire response body"),
            ):
                world.sent.clear()
                asked = world.ask()
                world.sent[0].answer(b"x")
                world.sent[1].break_off(how)
                assert asked.status == 424
                assert words in asked.message
            assert world.table.outstanding == 0

        story(work)

    def test_C02_latencies_are_counted_for_each_container_and_their_sum_for_the_variant(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 100.0
        for module in (runtime, invocation, chains):
            monkeypatch.setattr(module, "monotonic", lambda: now)

        async def work() -> None:
            nonlocal now
            world = World()
            world.publish(several("i-1"))
            world.ask()
            for place, took_s in enumerate((0.25, 0.5, 1.0)):
                now += took_s
                world.sent[place].answer(b"x")
            world.table.flush_meters()
            batch = world.recorder.drain()
            assert batch is not None
            points = {(p.name, dict(p.dimensions).get("ContainerName", "")): p for p in batch.points}
            each = [points["ContainerLatency", name] for name in NAMES]
            assert [(point.count, point.sum) for point in each] == [
                (1, 250_000),
                (1, 500_000),
                (1, 1_000_000),
            ]
            assert (points["ModelLatency", ""].count, points["ModelLatency", ""].sum) == (1, 1_750_000)
            assert (points["OverheadLatency", ""].count, points["OverheadLatency", ""].sum) == (1, 0)
            assert dict(each[0].dimensions)["VariantName"] == "A"

        story(work)

    def test_C02_built_in_containers_begin_again_on_another_instance_once(self) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1", "i-2"))
            asked = world.ask(b"raw")
            world.sent[0].answer(b"cleaned")
            world.sent[1].break_off(Broken.LOST)
            assert (world.sent[2].target.instance_id, world.sent[2].container) == ("i-2", 0)
            assert world.sent[2].text.endswith("raw")
            for place in (2, 3, 4):
                world.sent[place].answer(f"step {place}".encode())
            assert {each.target.instance_id for each in world.sent[2:]} == {"i-2"}
            assert asked.body == b"step 4"
            again = world.ask()
            world.sent[5].break_off(Broken.LOST)
            world.sent[6].break_off(Broken.LOST)
            assert again.status == 503
            assert world.table.outstanding == 0

        story(work)

    @pytest.mark.parametrize("how", [Broken.LOST, Broken.UNREACHABLE])
    def test_C02_user_code_that_has_answered_is_not_asked_again(self, how: Broken) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1", "i-2", retries_elsewhere=False))
            asked = world.ask()
            world.sent[0].answer(b"x")
            world.sent[1].break_off(how)
            assert len(world.sent) == 2
            assert asked.status == 503
            fresh = world.ask()
            world.sent[2].break_off(Broken.UNREACHABLE)  # it has seen nothing
            assert world.sent[3].target is not world.sent[2].target
            for place in (3, 4, 5):
                world.sent[place].answer(b"y")
            assert fresh.status == 200

        story(work)

    def test_C02_idle_connections_that_had_ended_are_replaced_at_every_container(self) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1", names=("a", "b"), retries_elsewhere=False))
            asked = world.ask(b"raw")
            world.sent[0].break_off(Broken.STALE)
            world.sent[1].answer(b"x")
            world.sent[2].break_off(Broken.STALE)
            world.sent[3].answer(b"y")
            assert [(each.container, each.is_fresh) for each in world.sent] == [
                (0, False),
                (0, True),
                (1, False),
                (1, True),
            ]
            assert asked.body == b"y"
            assert world.table.outstanding == 0

        story(work)

    def test_C02_an_answer_between_containers_that_is_too_long_is_an_error_of_its_container(self) -> None:
        async def work() -> None:
            world = World()
            world.runtime.max_body_bytes = 100
            world.publish(several("i-1"))
            asked = world.ask()
            world.sent[0].head()
            world.sent[0].waiter.on_body(b"x" * 101)
            assert world.sent[0].wire.is_aborted
            assert "from clean and could not load the entire response body" in asked.message
            assert world.table.outstanding == 0

        story(work)

    def test_C02_a_stream_is_the_last_containers(self) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1", names=("a", "b")))
            asked = world.ask(stream=True, x_amzn_sagemaker_accept="text/plain")
            world.sent[0].answer(b"one")
            assert (asked.status, asked.body) == (0, b"")
            world.sent[1].head()
            world.sent[1].waiter.on_body(b"two")
            assert asked.status == 200
            assert b"two" in asked.body
            world.sent[1].waiter.on_complete()
            assert asked.is_whole
            assert _field(world.sent[1].text, "accept") == "text/plain"

        story(work)

    def test_C02_what_is_captured_is_the_callers_request_and_the_last_answer(self) -> None:
        async def work() -> None:
            watch = Noting()
            world = World(lambda endpoint, head, body, request_id: watch)
            world.publish(several("i-1", names=("a", "b")), capture=object())
            world.ask()
            world.sent[0].answer(b"one")
            world.sent[1].answer(b"two")
            ((name, answer),) = watch.told
            assert name == "A"
            assert not isinstance(answer, str)
            assert answer is not None
            assert answer.body == b"two"

        story(work)

    def test_C02_a_container_cannot_be_named_and_a_session_cannot_be_opened(self) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1"))
            status, message = refusal(world.ask(x_amzn_sagemaker_target_container_hostname="clean"))
            assert status == 400
            assert "does not support target container hostname header" in message
            assert "stateful sessions" in refusal(world.ask(x_amzn_sagemaker_session_id="NEW_SESSION"))[1]
            sticky = world.ask(x_clary_sticky_key="me")
            for each in range(3):
                world.sent[each].answer(b"x")
            assert sticky.status == 200

        story(work)


class TestDirect:
    def test_C01_only_the_named_container_is_asked(self) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1", is_direct=True))
            asked = world.ask(b"raw", accept="text/csv", x_amzn_sagemaker_target_container_hostname="scale")
            (sent,) = world.sent
            assert (sent.container, sent.target.instance_id) == (1, "i-1")
            assert _field(sent.text, "accept") == "text/csv"
            sent.answer(b"scaled")
            assert (asked.status, asked.body) == (200, b"scaled")
            failing = world.ask(x_amzn_sagemaker_target_container_hostname="predict")
            world.sent[1].answer(b"bad row", status=400)
            assert 'Received client error (400) from predict with message "bad row"' in failing.message
            assert world.table.outstanding == 0

        story(work)

    def test_C01_a_name_is_needed_and_must_be_one_of_them(self) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1", is_direct=True))
            status, message = refusal(world.ask())
            assert status == 400
            assert "missing a target container hostname" in message
            assert "clean, scale, predict" in message
            status, message = refusal(world.ask(x_amzn_sagemaker_target_container_hostname="third"))
            assert (status, "Container third of endpoint Ep" in message) == (400, True)
            world.publish(variant("A", "i-9"))
            assert refusal(world.ask(x_amzn_sagemaker_target_container_hostname="clean"))[0] == 400
            assert world.sent == []

        story(work)

    def test_C01_each_container_has_its_own_metrics_and_the_variant_all_of_them(self) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1", "i-2", is_direct=True))
            for name, status in (("clean", 200), ("clean", 500), ("scale", 400)):
                world.ask(x_amzn_sagemaker_target_container_hostname=name)
                world.sent[-1].answer(b"x", status=status)
            world.table.flush_meters()
            batch = world.recorder.drain()
            assert batch is not None
            sums: dict[tuple[str, str], float] = {}
            for point in batch.points:
                key = point.name, dict(point.dimensions).get("ContainerName", "")
                sums[key] = sums.get(key, 0.0) + point.sum
            assert [sums["Invocations", name] for name in ("", "clean", "scale")] == [3, 2, 1]
            assert [sums["Invocation5XXErrors", name] for name in ("", "clean", "scale")] == [1, 1, 0]
            assert [sums["Invocation4XXErrors", name] for name in ("", "clean", "scale")] == [1, 0, 1]
            assert sums["InvocationsPerInstance", ""] == 1.5
            assert {name for name, container in sums if container} == {
                "Invocations",
                "Invocation4XXErrors",
                "Invocation5XXErrors",
                "ContainerLatency",
                "OverheadLatency",
            }

        story(work)

    def test_C01_another_instance_is_asked_at_the_same_container(self) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1", "i-2", is_direct=True))
            asked = world.ask(x_amzn_sagemaker_target_container_hostname="predict")
            world.sent[0].break_off(Broken.LOST)
            assert world.sent[1].target.instance_id != world.sent[0].target.instance_id
            assert world.sent[1].container == 2
            world.sent[1].answer(b"ok")
            assert asked.status == 200

        story(work)

    def test_C01_a_request_never_moves_to_a_fleet_of_another_shape(self) -> None:
        async def work() -> None:
            world = World()
            for old, new in (
                (several("i-1", is_direct=True, fleet="old"), variant("A", "i-5", fleet="new", share=0.0)),
                (several("i-2", fleet="old"), several("i-6", fleet="new", is_direct=True, share=0.0)),
                (variant("A", "i-3", fleet="old"), several("i-7", fleet="new", share=0.0)),
            ):
                world.sent.clear()
                world.publish(old, new)
                header: dict[str, Any] = {"x_amzn_sagemaker_target_container_hostname": "clean"}
                asked = world.ask(**(header if old.is_direct else {}))
                world.publish(
                    *(
                        VariantRoute(**{**_members(each), "share": share})
                        for each, share in ((old, 0.5), (new, 0.5))
                    )
                )
                world.sent[0].break_off(Broken.UNREACHABLE)
                assert asked.status == 503
                assert len(world.sent) == 1

        story(work)

    def test_C01_a_session_stays_with_its_instance_and_container(self) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1", "i-2", is_direct=True))
            target: dict[str, Any] = {"x_amzn_sagemaker_target_container_hostname": "scale"}
            opened = world.ask(x_amzn_sagemaker_session_id="NEW_SESSION", **target)
            world.sent[0].answer(x_amzn_sagemaker_new_session_id="s-1; Expires=2026-01-01T13:00:00Z")
            session = opened.header("x-amzn-sagemaker-new-session-id").partition(";")[0]
            world.ask(x_amzn_sagemaker_session_id=session, **target)
            assert world.sent[1].container == 1
            assert world.sent[1].target is world.sent[0].target
            assert _field(world.sent[1].text, "x-amzn-sagemaker-session-id") == "s-1"

        story(work)

    def test_C01_an_instance_is_busy_while_any_of_its_containers_is(self) -> None:
        async def work() -> None:
            world = World()
            world.publish(several("i-1", is_direct=True))
            world.ask(x_amzn_sagemaker_target_container_hostname="predict")
            assert world.table.busy([InstanceId("i-1")]) == {"i-1"}
            world.publish(several("i-2", is_direct=True))
            idle: list[bool] = []
            world.table.when_idle([InstanceId("i-1")], lambda: idle.append(True))
            assert idle == []
            world.sent[0].answer(b"x")
            assert idle == [True]

        story(work)


def test_C01_policies_may_name_containers(tmp_path: Path) -> None:
    asked: list[Request] = []

    class AnyRights(Rights):
        def check(self, principal: Principal, request: Request) -> None:
            asked.append(request)

    callers = Callers(tmp_path, cast(KeyRing, None), cast(Verifier, None))
    callers.rights = AnyRights()
    signer = Signer(assumed_role("111122223333", "r", "s", "AKIA"), "sagemaker", "eu-west-1")
    header = {b"x-amzn-sagemaker-target-container-hostname": b"scale"}
    callers.authorise_invocation(signer, Head(b"POST", b"/endpoints/Ep/invocations", header), False, "Ep")
    assert asked[0].context["sagemaker:targetcontainerhostname"] == ("scale",)
    assert knows("sagemaker:targetcontainerhostname")


def _members(route: VariantRoute) -> dict[str, Any]:
    return {name: getattr(route, name) for name in route.__dataclass_fields__}


def _head(sent: Any, content_type: str) -> tuple[Any, int, list[tuple[bytes, bytes]]]:
    return sent.wire, 200, [(b"content-type", content_type.encode())]


def _field(request: str, name: str) -> str:
    for line in request.split("\r\n\r\n")[0].split("\r\n")[1:]:
        found, _, value = line.partition(": ")
        if found == name:
            return value
    return ""
