"""Calls of a multi-model endpoint: where they go, what waits for a load, what becomes of each way it can fail."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from clary.domain.routes import Capture, VariantRoute
from clary.gateway.models import ASK_S, LONGEST_WAIT_S
from clary.gateway.models_book import BUSY
from clary.gateway.upstream import Broken
from clary.links.hosts import HostError, HostUnavailable, LoadedModel
from unit.gateway.runtime_world import KEY, AskedOfHost, Noting, Sent, World, story, variant

PREFIX = "s3://models/flats/"


def many(name: str = "A", *instances: str, **more: Any) -> VariantRoute:
    return variant(name, *(instances or ("i-1",)), models=PREFIX, **more)


async def turn() -> None:
    """What is under way goes as far as it can."""
    for _ in range(8):
        await asyncio.sleep(0)


def name_of(asked: AskedOfHost) -> str:
    return f"{asked.arguments.target_model}-opaque".replace("/", "-")


async def loaded(asked: AskedOfHost, *, was_loaded: bool = False, runs_script: bool = False) -> None:
    asked.answer.set_result(LoadedModel(name_of(asked), was_loaded, runs_script))
    await turn()


async def refused(asked: AskedOfHost, error: Exception) -> None:
    asked.answer.set_exception(error)
    await turn()


def line(sent: Sent) -> str:
    return sent.text.partition("\r\n")[0]


async def warm(world: World, model: str, **answer: Any) -> None:
    """Calls the model once, so that it is loaded."""
    asked = world.ask(x_amzn_sagemaker_target_model=model)
    await turn()
    await loaded(world.host.of("load_model")[-1], **answer)
    world.sent[-1].answer()
    assert asked.status == 200


def test_M01_M02_the_first_call_has_the_model_loaded_and_later_ones_go_there_at_once() -> None:
    async def work() -> None:
        world = World()
        world.publish(many())
        first = world.ask(x_amzn_sagemaker_target_model="a/nyc.tar.gz")
        await turn()
        (load,) = world.host.of("load_model")
        assert (load.arguments.instance_id, load.arguments.target_model) == ("i-1", "a/nyc.tar.gz")
        assert world.sent == []
        assert world.table.outstanding == 1  # the instance is not stopped meanwhile
        await loaded(load)
        assert line(world.sent[0]) == "POST /models/a-nyc.tar.gz-opaque/invoke HTTP/1.1"
        assert "x-amzn-sagemaker-target-model: a/nyc.tar.gz\r\n" in world.sent[0].text
        world.sent[0].answer(b"7.5")
        assert (first.status, first.body) == (200, b"7.5")
        again = world.ask(x_amzn_sagemaker_target_model="a/nyc.tar.gz")
        world.sent[1].answer(b"7.5")
        assert again.status == 200
        assert len(world.host.of("load_model")) == 1
        assert world.table.outstanding == 0

    story(work)


def test_M01_a_target_model_is_the_key_that_its_characters_spell() -> None:
    async def work() -> None:
        world = World()
        world.publish(many())
        asked = world.ask(x_amzn_sagemaker_target_model="prix/été_日本.tar.gz")
        await turn()
        (load,) = world.host.of("load_model")
        assert load.arguments.target_model == "prix/été_日本.tar.gz"
        await loaded(load)
        assert "x-amzn-sagemaker-target-model: prix/été_日本.tar.gz\r\n" in world.sent[0].text
        world.sent[0].answer()
        assert asked.status == 200

    story(work)


def test_M02_a_thousand_first_calls_are_one_load_and_a_thousand_answers() -> None:
    async def work() -> None:
        world = World()
        world.publish(many("A", "i-1", "i-2", "i-3"))
        asked = [world.ask(x_amzn_sagemaker_target_model="m.tar.gz") for _ in range(1000)]
        await turn()
        (load,) = world.host.of("load_model")
        await loaded(load)
        assert len(world.sent) == 1000
        for sent in list(world.sent):
            sent.answer()
        assert Counter(each.status for each in asked) == {200: 1000}
        assert world.table.outstanding == 0

    story(work)


def test_M02_a_load_that_hangs_holds_up_nobody_else() -> None:
    async def work() -> None:
        world = World()
        world.publish(many())
        stuck = world.ask(x_amzn_sagemaker_target_model="stuck.tar.gz")
        quick = world.ask(x_amzn_sagemaker_target_model="quick.tar.gz")
        await turn()
        await loaded(world.host.of("load_model")[1])
        world.sent[0].answer()
        assert (stuck.status, quick.status) == (0, 200)

    story(work)


def test_M02_who_waited_too_long_is_told_to_try_again_and_the_others_wait_on() -> None:
    async def work() -> None:
        world = World()
        world.publish(many())
        first = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        await turn()
        world.runtime.models._loop = later = Later(world.runtime.models._loop)  # type: ignore[assignment]
        second = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        calls = waiters(world)
        later.now = calls[0].waits_until
        calls[1]._received += 30.0
        await refused(world.host.of("load_model")[0], HostError("ModelTimeout", "not yet"))
        assert first.status == 429
        assert "ModelNotReadyException" in first.fields.decode() + first.body.decode()
        assert second.status == 0
        assert world.host.of("load_model")[1].arguments.timeout_s == ASK_S
        await loaded(world.host.of("load_model")[1])
        world.sent[0].answer()
        assert second.status == 200
        assert world.table.outstanding == 0

    story(work)


def test_M02_a_host_without_a_turn_for_a_model_is_one_that_still_loads_it() -> None:
    async def work() -> None:
        world = World()
        world.publish(many())
        asked = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        await turn()
        waiters(world)[0]._received -= LONGEST_WAIT_S
        await refused(world.host.of("load_model")[0], HostUnavailable("it did not answer in 65 s"))
        assert asked.status == 429

    story(work)


def waiters(world: World) -> list[Any]:
    """The calls that wait for m.tar.gz."""
    plan = world.table.find(KEY)
    assert plan is not None
    book = plan.variants["A"].plans[0].targets[0].book
    assert book is not None
    return list(book.loading["m.tar.gz"].waiters)


class Later:
    """A loop whose clock a test sets."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = loop.time()

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


