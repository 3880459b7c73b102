"""How many threads PyTorch computes with.

Telling it starts them, so it is told only where they are of use: in a worker before its script runs, and in the model
server once predictions are seen to take long. Until then it has one, from the environment of the process.
"""

import os
import threading

import torch

SLOW_S = 0.002
SLOW_CALLS = 3  # the first ones compile, and say nothing


def available(vcpus: int) -> int:
    """The machine may have fewer processors than the instance type says."""
    return min(vcpus, len(os.sched_getaffinity(0)))


def use_threads(count: int) -> None:
    if count > 1:
        torch.set_num_threads(count)


class Widening:
    """Gives a thread of the server more threads to compute with when what it runs is slow. PyTorch counts by thread.

    Slow is what takes a processor's time: a machine that is busy with others makes nothing faster by more threads.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._slow: dict[int, int] = {}

    def took(self, processor_s: float) -> None:
        if processor_s < SLOW_S or self._threads < 2:
            return
        me = threading.get_ident()
        self._slow[me] = self._slow.get(me, 0) + 1
        if self._slow[me] == SLOW_CALLS:
            torch.set_num_threads(self._threads)
