"""How far each step of a deployment goes, in instances.

Of every variant, `activated` instances of the new fleet take traffic, and in a rolling update `retained` ones of the
old fleet stay. Every variant moves by its own steps; one that only the old fleet has follows all the others together.
"""

from collections.abc import Mapping

from clary.domain.deployments import DeploymentPolicy
from clary.domain.endpoints import Fleet

Counts = Mapping[str, int]


def next_activation(policy: DeploymentPolicy, fleet: Fleet, activated: Counts) -> dict[str, int]:
    """How many instances of the new fleet take traffic after the next step."""
    whole = counts(fleet)
    is_canary_due = policy.strategy == "CANARY" and not any(activated.values())
    if policy.step is None or not (is_canary_due or policy.strategy in ("LINEAR", "ROLLING")):
        return whole
    return {name: min(count, activated.get(name, 0) + policy.step.of(count)) for name, count in whole.items()}


def is_whole(fleet: Fleet, activated: Counts) -> bool:
    return all(activated.get(name, 0) >= count for name, count in counts(fleet).items())


def retained(old: Fleet, new: Fleet, activated: Counts) -> dict[str, int]:
    """A rolling update: how many old instances stay beside so many new ones. Together never fewer than the
    smaller of the two fleets has, and never an old one less than its share of the traffic needs."""
    total = sum(counts(new).values())
    done = sum(min(activated.get(name, 0), count) for name, count in counts(new).items())
    kept = {}
    for name, count in counts(old).items():
        theirs = new.variant(name)
        of, moved = (theirs.count, activated.get(name, 0)) if theirs else (total, done)
        kept[name] = _round_up(count * (of - min(moved, of)), of)
    return kept


def restored(policy: DeploymentPolicy, old: Fleet, kept: Counts) -> dict[str, int]:
    """The next step back: old instances that are wanted again. Without a step, all of them."""
    step = policy.rollback_step
    return {
        name: count if step is None else min(count, kept.get(name, count) + step.of(count))
        for name, count in counts(old).items()
    }


def still_activated(old: Fleet, new: Fleet, activated: Counts, kept: Counts) -> dict[str, int]:
    """On the way back: how many new instances go on when so many old ones are there again."""
    total = sum(counts(old).values())
    back = sum(kept.get(name, count) for name, count in counts(old).items())
    left = {}
    for name, count in counts(new).items():
        theirs = old.variant(name)
        of, there = (theirs.count, kept.get(name, theirs.count)) if theirs else (total, back)
        left[name] = min(activated.get(name, 0), count * (of - min(there, of)) // of)
    return left


def counts(fleet: Fleet) -> dict[str, int]:
    return {variant.name: variant.count for variant in fleet.variants}


def _round_up(part: int, of: int) -> int:
    return -(-part // of)