@pytest.mark.parametrize(
    ("error", "status", "words", "counted"),
    [
        (HostError("ModelMissing", "nothing there"), 400,
         "Failed to download model data(bucket: models, key: flats/m.tar.gz)", "Invocation4XXErrors"),
        (HostError("ModelDenied", "no"), 400, "has permissions to download", "Invocation4XXErrors"),
        (HostError("ModelInvalid", "no xgboost-model in it"), 424,
         'Received server error (500) from primary with message "no xgboost-model in it"', "Invocation5XXErrors"),
        (HostError("NoRoom", "it needs 9 GB"), 424, "Received server error (507)", "Invocation5XXErrors"),
        (HostError("InstanceEnded", "it ended in between"), 503, "could not be loaded: it ended in between",
         "Invocation5XXErrors"),
        (HostError("Internal", "KeyError: 1"), 503, "could not be loaded: KeyError: 1", "Invocation5XXErrors"),
        (HostUnavailable("no host"), 503, "is not loaded, and the process that loads models is not there",
         "Invocation5XXErrors"),
    ],
)  # fmt: skip
def test_M01_a_model_that_cannot_be_loaded_is_refused_with_its_reason(
    error: Exception, status: int, words: str, counted: str
) -> None:
    async def work() -> None:
        world = World()
        world.publish(many("A", "i-1", "i-2"))
        asked = [world.ask(x_amzn_sagemaker_target_model="m.tar.gz") for _ in range(3)]
        await turn()
        (load,) = world.host.of("load_model")
        await refused(load, error)
        assert [each.status for each in asked] == [status] * 3
        assert words in asked[0].message
        assert world.sent == []
        assert world.table.outstanding == 0
        metrics = world.metrics()
        assert (metrics[counted, "A"].sum, metrics["Invocations", "A"].sum) == (3, 3)
        world.ask(x_amzn_sagemaker_target_model="m.tar.gz")  # nothing is held against it: it may be there now
        await turn()
        await loaded(world.host.of("load_model")[1])
        assert len(world.sent) == 1

    story(work)


