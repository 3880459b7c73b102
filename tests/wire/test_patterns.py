"""Java's regular expressions, read as Python's."""

import pytest

from clary.wire import patterns
from clary.wire.models import ServiceModels

SERVICES = ("cloudwatch", "iam", "logs", "s3", "sagemaker", "sagemaker-runtime", "sts")


@pytest.mark.parametrize(
    ("pattern", "accepted", "refused"),
    [
        (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*", ["", "tag key", "Größe-1", "数"], ["a;b", "a\n", "😀"]),
        (r"\A\S[\p{Print}]*\z", ["a b", "~"], ["", " a", "a\n", "aé"]),
        (r"\p{ASCII}*", ["", "a\n"], ["é"]),
        (r"arn:[\p{Alnum}\-]+", ["arn:aws-cn"], ["arn:a_b"]),
        (r"[\w-_]*", ["a-b_c"], ["a.b"]),
        (r"[\u0020-\uD7FF\uD800\uDC00-\uDBFF\uDFFF\t]*", ["a\t😀"], ["\x01"]),
        (r"([a-z]*)${1,128}", ["abc"], ["a1"]),
        (r"^(NEW_SESSION)$|^[a-z]+$", ["NEW_SESSION", "abc"], ["NEW_SESSION1", "a_b"]),
        (r"[^:*$]*", ["a$b".replace("$", "")], ["a:b", "a$"]),
        (
            r"https://([.\-_a-zA-Z0-9]+/?){3,1016}",
            ["https://a.b/c/", "https://abc"],
            ["https://ab", "https://a//bc"],
        ),
        (r"[a-z0-9]([-a-z0-9]*[a-z0-9]){0,39}?", ["a", "a-b"], ["a-", "-a", "a--"]),
    ],
)
def test_a_pattern_means_what_it_means_in_java(pattern: str, accepted: list[str], refused: list[str]) -> None:
    for value in accepted:
        assert patterns.fits(pattern, value), value
    for value in refused:
        assert not patterns.fits(pattern, value), value


def test_every_pattern_of_our_services_is_understood() -> None:
    models = ServiceModels()
    for service in SERVICES:
        inner = models.service(service)
        for name in inner.operation_names:
            for pattern in patterns_of(inner.operation(name).input_shape, set()):
                patterns.compiled(pattern)


@pytest.mark.parametrize("pattern", sorted(patterns._REPLACED))
def test_a_value_made_to_be_slow_is_not(pattern: str) -> None:
    # Without the replacement this takes longer than the universe has.
    for value in ("https://" + "a" * 900 + "!", "a" * 900 + "!", "a-" * 450 + "!", "\n " * 450 + "\x00"):
        patterns.fits(pattern, value)


def patterns_of(shape: object, seen: set[str]) -> set[str]:
    if shape is None or getattr(shape, "name", "") in seen:
        return set()
    seen.add(getattr(shape, "name", ""))
    traits = getattr(shape, "metadata", {})
    found = {traits["pattern"]} if "pattern" in traits else set()
    inner = list(getattr(shape, "members", {}).values())
    inner += [getattr(shape, role) for role in ("member", "key", "value") if hasattr(shape, role)]
    return found.union(*(patterns_of(item, seen) for item in inner))
