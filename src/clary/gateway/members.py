"""What a request says beside its body: members that refuse it, choose its variant, or tie it to an instance.

Only requests with one of these headers (`RARE`) come here; most have none.
"""

from clary.domain import target_models
from clary.domain.faults import not_supported
from clary.gateway.answers import (
    invalid,
    missing_target_model,
    no_components,
    no_container_named,
    no_sessions,
    no_streams_of_models,
    not_multi_container,
    not_multi_model,
    unfit_target_model,
    unknown_container,
    unknown_variant,
)
from clary.gateway.balance import Chance
from clary.gateway.plans import EndpointPlan, NamedVariant, VariantPlan
from clary.gateway.session_ids import NEW_SESSION
from clary.gateway.ties import LONGEST_KEY, NewSession, Tie, by_key, held_session
from clary.wire.heads import Head

CUSTOM_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"

_TARGET_VARIANT = b"x-amzn-sagemaker-target-variant"
_TARGET_MODEL = b"x-amzn-sagemaker-target-model"
_TARGET_CONTAINER = b"x-amzn-sagemaker-target-container-hostname"
_COMPONENT = b"x-amzn-sagemaker-inference-component"
_SESSION = b"x-amzn-sagemaker-session-id"
_EXPLANATIONS = b"x-amzn-sagemaker-enable-explanations"
_INFERENCE_ID = b"x-amzn-sagemaker-inference-id"
_STICKY_KEY = b"x-clary-sticky-key"

RARE = frozenset(
    (
        _TARGET_VARIANT,
        _TARGET_MODEL,
        _TARGET_CONTAINER,
        _COMPONENT,
        _SESSION,
        _EXPLANATIONS,
        _INFERENCE_ID,
        CUSTOM_ATTRIBUTES,
        _STICKY_KEY,
    )
)


def choose(
    head: Head, endpoint: EndpointPlan, is_stream: bool, chance: Chance, now: float
) -> tuple[VariantPlan, Tie | None]:
    """The fleet for a request that says more than most, and what ties it to an instance. Raises the fault."""
    _check(head, endpoint)
    variant, tie = _chosen(head, endpoint, is_stream, chance, now)
    return _container(head, endpoint, variant, tie)


def _chosen(
    head: Head, endpoint: EndpointPlan, is_stream: bool, chance: Chance, now: float
) -> tuple[VariantPlan, Tie | None]:
    named = _named(head, endpoint)
    session = head.text(_SESSION)
    if session and session != NEW_SESSION:
        return held_session(session, endpoint, named, now)
    if session and is_stream:
        raise invalid(
            "A stateful session cannot be created with InvokeEndpointWithResponseStream. Open it by an "
            f"InvokeEndpoint request with the SessionId {NEW_SESSION}, then use the NewSessionId of its answer."
        )
    key = _sticky_key(head)
    if key:
        variant = by_key(key, endpoint, named)
    else:
        variant = named.choose(chance) if named else endpoint.any_variant.choose(chance)
    if variant is None:
        variant = named.barren if named is not None else without_instance(endpoint)
    if session:
        return variant, NewSession(key)
    return variant, Tie(key) if key else None


def target_model(
    head: Head, endpoint: EndpointPlan, variant: VariantPlan, is_stream: bool, request_id: str
) -> str:
    """Which of the variant's models is called; empty where it has but one. Raises the fault."""
    if not variant.models:
        if _TARGET_MODEL in head.headers:
            raise not_multi_model(endpoint)
        return ""
    if is_stream:
        raise no_streams_of_models(endpoint)
    model = target_models.read(head.headers.get(_TARGET_MODEL, b""))
    if not model:
        raise missing_target_model(request_id)
    _check_length(model, "targetModel", target_models.LONGEST)
    if why := target_models.why_unfit(model):
        raise unfit_target_model(model, why)
    return model


def without_instance(endpoint: EndpointPlan) -> VariantPlan:
    """When no variant can be drawn: one whose own refusal says so. Raises the fault when none has any weight."""
    if endpoint.weighs_nothing:
        raise invalid(
            f"Endpoint {endpoint.name} has no production variant with a weight above zero; name one as the "
            "target variant."
        )
    return endpoint.barren


def _named(head: Head, endpoint: EndpointPlan) -> NamedVariant | None:
    if _TARGET_VARIANT not in head.headers:
        return None
    name = head.text(_TARGET_VARIANT)
    named = endpoint.variants.get(name)
    if named is None or not named.is_in_force:
        raise unknown_variant(endpoint, name)
    return named


def _container(
    head: Head, endpoint: EndpointPlan, variant: VariantPlan, tie: Tie | None
) -> tuple[VariantPlan, Tie | None]:
    """Of a variant with several containers, the one that the caller names."""
    if not variant.by_container:
        if _TARGET_CONTAINER in head.headers:
            raise not_multi_container(endpoint)
        if variant.is_chain and isinstance(tie, NewSession):
            raise no_sessions(endpoint)
        return variant, tie
    name = head.text(_TARGET_CONTAINER)
    if not name:
        raise no_container_named(endpoint)
    plan = variant.by_container.get(name)
    if plan is None:
        raise unknown_container(endpoint, name)
    return plan, tie if tie is None else tie.at(plan)


def _sticky_key(head: Head) -> str:
    key = head.text(_STICKY_KEY)
    if len(key) > LONGEST_KEY:
        raise invalid(f"The header X-Clary-Sticky-Key has {len(key)} characters; {LONGEST_KEY} are allowed.")
    return key


def _check(head: Head, endpoint: EndpointPlan) -> None:
    headers = head.headers
    if _COMPONENT in headers:
        raise no_components(endpoint)
    if _EXPLANATIONS in headers:
        raise invalid(not_supported("EnableExplanations").message)
    _check_length(head.text(CUSTOM_ATTRIBUTES), "customAttributes", 1024)
    _check_length(head.text(_INFERENCE_ID), "inferenceId", 64)


def _check_length(value: str, member: str, longest: int) -> None:
    if len(value) > longest:
        raise invalid(
            f"1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must have "
            f"length less than or equal to {longest}"
        )