def test_M01_known_models_are_called_while_there_is_no_host() -> None:
    async def work() -> None:
        world = World()
        world.publish(many())
        await warm(world, "m.tar.gz")
        other = world.ask(x_amzn_sagemaker_target_model="other.tar.gz")
        await turn()
        await refused(world.host.of("load_model")[1], HostUnavailable("no host"))
        assert other.status == 503
        known = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        world.sent[-1].answer()
        assert known.status == 200

    story(work)


def test_M02_a_model_that_was_unloaded_is_loaded_again_and_called_again() -> None:
    async def work() -> None:
        world = World()
        world.publish(many(retries_elsewhere=False))
        await warm(world, "m.tar.gz")
        asked = [world.ask(x_amzn_sagemaker_target_model="m.tar.gz") for _ in range(3)]
        for sent in world.sent[1:4]:
            sent.answer(b"no such model", 404)
        await turn()
        assert len(world.host.of("load_model")) == 2
        assert world.table.outstanding == 3
        await loaded(world.host.of("load_model")[1])
        for sent in world.sent[4:7]:
            sent.answer(b"2.5")
        assert [(each.status, each.body) for each in asked] == [(200, b"2.5")] * 3
        assert world.table.outstanding == 0
        metrics = world.metrics()
        assert (metrics["ModelCacheHit", "A"].count, metrics["ModelCacheHit", "A"].sum) == (4, 0)
        assert metrics["Invocations", "A"].sum == 4

    story(work)


def test_M02_a_404_of_a_model_that_is_loaded_is_its_own_answer() -> None:
    async def work() -> None:
        world = World()
        world.publish(many())
        await warm(world, "m.tar.gz")
        asked = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        for _ in range(2):
            world.sent[-1].answer(b"no such flat", 404)
            await turn()
            await loaded(world.host.of("load_model")[-1], was_loaded=True)
        world.sent[-1].answer(b"no such flat", 404)
        assert asked.status == 424
        assert 'Received client error (404) from primary with message "no such flat"' in asked.message
        assert len(world.host.of("load_model")) == 3

    story(work)


def test_M02_a_404_that_our_own_server_does_not_speak_of_is_the_model_s() -> None:
    async def work() -> None:
        world = World()
        world.publish(many(pipelines=True))
        asked = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        await turn()
        await loaded(world.host.of("load_model")[0], runs_script=True)
        world.sent[-1].answer(b"no such flat", 404)
        assert asked.status == 424
        assert len(world.sent) == 1  # code of the user's ran once
        again = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        world.sent[-1].answer(b"Model not found: m.tar.gz-opaque", 404)
        await turn()
        await loaded(world.host.of("load_model")[1], runs_script=True)
        world.sent[-1].answer()
        assert again.status == 200

    story(work)


def test_M02_the_host_is_asked_for_a_short_time_and_again() -> None:
    """Its turns are for all models: those whose load hangs give theirs back."""

    async def work() -> None:
        world = World()
        world.publish(many())
        asked = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        await turn()
        for number in range(5):
            ask = world.host.of("load_model")[number]
            assert ask.arguments.timeout_s <= ASK_S
            await refused(ask, HostError("ModelTimeout", "not yet"))
            assert asked.status == 0
        await loaded(world.host.of("load_model")[5], was_loaded=True)  # meanwhile, and by this call
        world.sent[0].answer()
        assert asked.status == 200
        assert world.metrics()["ModelCacheHit", "A"].sum == 0

    story(work)


