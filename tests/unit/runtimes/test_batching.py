"""What waits is predicted together, nobody waits for more, and a failure stays with the request that caused it."""

import asyncio
import threading
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from clary.runtimes import batching
from clary.runtimes.batching import Batcher
from clary.runtimes.contract import InvocationHead, InvocationRequest, InvocationResponse, Limits

HEAD = InvocationHead("text/plain", None, "", ())


class Echo:
    """Answers with the body in capitals; fails on `bad`, in the way it is told to."""

    limits = Limits(1 << 20)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: set[int] = set()

    def predict(self, batch: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        self.batches.append(len(batch))
        self.threads.add(threading.get_ident())
        if any(request.body == b"bad" for request in batch):
            raise ValueError("no good")
        if any(request.body == b"short" for request in batch):
            return []
        return [InvocationResponse(200, "text/plain", request.body.upper()) for request in batch]


def answers(model: Echo, bodies: Sequence[bytes], workers: int = 1) -> list[InvocationResponse]:
    async def ask() -> list[InvocationResponse]:
        loop = asyncio.get_running_loop()
        batcher = Batcher(loop, model, workers)
        futures = [loop.create_future() for _ in bodies]
        for body, future in zip(bodies, futures):
            batcher.submit([InvocationRequest(HEAD, body)], future.set_result)
        found = [responses[0] for responses in await asyncio.gather(*futures)]
        batcher.close()
        return found

    return asyncio.run(ask())


def test_what_waits_is_predicted_in_one_call_on_the_loop() -> None:
    model = Echo()
    bodies = [b"a%d" % n for n in range(50)]
    assert [response.body for response in answers(model, bodies)] == [body.upper() for body in bodies]
    assert model.batches == [50]
    assert model.threads == {threading.get_ident()}


@given(st.lists(st.lists(st.binary(min_size=1, max_size=50_000), min_size=1, max_size=5), max_size=6))
@settings(max_examples=30, deadline=None)
def test_each_group_gets_its_own_answers_in_order(groups: list[list[bytes]]) -> None:
    async def ask() -> list[list[bytes]]:
        loop = asyncio.get_running_loop()
        batcher = Batcher(loop, Echo(), 2)
        futures = [loop.create_future() for _ in groups]
        for group, future in zip(groups, futures):
            batcher.submit([InvocationRequest(HEAD, body) for body in group], future.set_result)
        found = [[response.body for response in await future] for future in futures]
        batcher.close()
        return found

    assert asyncio.run(ask()) == [[body.upper() for body in group] for group in groups]


def test_a_single_request_is_answered_alone() -> None:
    model = Echo()
    assert answers(model, [b"x"])[0].body == b"X"
    assert model.batches == [1]


def test_large_requests_leave_the_loop_free() -> None:
    model = Echo()
    bodies = [b"x" * (batching.LARGEST_INLINE_BYTES + 1) for _ in range(3)]
    assert [len(response.body) for response in answers(model, bodies)] == [len(body) for body in bodies]
    assert threading.get_ident() not in model.threads


def test_a_worker_takes_no_more_than_one_large_batch_at_a_time() -> None:
    model = Echo()
    bodies = [b"x" * (batching.LARGEST_BATCH_BYTES // 2) for _ in range(5)]
    assert all(response.status == 200 for response in answers(model, bodies, workers=2))
    assert sorted(model.batches) == [1, 2, 2]


def test_an_exception_fails_only_the_request_that_causes_it() -> None:
    found = answers(Echo(), [b"a", b"bad", b"b"])
    assert [response.status for response in found] == [200, 500, 200]
    assert b"no good" in found[1].body


def test_a_model_that_loses_answers_is_found_out() -> None:
    found = answers(Echo(), [b"a", b"short"])
    assert [response.status for response in found] == [200, 500]


def test_too_much_waiting_is_refused_at_once() -> None:
    found = answers(Echo(), [b"a"] * (batching.MOST_WAITING_REQUESTS + 3))
    statuses = [response.status for response in found]
    assert statuses == [200] * batching.MOST_WAITING_REQUESTS + [503] * 3
