"""Sizes behind instance types: H08."""

import botocore.session
import pytest

from clary.domain.instance_types import GIB, has_local_disk, instance_type


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_gib", "accelerators"),
    [
        ("ml.t2.medium", 2, 4, 0),
        ("ml.m5.large", 2, 8, 0),
        ("ml.m5.xlarge", 4, 16, 0),
        ("ml.m5.24xlarge", 96, 384, 0),
        ("ml.c5.2xlarge", 8, 16, 0),
        ("ml.c5.18xlarge", 72, 144, 0),
        ("ml.r6g.16xlarge", 64, 512, 0),
        ("ml.m8g.medium", 1, 4, 0),
        ("ml.g4dn.12xlarge", 48, 192, 4),
        ("ml.g5.48xlarge", 192, 768, 8),
        ("ml.p3.16xlarge", 64, 488, 8),
    ],
)
def test_H08_types_have_their_sizes(name: str, vcpus: int, memory_gib: int, accelerators: int) -> None:
    found = instance_type(name)
    assert found is not None
    assert (found.vcpus, found.memory_bytes, found.accelerators) == (vcpus, memory_gib * GIB, accelerators)


@pytest.mark.parametrize("name", ["", "m5.large", "ml.m5", "ml.m5.huge", "ml.z9.large", "ml.m5.xxlarge"])
def test_H08_unknown_types_are_not_guessed(name: str) -> None:
    assert instance_type(name) is None


def test_H08_every_type_of_the_api_is_known_or_refused_whole() -> None:
    """Each has a size, or is known not to be offered, but for the newest accelerator families."""
    model = botocore.session.get_session().get_service_model("sagemaker")
    unknown = set()
    for name in model.shape_for("ProductionVariantInstanceType").metadata["enum"]:
        found = instance_type(name)
        if found is None:
            unknown.add(name.split(".")[1])
        elif found.is_supported:
            assert found.vcpus >= 1
            assert found.memory_bytes >= GIB
    assert unknown == {"g7", "g7e", "p6-b200", "p6-b300", "p6e-gb200"}


def test_H08_types_with_disks_of_their_own_are_told_by_their_names() -> None:
    with_disks = (
        "g4dn.xlarge",
        "g5.48xlarge",
        "g6e.xlarge",
        "p3dn.24xlarge",
        "p4de.24xlarge",
        "c5d.large",
        "r6gd.large",
    )
    without = ("m5.large", "c6gn.large", "g4.large", "p3.2xlarge", "inf2.xlarge", "t3.medium", "r8g.large")
    assert all(has_local_disk(f"ml.{name}") for name in with_disks)
    assert not any(has_local_disk(f"ml.{name}") for name in without)
    assert not has_local_disk("g5")