def test_M02_a_model_that_goes_as_often_as_it_is_loaded_does_not_go_on_for_ever() -> None:
    async def work() -> None:
        world = World()
        world.publish(many())
        asked = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        for _ in range(10):
            await turn()
            (call,) = waiters(world)
            await loaded(world.host.of("load_model")[-1])
            world.sent[-1].answer(b"gone", 404)
        await turn()
        call._received -= LONGEST_WAIT_S
        await loaded(world.host.of("load_model")[-1])
        assert asked.status == 429
        assert len(world.sent) == 10
        assert world.table.outstanding == 0

    story(work)


def test_M02_no_memory_to_answer_with_has_the_model_unloaded_and_loaded_once() -> None:
    async def work() -> None:
        world = World()
        world.publish(many())
        await warm(world, "m.tar.gz")
        asked = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        world.sent[1].answer(b"out of memory", 507)
        await turn()
        (unload,) = world.host.of("unload_models")
        assert unload.arguments.names == ("m.tar.gz-opaque",)
        assert len(world.host.of("load_model")) == 1  # the load waits for it
        unload.answer.set_result(None)
        await turn()
        await loaded(world.host.of("load_model")[1])
        world.sent[2].answer(b"out of memory", 507)
        assert asked.status == 424
        assert "Received server error (507)" in asked.message
        assert world.table.outstanding == 0

    story(work)


def test_M02_without_a_cache_a_model_goes_with_its_last_call() -> None:
    async def work() -> None:
        world = World()
        world.publish(many(keeps_models=False))
        for _ in range(2):
            world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        await turn()
        await loaded(world.host.of("load_model")[0])
        world.sent[0].answer()
        await turn()
        assert world.host.of("unload_models") == []
        world.sent[1].break_off(Broken.TIMEOUT)
        await turn()
        assert len(world.host.of("unload_models")) == 1
        asked = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        await turn()
        assert len(world.host.of("load_model")) == 1
        world.host.of("unload_models")[0].answer.set_result(None)
        await turn()
        await loaded(world.host.of("load_model")[1])
        world.sent[2].answer()
        assert asked.status == 200

    story(work)


def test_M01_each_model_has_its_instance_and_one_in_demand_has_more() -> None:
    async def work() -> None:
        world = World()
        world.publish(many("A", "i-1", "i-2", "i-3", "i-4"))

        def called(model: str) -> str:
            world.ask(x_amzn_sagemaker_target_model=model)
            return ""

        for number in range(40):
            called(f"m{number}")
        await turn()
        homes = {
            load.arguments.target_model: load.arguments.instance_id for load in world.host.of("load_model")
        }
        assert len(set(homes.values())) == 4
        for load in world.host.of("load_model"):
            await loaded(load)
        for sent in list(world.sent):
            assert sent.target.instance_id == homes[sent.text.split("/models/")[1].split("-opaque")[0]]
            sent.answer()
        world.sent.clear()
        for _ in range(BUSY + 1):
            called("m0")
        assert {sent.target.instance_id for sent in world.sent} == {homes["m0"]}
        called("m0")
        await turn()
        second = world.host.of("load_model")[-1].arguments
        assert second.target_model == "m0"
        assert second.instance_id != homes["m0"]

    story(work)


def test_M01_an_instance_that_goes_takes_only_its_own_models_with_it() -> None:
    async def work() -> None:
        world = World()
        world.publish(many("A", "i-1", "i-2", "i-3"))
        for number in range(30):
            await warm(world, f"m{number}")
        homes = {
            load.arguments.target_model: load.arguments.instance_id for load in world.host.of("load_model")
        }
        world.publish(many("A", "i-1", "i-2"))
        world.host.asked.clear()
        for number in range(30):
            world.ask(x_amzn_sagemaker_target_model=f"m{number}")
        await turn()
        again = {load.arguments.target_model for load in world.host.of("load_model")}
        assert again == {model for model, home in homes.items() if home == "i-3"}

    story(work)


