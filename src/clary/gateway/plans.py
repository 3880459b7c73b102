"""Routes made ready for use: everything an invocation needs is computed when a route changes.

A variant's name stands in a route twice while a deployment moves traffic, once for each fleet. `share` divides the
name's traffic between them; a fleet with a share of 0 takes none, whatever happens, because it is not proven yet.
"""

from collections.abc import Callable, Sequence
from logging import getLogger
from typing import Final

from clary.domain.routes import EndpointRoute, Target, VariantRoute
from clary.gateway import session_ids
from clary.gateway.balance import Chance, Weighted
from clary.gateway.health import Trouble
from clary.gateway.meters import PASSED_OVER, Meter
from clary.gateway.models_book import Book, Places
from clary.gateway.pipeline import Pipelines
from clary.gateway.upstream import Upstream

log = getLogger(__name__)


class Hop:
    """One container of an instance whose requests go through several."""

    __slots__ = ("pipelines", "request_line", "upstream")

    def __init__(self, token: str, upstream: Upstream, pipelines: Pipelines) -> None:
        self.upstream = upstream
        self.pipelines = pipelines
        self.request_line: Final = b"POST /invocations HTTP/1.1\r\nhost: localhost\r\n" + (
            f"authorization: Bearer {token}\r\n".encode() if token else b""
        )

    def close(self) -> None:
        self.upstream.close()
        self.pipelines.close()


class TargetState:
    """One address that takes traffic, with the requests this gateway has outstanding there."""

    __slots__ = (
        "book",
        "hops",
        "instance_id",
        "mark",
        "on_idle",
        "outstanding",
        "pipelines",
        "plan",
        "request_line",
        "trouble",
        "upstream",
    )

    def __init__(
        self, target: Target, upstream: Upstream, pipelines: Pipelines, hops: Sequence[Hop] = ()
    ) -> None:
        self.instance_id = target.instance_id
        self.hops = hops  # the containers that a request goes through, when there are several
        self.mark: Final = session_ids.mark(target.instance_id)
        self.upstream = upstream
        self.pipelines = pipelines
        self.outstanding = 0
        self.trouble: Trouble | None = None
        self.book: Book | None = None  # of a multi-model instance
        self.plan: VariantPlan | None = None  # the newest
        self.on_idle: Callable[[TargetState], None] | None = None
        self.request_line: Final = b"POST /invocations HTTP/1.1\r\nhost: localhost\r\n" + (
            f"authorization: Bearer {target.token}\r\n".encode() if target.token else b""
        )

    def release(self) -> None:
        """A request there has ended."""
        self.outstanding -= 1
        if self.on_idle is not None and not self.outstanding:
            self.on_idle(self)

    def close(self) -> None:
        """Keeps no idle connections any more."""
        self.upstream.close()
        self.pipelines.close()
        for hop in self.hops:
            hop.close()

    # Its health. `trouble` is looked at before any of these is called: an invocation pays for nothing else.

    @property
    def is_in_rotation(self) -> bool:
        return self.trouble is None or self.trouble.stage in ("counted", "on trial")

    def sent(self) -> None:
        """A request goes to a target in trouble: if it is on trial, that one decides, and no other goes there."""
        trouble, plan = self.trouble, self.plan
        if trouble is not None and trouble.stage == "on trial" and plan is not None and plan.take_out(self):
            trouble.stage = "trying"

    def answered(self) -> None:
        """It works."""
        trouble, self.trouble = self.trouble, None
        if trouble is not None and trouble.stage in ("passed over", "on trial", "trying"):
            log.info("an instance answers again", extra={"instance": self.instance_id})
            if self.plan is not None:
                self.plan.take_in(self)

    def failed(self, sent: float) -> None:
        """A request that was sent then got no answer."""
        trouble = self.trouble = self.trouble or Trouble()
        now = self.upstream.loop.time()
        plan = self.plan
        if not trouble.failed(sent, now) or plan is None or not plan.take_out(self):
            return
        pause_s = trouble.pass_over(now)
        plan.meter.count(PASSED_OVER)
        log.warning(
            "an instance is passed over: its connections fail",
            extra={"instance": self.instance_id, "failures": trouble.failures, "pause_s": pause_s},
        )
        self.upstream.loop.call_later(pause_s, self._try_again, trouble)

    def _try_again(self, trouble: Trouble) -> None:
        if trouble is self.trouble and self.plan is not None:
            trouble.stage = "on trial"
            self.plan.take_in(self)


