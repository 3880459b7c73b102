"""What ties a request to an instance: a sticky key of this server's, or a stateful session of SageMaker's.

A key only prefers: who carries the same one comes to the same variant and the same instance while they are there, and
moves when they are not. A session belongs to one instance: nobody else can answer for it, and nothing is sent twice.
"""

from collections.abc import Collection
from datetime import UTC, datetime

from clary.domain.faults import Fault
from clary.gateway import session_ids, sticky
from clary.gateway.answers import invalid
from clary.gateway.balance import Chance, choose_target
from clary.gateway.plans import EndpointPlan, NamedVariant, TargetState, VariantPlan
from clary.gateway.session_ids import NEW_SESSION, BadSession, SessionId
from clary.gateway.upstream import Headers

LONGEST_KEY = 256

_NEW_ID = b"x-amzn-sagemaker-new-session-id"
_CLOSED_ID = b"x-amzn-sagemaker-closed-session-id"


class Tie:
    """A sticky key; `key` is empty for a new session of nobody in particular."""

    may_run_twice = True
    request_line = b""
    """What the container gets beside the usual header lines."""

    def __init__(self, key: str) -> None:
        self.key = key

    @property
    def chooses(self) -> bool:
        """Whether it has anything to say about the instance."""
        return bool(self.key)

    def at(self, container: VariantPlan) -> "Tie":
        """The same at one of several containers: of the same instances, other targets."""
        return self

    def choose_target(
        self, variant: VariantPlan, targets: list[TargetState], chance: Chance, tried: Collection[TargetState]
    ) -> TargetState | None:
        """Of the variant's `targets` the one for this request, none of `tried`."""
        if not self.key:
            return choose_target(targets, variant.routing, chance, tried)
        return sticky.preferred(self.key, [(each, each.mark) for each in targets if each not in tried])

    def problem(self, headers: Headers, target: TargetState) -> str:
        """What is wrong with the container's answer, if anything."""
        return ""

    def answer_lines(self, headers: Headers, target: TargetState) -> bytes:
        """What the caller gets beside the usual header lines."""
        return b""


class NewSession(Tie):
    """A request that asks the container to open a session."""

    may_run_twice = False
    request_line = b"x-amzn-sagemaker-session-id: NEW_SESSION\r\n"

    def problem(self, headers: Headers, target: TargetState) -> str:
        try:
            self.answer_lines(headers, target)
        except BadSession as error:
            return f"The container's X-Amzn-SageMaker-New-Session-Id cannot be used: {error}."
        return ""

    def answer_lines(self, headers: Headers, target: TargetState) -> bytes:
        for name, value in headers:
            if name == _NEW_ID:
                opened = session_ids.opened(value.decode("latin-1"), target.mark)
                return b"X-Amzn-SageMaker-New-Session-Id: %b\r\n" % opened.encode()
        return b""


class HeldSession(NewSession):
    """A request of a session that is open. A container may move its end by naming it anew."""

    def __init__(self, id_: SessionId, target: TargetState) -> None:
        super().__init__("")
        self._id = id_
        self._target = target
        self.request_line = f"x-amzn-sagemaker-session-id: {id_.own}\r\n".encode()

    @property
    def chooses(self) -> bool:
        return True

    def at(self, container: VariantPlan) -> Tie:
        return HeldSession(self._id, next(t for t in container.targets if t.mark == self._target.mark))

    def choose_target(
        self, variant: VariantPlan, targets: list[TargetState], chance: Chance, tried: Collection[TargetState]
    ) -> TargetState | None:
        return None if self._target in tried else self._target

    def answer_lines(self, headers: Headers, target: TargetState) -> bytes:
        lines = super().answer_lines(headers, target)
        for name, value in headers:
            if name == _CLOSED_ID and value == self._id.own.encode():
                lines += f"X-Amzn-SageMaker-Closed-Session-Id: {self._id}\r\n".encode()
        return lines


def by_key(key: str, endpoint: EndpointPlan, named: NamedVariant | None) -> VariantPlan | None:
    """The fleet for a sticky key, of the variant that was named or of any; None when none takes traffic.

    The variant first, then its fleet: a deployment moves users from one fleet to the other, never between variants.
    """
    if named is None:
        totals: dict[str, float] = {}
        for plan, weight in endpoint.weighted:
            totals[plan.name] = totals.get(plan.name, 0.0) + weight
        name = sticky.choose(key, ((name, name, total) for name, total in totals.items()))
        if name is None:
            return None
        named = endpoint.variants[name]
    fleets = [plan for plan in named.plans if plan.takes_traffic]
    return sticky.choose(key, ((plan, f"{plan.name}/{plan.fleet}", plan.share) for plan in fleets))


def held_session(
    text: str, endpoint: EndpointPlan, named: NamedVariant | None, now: float
) -> tuple[VariantPlan, HeldSession]:
    """The instance that holds a session. Raises the fault that says why none does."""
    if not session_ids.is_valid(text):
        raise _unfit(text)
    id_ = session_ids.parse(text)
    found = endpoint.instance(id_.mark) if id_ is not None else None
    if id_ is None or found is None:
        why = "it was not opened here" if id_ is None else "the instance that held it is gone"
        raise _not_open(text, endpoint, f"not found: {why}")
    if now >= id_.ends_at:
        raise _not_open(
            text, endpoint, f"expired at {datetime.fromtimestamp(id_.ends_at, UTC):%Y-%m-%dT%H:%M:%SZ}"
        )
    variant, target = found
    if named is not None and named.name != variant.name:
        raise invalid(
            f"Session {text} of endpoint {endpoint.name} is held by variant {variant.name}, not by the target variant "
            f"{named.name}. Leave TargetVariant out."
        )
    return variant, HeldSession(id_, target)


def _not_open(text: str, endpoint: EndpointPlan, why: str) -> Fault:
    return invalid(
        f"Session {text} of endpoint {endpoint.name} of account {endpoint.key.account} {why}. Open a new one by an "
        f"InvokeEndpoint request with the SessionId {NEW_SESSION}."
    )


def _unfit(text: str) -> Fault:
    return invalid(
        f"1 validation error detected: Value '{text[: session_ids.LONGEST]}' at 'sessionId' failed to satisfy "
        f"constraint: Member must have length less than or equal to {session_ids.LONGEST} and satisfy regular "
        f"expression pattern: {session_ids.PATTERN}"
    )