def test_H10_an_instance_that_breaks_off_is_replaced_by_one_that_loads_the_model() -> None:
    async def work() -> None:
        world = World()
        world.publish(many("A", "i-1", "i-2"))
        await warm(world, "m.tar.gz")
        asked = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        world.sent[1].break_off(Broken.LOST)
        await turn()
        first, second = (each.arguments.instance_id for each in world.host.of("load_model"))
        assert first != second
        await loaded(world.host.of("load_model")[1])
        assert world.sent[2].target.instance_id == second
        world.sent[2].answer()
        assert asked.status == 200
        assert world.table.outstanding == 0

    story(work)


def test_H10_a_model_s_own_script_is_not_asked_again() -> None:
    async def work() -> None:
        world = World()
        world.publish(many("A", "i-1", "i-2", pipelines=True))
        asked = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        await turn()
        await loaded(world.host.of("load_model")[0], runs_script=True)
        (sent,) = world.sent  # on a connection of its own
        sent.break_off(Broken.LOST)
        assert (asked.status, len(world.sent)) == (503, 1)
        assert len(world.host.of("load_model")) == 1

    story(work)


def test_H10_an_instance_that_is_gone_before_the_load_is_no_reason_to_fail() -> None:
    async def work() -> None:
        world = World()
        world.publish(many("A", "i-1", "i-2"))
        asked = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        await turn()
        await refused(world.host.of("load_model")[0], HostError("InstanceMissing", "gone"))
        await loaded(world.host.of("load_model")[1])
        world.sent[0].answer()
        assert asked.status == 200
        assert world.table.outstanding == 0

    story(work)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("", "is missing a target model header."),
        ("/etc/passwd", "begins with a slash"),
        ("a/../../b.tar.gz", "a part that is . or .."),
        ("a/", "names no object"),
        ("a\x01b", "cannot be printed"),
        ("a" * 1025, "at 'targetModel' failed to satisfy constraint: Member must have length less than or equal to"),
    ],
)  # fmt: skip
def test_M01_what_cannot_be_a_model_s_name_is_refused(model: str, words: str) -> None:
    async def work() -> None:
        world = World()
        world.publish(many())
        asked = world.ask(x_amzn_sagemaker_target_model=model)
        assert asked.status == 400
        assert words in asked.message
        await turn()
        assert world.host.asked == []

    story(work)


def test_M01_a_request_says_which_model_or_is_refused_and_so_is_one_that_should_not() -> None:
    async def work() -> None:
        world = World()
        world.publish(many())
        asked = world.ask()
        assert asked.status == 400
        assert (
            asked.message == f"Request {asked.header('x-amzn-requestid')} is missing a target model header."
        )
        assert "InvokeEndpointWithResponseStream" in world.ask(stream=True).message
        world.publish(variant("A", "i-1"))
        asked = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        assert "TARGET_MODEL_HEADER_NOT_SUPPORTED" in asked.body.decode()

    story(work)


def test_H12_target_variants_keys_and_captures_go_with_target_models() -> None:
    async def work() -> None:
        noting = Noting()
        world = World(lambda endpoint, head, body, request_id: noting)
        capture = Capture("s3://b/p", 100.0)
        world.publish(many("A", "i-1", "i-2", "i-3"), many("B", "x-1", weight=0.0), capture=capture)
        named = world.ask(x_amzn_sagemaker_target_variant="B", x_amzn_sagemaker_target_model="m.tar.gz")
        await turn()
        assert world.host.of("load_model")[0].arguments.instance_id == "x-1"
        await loaded(world.host.of("load_model")[0])
        world.sent[0].answer(b"3")
        assert named.header("x-Amzn-Invoked-Production-Variant") == "B"
        assert noting.told[0][0] == "B"
        for user in range(12):
            world.ask(x_clary_sticky_key=f"user-{user}", x_amzn_sagemaker_target_model="m.tar.gz")
        await turn()
        where = {load.arguments.instance_id for load in world.host.of("load_model")[1:]}
        assert where == {"i-1", "i-2", "i-3"}  # the user decides, not the model

    story(work)


