"""What becomes of an invocation: who is asked next when an instance fails, who gets copies, who is told."""

import pytest

from clary.domain.routes import Capture
from clary.gateway import shadows as shadows_module
from clary.gateway import watching
from clary.gateway.plans import EndpointPlan
from clary.gateway.upstream import Broken
from clary.gateway.watching import Answer, Watch
from clary.wire.heads import Head
from unit.gateway.runtime_world import Noting, World, story, variant

CAPTURE = Capture("s3://bucket/prefix", 100.0)


def test_D02_another_instance_of_the_same_fleet_is_asked_first() -> None:
    async def work() -> None:
        world = World()
        blue, green = (
            variant("A", "b-1", "b-2", fleet="blue", share=0.9),
            variant("A", "g-1", fleet="green", share=0.1),
        )
        world.publish(blue, green, variant("B", "x-1"))
        asked = world.ask()
        for _ in range(2):
            world.sent[-1].break_off(Broken.UNREACHABLE)
        assert [sent.target.instance_id for sent in world.sent] == ["b-1", "b-2", "g-1"]
        world.sent[-1].break_off(Broken.UNREACHABLE)
        assert asked.status == 503  # never by another variant
        assert len(world.sent) == 3

    story(work)


def test_D01_a_fleet_that_is_not_in_force_is_not_asked() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "b-1", fleet="blue"), variant("A", "g-1", fleet="green", share=0.0))
        asked = world.ask()
        world.sent[-1].break_off(Broken.UNREACHABLE)
        assert (asked.status, len(world.sent)) == (503, 1)

    story(work)


def test_D07_an_answer_of_the_other_fleet_counts_for_that_fleet() -> None:
    async def work() -> None:
        world = World()
        world.publish(
            variant("A", "b-1", fleet="blue", share=0.9),
            variant("A", "g-1", fleet="green", share=0.1, config_name="new"),
        )
        world.ask()
        world.sent[-1].break_off(Broken.UNREACHABLE)
        world.sent[-1].answer()
        world.table.flush_meters()
        batch = world.recorder.drain()
        assert batch is not None
        traced = [
            p
            for p in batch.points
            if p.name == "Invocations" and ("EndpointConfigName", "new") in p.dimensions
        ]
        assert [point.sum for point in traced] == [1]

    story(work)


@pytest.mark.parametrize(("may", "asked_in_all"), [(False, 1), (True, 2)])
def test_H10_user_code_is_asked_again_only_where_the_operator_says_so(may: bool, asked_in_all: int) -> None:
    async def work() -> None:
        world = World(retry_user_code=may)
        world.publish(variant("A", "i-1", "i-2", "i-3", retries_elsewhere=False))
        asked = world.ask()
        for _ in range(asked_in_all):
            world.sent[-1].break_off(Broken.LOST)
        assert (asked.status, len(world.sent)) == (503, asked_in_all)

    story(work)


@pytest.mark.parametrize(
    ("is_built_in", "asked"), [(False, ["i-1", "i-1"]), (True, ["i-1", "i-1", "i-2", "i-2"])]
)
def test_H10_a_request_that_kills_instances_does_not_go_from_one_to_the_next(
    is_built_in: bool, asked: list[str]
) -> None:
    """Its connection had been used, and when it ended nobody listens any more: the instance may have seen it."""

    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1", "i-2", "i-3", retries_elsewhere=is_built_in))
        answer = world.ask()
        for _ in asked:
            sent = world.sent[-1]
            sent.break_off(Broken.UNREACHABLE if sent.is_fresh else Broken.STALE)
        assert answer.status == 503
        assert [sent.target.instance_id for sent in world.sent] == asked

    story(work)


def test_H10_an_instance_that_was_never_reached_does_not_count_as_a_second_try() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1", "i-2", "i-3"))
        answer = world.ask()
        for how in (Broken.STALE, Broken.UNREACHABLE, Broken.UNREACHABLE):
            world.sent[-1].break_off(how)
        world.sent[-1].answer()
        assert answer.status == 200
        assert [sent.target.instance_id for sent in world.sent] == ["i-1", "i-1", "i-2", "i-3"]

    story(work)