class VariantPlan:
    """One variant of one fleet, ready to be chosen and answered for. `taking` are the targets in rotation.

    Where callers name one of several containers, `by_container` has a plan for each, with its addresses as targets.
    """

    __slots__ = (
        "by_container",
        "container",
        "containers",
        "fields",
        "fleet",
        "is_named",
        "keeps_models",
        "meter",
        "models",
        "name",
        "pipelines",
        "places",
        "retries_elsewhere",
        "routing",
        "share",
        "taking",
        "targets",
        "weight",
    )

    def __init__(
        self, route: VariantRoute, targets: list[TargetState], meter: Meter, *, retries_elsewhere: bool
    ) -> None:
        self.name = route.name
        self.fleet = route.fleet
        self.share = route.share
        self.weight = route.weight
        self.container = route.container
        self.containers = route.containers
        self.by_container: dict[str, VariantPlan] = {}
        self.is_named = route.is_direct and not route.containers  # one of those of another plan
        self.routing = route.routing
        self.retries_elsewhere = retries_elsewhere
        self.pipelines = route.pipelines
        self.targets = targets
        self.models = route.models
        self.keeps_models = route.keeps_models
        self.places = Places(targets)  # where calls of each of its models go
        in_rotation = [each for each in targets if each.is_in_rotation]
        self.taking = in_rotation if self._are_enough(in_rotation) else targets
        self.meter = meter
        self.fields = f"x-Amzn-Invoked-Production-Variant: {route.name}\r\nx-amzn-RequestId: ".encode()

    @property
    def takes_traffic(self) -> bool:
        return self.share > 0 and bool(self.targets)

    @property
    def is_chain(self) -> bool:
        """Its requests go through all containers."""
        return bool(self.containers) and not self.by_container

    def beside(self, other: "VariantPlan") -> "VariantPlan | None":
        """This plan for a request that was on its way by another one of its name; None when it goes another way."""
        if other.is_named:
            return self.by_container.get(other.container)
        return self if self.is_chain == other.is_chain and not self.by_container else None

    def take_out(self, target: TargetState) -> bool:
        """Out of rotation, unless too few would be left; whether it is out now."""
        others = [each for each in self.taking if each is not target]
        if target not in self.targets or not self._are_enough(others):
            return False
        self.taking = others
        return True

    def take_in(self, target: TargetState) -> None:
        if target in self.targets and target not in self.taking:
            self.taking = [*self.taking, target]

    def _are_enough(self, targets: list[TargetState]) -> bool:
        """At least half: where all are slow, fewer would only be slower."""
        return bool(targets) and 2 * len(targets) >= len(self.targets)


class NamedVariant:
    """What stands behind one variant's name: one fleet, or two while a deployment moves traffic."""

    __slots__ = ("by_share", "name", "plans")

    def __init__(self, name: str, plans: list[VariantPlan]) -> None:
        self.name = name
        self.plans = plans
        self.by_share = Weighted([(plan, plan.share) for plan in plans if plan.targets])

    def choose(self, chance: Chance) -> VariantPlan:
        """The fleet for a request that names the variant; one without an instance when none has any."""
        return self.by_share.choose(chance) or self.barren

    @property
    def barren(self) -> VariantPlan:
        """Whose own refusal says that the variant has no instance, when it has none."""
        return next((plan for plan in self.plans if plan.share > 0), self.plans[0])

    @property
    def is_in_force(self) -> bool:
        return any(plan.share > 0 for plan in self.plans)

    def weighted(self) -> list[tuple[VariantPlan, float]]:
        """The fleets that take traffic, each with its weight among all variants.

        A fleet without an instance leaves its share to the other one of its name, and does not change what the
        variants get beside each other.
        """
        there = [plan for plan in self.plans if plan.takes_traffic]
        left = sum(plan.share for plan in there)
        total = sum(plan.share for plan in self.plans)
        return [(plan, plan.weight * (plan.share / left) * total) for plan in there]

    @property
    def active(self) -> int:
        """How many targets share its load."""
        return sum(len(plan.targets) for plan in self.plans if plan.share > 0)


class EndpointPlan:
    """One endpoint, ready to be invoked. `is_plain`: nobody gets copies, nothing is captured. `needs_target`: requests
    have to say more than the endpoint's name."""

    __slots__ = (
        "any_variant",
        "is_plain",
        "key",
        "name",
        "needs_target",
        "route",
        "shadows",
        "timeout_s",
        "variants",
        "weighs_nothing",
        "weighted",
    )

    def __init__(
        self, route: EndpointRoute, variants: list[VariantPlan], shadows: Sequence[VariantPlan] = ()
    ) -> None:
        self.key = route.key
        self.name = route.name
        self.route = route
        self.timeout_s = route.invocation_timeout_s
        self.shadows = shadows
        self.is_plain = not shadows and route.capture is None
        self.needs_target = any(variant.models or variant.containers for variant in variants)
        self.variants = {name: NamedVariant(name, plans) for name, plans in _by_name(variants).items()}
        # A variant without a target takes no share: the others answer rather than nobody.
        self.weighted = [pair for named in self.variants.values() for pair in named.weighted()]
        self.any_variant = Weighted(self.weighted)
        self.weighs_nothing = not any(variant.weight * variant.share > 0 for variant in variants)

    @property
    def barren(self) -> VariantPlan:
        """Whose own refusal says that it has no instance, when no variant with weight has one."""
        plans = (plan for named in self.variants.values() for plan in named.plans)
        return next(plan for plan in plans if plan.weight * plan.share > 0)

    def instance(self, mark: str) -> tuple[VariantPlan, TargetState] | None:
        """The instance with this mark, whichever fleet it belongs to."""
        for named in self.variants.values():
            for plan in named.plans:
                for target in plan.targets:
                    if target.mark == mark:
                        return plan, target
        return None


def _by_name(plans: list[VariantPlan]) -> dict[str, list[VariantPlan]]:
    found: dict[str, list[VariantPlan]] = {}
    for plan in plans:
        found.setdefault(plan.name, []).append(plan)
    return found
