"""Which targets are passed over for a while because their connections keep failing. Pure: time is handed in.

    in rotation ── MOST_FAILURES in a row ──▶ passed over for a pause ──▶ on trial: back in rotation
         ▲                                          ▲                         │ the next request goes there, alone
         └───────── any answer ─────────────────────┼── it fails: twice the ──┴─▶ trying
                                                    └─ pause, up to LONGEST_PAUSE_S

A failure is a connection that cannot be made, breaks, or brings no answer in time; what a model answers, an error too,
is an answer. Control finds dead instances on its own and takes them out of the route: this only bridges the time
until then, and instances that look alive and are not. At least half of a fleet's targets stay in rotation: when all
of them are too slow, sending everything to a few would finish them. So the only target of a fleet is never passed
over, and a canary's failures stay visible.
"""

from typing import Literal

MOST_FAILURES = 3
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0

Stage = Literal["counted", "passed over", "on trial", "trying"]


class Trouble:
    """What is wrong with one target since its last answer. Made at its first failure, gone with its next answer."""

    __slots__ = ("_last_at", "_since", "failures", "pause_s", "stage")

    def __init__(self) -> None:
        self.stage: Stage = "counted"
        self.failures = 0
        self.pause_s = 0.0
        self._last_at = float("-inf")
        self._since = float("-inf")

    def failed(self, sent: float, now: float) -> bool:
        """Counts the failure of a request that was sent then; whether the target should be passed over now.

        Failures at one moment are one: a connection may have carried many requests. Requests that were sent before
        the target was passed over tell nothing new.
        """
        if now == self._last_at or sent < self._since or self.stage == "passed over":
            return False
        self._last_at = now
        self.failures += 1
        return self.stage == "trying" or self.failures >= MOST_FAILURES

    def pass_over(self, now: float) -> float:
        """For how long the target is passed over, from now on."""
        self.pause_s = min(self.pause_s * 2, LONGEST_PAUSE_S) if self.pause_s else FIRST_PAUSE_S
        self.stage = "passed over"
        self._since = now
        return self.pause_s