def test_U03_an_instance_is_not_idle_while_a_request_is_sent_there_anew() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1"))
        world.ask()
        world.publish(variant("A", "i-2"))  # i-1 is drained
        told: list[bool] = []
        world.table.when_idle([world.sent[0].target.instance_id], lambda: told.append(True))
        world.sent[0].break_off(Broken.STALE)
        assert world.sent[1].is_fresh
        assert told == []
        world.sent[1].answer()
        assert told == [True]

    story(work)


def test_H10_an_instance_that_keeps_breaking_is_passed_over() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1", "i-2", retries_elsewhere=False))
        moments = iter(range(10**6))
        for sent in range(3):
            world.ask()
            target = world.sent[-1].target
            assert target.instance_id == "i-1"
            target.upstream.loop = _At(float(next(moments)))  # type: ignore[assignment]
            world.sent[-1].break_off()
            assert len(world.sent) == sent + 1
        assert {(world.ask(), world.sent[-1].target.instance_id)[1] for _ in range(5)} == {"i-2"}
        world.sent[-1].answer(b"its own error", status=500)
        assert world.sent[-1].target.trouble is None
        assert world.metrics()["InstancesPassedOver", "A"].sum == 1

    story(work)


class _At:
    """A loop at one moment."""

    def __init__(self, now: float) -> None:
        self._now = now

    def time(self) -> float:
        return self._now

    def call_later(self, *timer: object) -> None: ...


def test_D08_a_shadow_gets_the_same_request_after_production_and_nobody_sees_its_answer() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1"), shadows=(variant("S", "s-1"),))
        asked = world.ask(b"1,2,3", x_amzn_sagemaker_custom_attributes="a=b")
        production, copy = world.sent
        assert (production.target.instance_id, copy.target.instance_id) == ("i-1", "s-1")
        assert copy.text == production.text
        copy.answer(b"shadow's", status=500)
        assert not asked.status
        production.answer(b"production's")
        assert (asked.status, asked.body) == (200, b"production's")
        got = world.metrics()
        assert (got["Invocations", "S"].sum, got["Invocation5XXErrors", "S"].sum) == (1, 1)
        assert (got["Invocations", "A"].sum, got["Invocation5XXErrors", "A"].sum) == (1, 0)

    story(work)


@pytest.mark.parametrize("how", list(Broken))
def test_D08_however_a_shadow_fails_the_caller_is_answered(how: Broken) -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1"), shadows=(variant("S", "s-1", "s-2"),))
        asked = world.ask()
        copy = world.sent[1]
        copy.break_off(how)
        if how is Broken.STALE:
            assert world.sent[2].is_fresh
            world.sent[2].break_off(Broken.LOST)
        assert len(world.sent) == (3 if how is Broken.STALE else 2)
        world.sent[0].answer()
        assert asked.status == 200
        assert world.metrics()["Invocation5XXErrors", "S"].sum == 1
        assert copy.target.outstanding == 0

    story(work)


def test_D08_a_shadow_s_weight_is_the_fraction_that_is_copied() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1"), shadows=(variant("S", "s-1", weight=0.25),))
        world.chances = [number / 100 for number in range(100)]
        for _ in range(100):
            world.ask()
        assert sum(sent.target.instance_id == "s-1" for sent in world.sent) == 25

    story(work)


def test_D08_what_would_pile_up_at_a_shadow_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows_module, "MOST_UNDER_WAY", 3)
    monkeypatch.setattr(shadows_module, "MOST_BYTES", 100)

    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1"), shadows=(variant("S", "s-1"),))
        for _ in range(5):
            world.ask()
        copies = [sent for sent in world.sent if sent.target.instance_id == "s-1"]
        assert len(copies) == 3
        assert world.metrics()["ShadowInvocationsDropped", "S"].sum == 2
        for copy in copies:
            copy.answer()
        world.ask(b"x" * 101)
        assert world.metrics()["ShadowInvocationsDropped", "S"].sum == 1
        world.ask()
        assert world.sent[-1].target.instance_id == "s-1"
        world.publish(variant("A", "i-1"), shadows=(variant("S"),))  # it has no instance
        world.ask()
        assert world.metrics()["ShadowInvocationsDropped", "S"].sum == 1

    story(work)