def test_D08_copies_name_the_model_and_the_shadow_loads_it_by_itself() -> None:
    async def work() -> None:
        world = World()
        world.publish(many(), shadows=(many("S", "s-1"),))
        asked = world.ask(x_amzn_sagemaker_target_model="m.tar.gz")
        await turn()
        mine, copys = world.host.of("load_model")
        assert (mine.arguments.instance_id, copys.arguments.instance_id) == ("i-1", "s-1")
        await loaded(mine)
        world.sent[0].answer()
        assert asked.status == 200
        await loaded(copys)
        assert "/models/m.tar.gz-opaque/invoke" in line(world.sent[1])
        world.sent[1].answer()
        world.ask(x_amzn_sagemaker_target_model="absent")
        await turn()
        await refused(world.host.of("load_model")[3], HostError("ModelMissing", "nothing"))
        assert world.table.outstanding == 1  # the request itself
        metrics = world.metrics()
        assert metrics["Invocations", "S"].sum == 2
        assert metrics["Invocation5XXErrors", "S"].sum == 1

    story(work)


def test_M02_the_host_is_told_of_uses_together_and_again_when_it_was_away() -> None:
    async def work() -> None:
        world = World()
        world.publish(many())
        await warm(world, "a")
        await warm(world, "b")
        world.ask(x_amzn_sagemaker_target_model="a")
        world.models.tell()
        await turn()
        (told,) = world.host.of("use_models")
        assert {(use.name, use.calls) for use in told.arguments.uses} == {("a-opaque", 2), ("b-opaque", 1)}
        world.ask(x_amzn_sagemaker_target_model="a")
        told.answer.set_exception(HostUnavailable("away"))
        await turn()
        world.models.tell()
        await turn()
        told = world.host.of("use_models")[1]
        assert {(use.name, use.calls) for use in told.arguments.uses} == {("a-opaque", 3), ("b-opaque", 1)}
        told.answer.set_result(None)
        await turn()
        world.models.tell()
        await turn()
        assert len(world.host.of("use_models")) == 2

    story(work)


def test_M04_what_waited_and_what_was_there_is_measured() -> None:
    async def work() -> None:
        world = World()
        world.publish(many(), variant("B", "b-1", weight=0.0))
        await warm(world, "a")
        await warm(world, "b", was_loaded=True)
        world.ask(x_amzn_sagemaker_target_model="a")
        world.sent[-1].answer()
        metrics = world.metrics()
        hits = metrics["ModelCacheHit", "A"]
        assert (hits.namespace, hits.unit, hits.count, hits.sum) == ("AWS/SageMaker", "None", 3, 2)
        waited = metrics["ModelLoadingWaitTime", "A"]
        assert (waited.namespace, waited.unit, waited.count) == ("AWS/SageMaker", "Microseconds", 1)
        assert ("ModelCacheHit", "B") not in metrics

    story(work)


def test_U03_while_an_update_moves_traffic_each_fleet_has_its_own_models() -> None:
    async def work() -> None:
        world = World()
        blue = many("A", "b-1", fleet="blue")
        world.publish(blue)
        await warm(world, "m")
        green = variant("A", "g-1", fleet="green", models="s3://other/", share=1.0)
        world.publish(green)
        world.ask(x_amzn_sagemaker_target_model="m")
        await turn()
        assert world.host.of("load_model")[-1].arguments.instance_id == "g-1"
        plain = variant("A", "p-1", fleet="plain", share=0.0)
        world.publish(green, plain)
        await loaded(world.host.of("load_model")[-1])
        world.sent[-1].break_off(Broken.UNREACHABLE)
        assert len(world.sent) == 2  # never to a fleet without models

    story(work)
