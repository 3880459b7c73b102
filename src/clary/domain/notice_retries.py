"""How often, and when, a notice that did not arrive is sent again.

Source: SNS Developer Guide, message delivery retries: retries without delay, some with the least delay, a phase in
which the delay grows, some with the longest.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_S = 3600
MOST_RETRIES = 100

_SHAPES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "arithmetic": lambda x: x * x,
    "geometric": lambda x: x**3,
    "exponential": lambda x: (math.exp(3 * x) - 1) / (math.exp(3) - 1),
}
_NAMES = frozenset(
    (
        "minDelayTarget",
        "maxDelayTarget",
        "numRetries",
        "numNoDelayRetries",
        "numMinDelayRetries",
        "numMaxDelayRetries",
    )
)


class BadPolicy(Exception):
    """The policy cannot be used; the message says why."""


class PolicyNotBuilt(BadPolicy):
    """It is a policy on AWS, and this server does not know that part of it."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What AWS does where nothing is asked for: three times, twenty seconds apart."""

    minDelayTarget: int = 20
    maxDelayTarget: int = 20
    numRetries: int = 3
    numNoDelayRetries: int = 0
    numMinDelayRetries: int = 0
    numMaxDelayRetries: int = 0
    backoffFunction: str = "linear"


def parse_policy(text: str) -> RetryPolicy:
    """Reads a subscription's DeliveryPolicy. Raises `BadPolicy`."""
    if not text:
        return RetryPolicy()
    try:
        given = json.loads(text)
    except ValueError as error:
        raise BadPolicy(f"failed to parse JSON: {error}") from error
    if not isinstance(given, dict):
        raise BadPolicy("it is not an object")
    for name, value in given.items():
        if name != "healthyRetryPolicy" and value:
            raise PolicyNotBuilt(f"the member {name} of a DeliveryPolicy")
    return _checked(given.get("healthyRetryPolicy") or {})


def delays(policy: RetryPolicy) -> list[float]:
    """Seconds before each retry."""
    quick = [0.0] * policy.numNoDelayRetries
    short = [float(policy.minDelayTarget)] * policy.numMinDelayRetries
    long = [float(policy.maxDelayTarget)] * policy.numMaxDelayRetries
    growing = policy.numRetries - len(quick) - len(short) - len(long)
    shape = _SHAPES[policy.backoffFunction]
    span = policy.maxDelayTarget - policy.minDelayTarget
    steps = [policy.minDelayTarget + span * shape(n / max(1, growing - 1)) for n in range(growing)]
    return quick + short + steps + long


def _checked(given: Any) -> RetryPolicy:
    if not isinstance(given, dict):
        raise BadPolicy("healthyRetryPolicy is not an object")
    for name, value in given.items():
        if name == "backoffFunction":
            if value not in _SHAPES:
                raise BadPolicy(f"backoffFunction must be one of {', '.join(_SHAPES)}")
        elif name not in _NAMES:
            raise BadPolicy(f"{name} is not known")
        elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BadPolicy(f"{name} must be a whole number")
    policy = RetryPolicy(**given)
    if not 1 <= policy.minDelayTarget <= policy.maxDelayTarget <= LONGEST_S:
        raise BadPolicy(f"1 <= minDelayTarget <= maxDelayTarget <= {LONGEST_S} must hold")
    if policy.numRetries > MOST_RETRIES:
        raise BadPolicy(f"numRetries must be at most {MOST_RETRIES}")
    if policy.numNoDelayRetries + policy.numMinDelayRetries + policy.numMaxDelayRetries > policy.numRetries:
        raise BadPolicy("numRetries must not be less than the sum of the phases")
    if sum(delays(policy)) > LONGEST_S:
        raise BadPolicy(f"all retries together must not take longer than {LONGEST_S} seconds")
    return policy