def test_D08_a_shadow_cannot_be_named_and_knows_no_sessions() -> None:
    async def work() -> None:
        world = World()
        world.publish(variant("A", "i-1"), shadows=(variant("S", "s-1"),))
        refused = world.ask(x_amzn_sagemaker_target_variant="S")
        assert (refused.status, refused.message) == (
            400,
            "Variant S of endpoint Ep of account 111122223333 not found.",
        )
        world.ask(x_amzn_sagemaker_session_id="NEW_SESSION")
        assert [sent.target.instance_id for sent in world.sent] == ["i-1"]
        world.ask(stream=True)
        assert [sent.target.instance_id for sent in world.sent] == ["i-1", "i-1", "s-1"]

    story(work)


class Sampling:
    """Takes every request that says so, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, bytes]] = []
        self.watch = Noting()

    def __call__(self, endpoint: EndpointPlan, head: Head, body: bytes, request_id: str) -> Watch | None:
        self.asked.append((endpoint.name, head.get(b"x-amzn-sagemaker-inference-id"), body))
        return self.watch if body != b"not this one" else None


def test_G01_a_sampled_request_is_watched_to_its_end() -> None:
    async def work() -> None:
        sampling = Sampling()
        world = World(sampling)
        world.publish(variant("A", "i-1"), shadows=(variant("S", "s-1"),), capture=CAPTURE)
        asked = world.ask(b"in", x_amzn_sagemaker_inference_id="mine")
        assert sampling.asked == [("Ep", b"mine", b"in")]
        assert not sampling.watch.told
        world.sent[0].answer(b"out")
        assert asked.status == 200
        world.sent[1].answer(b"shadow")
        assert sampling.watch.told == [
            ("A", Answer(b"text/csv", b"out")),
            ("S", Answer(b"text/csv", b"shadow")),
        ]
        world.ask(b"not this one")
        world.sent[-2].answer()
        assert len(sampling.watch.told) == 2

    story(work)


def test_G01_what_is_not_captured_is_not_even_asked_for() -> None:
    async def work() -> None:
        sampling = Sampling()
        world = World(sampling)
        world.publish(variant("A", "i-1"), shadows=(variant("S", "s-1"),))
        world.ask()
        assert not sampling.asked

    story(work)


def test_G01_errors_have_no_output() -> None:
    async def work() -> None:
        sampling = Sampling()
        world = World(sampling)
        world.publish(variant("A", "i-1"), capture=CAPTURE)
        world.ask()
        world.sent[-1].answer(b"wrong", status=400)
        for how in (Broken.TIMEOUT, Broken.CUT, Broken.GARBAGE, Broken.LOST):
            world.ask()
            world.sent[-1].break_off(how)
        world.publish(variant("A"), capture=CAPTURE)
        world.ask()
        assert sampling.watch.told == [("A", None)] * 6

    story(work)


@pytest.mark.parametrize("is_stream", [False, True])
def test_G01_an_answer_that_is_passed_on_is_watched_whole(
    is_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MOST_KEPT", 500_000)

    async def work() -> None:
        sampling = Sampling()
        world = World(sampling)
        world.publish(variant("A", "i-1"), capture=CAPTURE)
        parts = [b"a" * 200_000, b"b" * 200_000, b"c"]
        for more in ([], [b"d" * 200_000]):
            asked = world.ask(stream=is_stream)
            world.sent[-1].head()
            for part in (*parts, *more):
                world.sent[-1].waiter.on_body(part)
            world.sent[-1].waiter.on_complete()
            assert asked.is_whole
        whole = Answer(b"text/csv", b"".join(parts))
        assert sampling.watch.told == [("A", whole), ("A", "too long")]
        asked = world.ask(stream=is_stream)
        world.sent[-1].head()
        world.sent[-1].waiter.on_body(b"e" * 300_000)
        assert asked.on_lost is not None
        asked.on_lost()
        assert sampling.watch.told[2:] == [("A", None)]

    story(work)
