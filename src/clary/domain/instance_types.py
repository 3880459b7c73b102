"""Instance types: vCPU, memory and accelerators behind names such as `ml.m5.xlarge`.

Families that scale in AWS's regular way are computed from the size; what does not is listed whole. A type whose
size nobody here knows is refused by the caller, never guessed.
"""

import re
from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class InstanceType:
    """`accelerators` are GPUs; `is_supported` is false for chips that no runtime here drives."""

    name: str
    vcpus: int
    memory_bytes: int
    accelerators: int = 0
    is_supported: bool = True


def instance_type(name: str) -> InstanceType | None:
    """What a type offers; None when it is not known."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    family, size = match["family"], match["size"]
    if family in _SPECIAL_CHIPS:
        return InstanceType(name, 0, 0, is_supported=False)
    listed = _LISTED.get((family, size))
    if listed is not None:
        return InstanceType(name, listed[0], int(listed[1] * GIB), listed[2])
    vcpus = _vcpus(size)
    per_vcpu = _GIB_PER_VCPU.get(family[0]) if family in _REGULAR else None
    if vcpus is None or per_vcpu is None:
        return None
    return InstanceType(name, vcpus, vcpus * per_vcpu * GIB)


def has_local_disk(name: str) -> bool:
    """Whether a type comes with disks of its own: hundreds of GB, and no `VolumeSizeInGB` to ask for."""
    match = _NAME.fullmatch(name)
    return match is not None and (
        match["family"] in _LOCAL_DISKS or _WITH_D.fullmatch(match["family"]) is not None
    )


_LOCAL_DISKS = frozenset({"g5", "g6", "g6e", "p5", "p5e", "p5en", "trn1", "trn1n", "trn2", "dl1"})
_WITH_D = re.compile(r"[a-z]+[0-9]+[a-z]*d[a-z]*")  # m5d, r6gd, g4dn, p4de: AWS's letter for it

_NAME = re.compile(r"ml\.(?P<family>[a-z0-9-]+)\.(?P<size>[0-9a-z]+)")

_GIB_PER_VCPU = {"c": 2, "m": 4, "r": 8}

_REGULAR = frozenset(
    letter + generation
    for letter, generations in (
        ("m", ("5", "5d", "6i", "6g", "6gd", "7i", "8g")),
        ("c", ("5", "5d", "6i", "6g", "6gd", "6gn", "6in", "7g", "7i", "8g")),
        ("r", ("5", "5d", "6i", "6g", "6gd", "7i", "7gd", "8g")),
    )
    for generation in generations
)

_SPECIAL_CHIPS = frozenset({"inf1", "inf2", "trn1", "trn1n", "trn2", "dl1"})

_LISTED: dict[tuple[str, str], tuple[int, float, int]] = {
    ("t2", "medium"): (2, 4, 0),
    ("t2", "large"): (2, 8, 0),
    ("t2", "xlarge"): (4, 16, 0),
    ("t2", "2xlarge"): (8, 32, 0),
    ("t3", "medium"): (2, 4, 0),
    ("t3", "large"): (2, 8, 0),
    ("t3", "xlarge"): (4, 16, 0),
    ("t3", "2xlarge"): (8, 32, 0),
    ("m4", "xlarge"): (4, 16, 0),
    ("m4", "2xlarge"): (8, 32, 0),
    ("m4", "4xlarge"): (16, 64, 0),
    ("m4", "10xlarge"): (40, 160, 0),
    ("m4", "16xlarge"): (64, 256, 0),
    ("c4", "large"): (2, 3.75, 0),
    ("c4", "xlarge"): (4, 7.5, 0),
    ("c4", "2xlarge"): (8, 15, 0),
    ("c4", "4xlarge"): (16, 30, 0),
    ("c4", "8xlarge"): (36, 60, 0),
    ("c5", "9xlarge"): (36, 72, 0),
    ("c5", "18xlarge"): (72, 144, 0),
    ("c5d", "9xlarge"): (36, 72, 0),
    ("c5d", "18xlarge"): (72, 144, 0),
    ("g4dn", "xlarge"): (4, 16, 1),
    ("g4dn", "2xlarge"): (8, 32, 1),
    ("g4dn", "4xlarge"): (16, 64, 1),
    ("g4dn", "8xlarge"): (32, 128, 1),
    ("g4dn", "12xlarge"): (48, 192, 4),
    ("g4dn", "16xlarge"): (64, 256, 1),
    ("p2", "xlarge"): (4, 61, 1),
    ("p2", "8xlarge"): (32, 488, 8),
    ("p2", "16xlarge"): (64, 732, 16),
    ("p3", "2xlarge"): (8, 61, 1),
    ("p3", "8xlarge"): (32, 244, 4),
    ("p3", "16xlarge"): (64, 488, 8),
    ("p4d", "24xlarge"): (96, 1152, 8),
    ("p4de", "24xlarge"): (96, 1152, 8),
    ("p5", "4xlarge"): (16, 256, 1),
    ("p5", "48xlarge"): (192, 2048, 8),
    ("p5e", "48xlarge"): (192, 2048, 8),
    ("p5en", "48xlarge"): (192, 2048, 8),
    **{
        (family, size): (vcpus, vcpus * per_vcpu, gpus)
        for family, per_vcpu in (("g5", 4), ("g6", 4), ("g6e", 8))
        for size, vcpus, gpus in (
            ("xlarge", 4, 1),
            ("2xlarge", 8, 1),
            ("4xlarge", 16, 1),
            ("8xlarge", 32, 1),
            ("12xlarge", 48, 4),
            ("16xlarge", 64, 1),
            ("24xlarge", 96, 4),
            ("48xlarge", 192, 8),
        )
    },
}


def _vcpus(size: str) -> int | None:
    """large has 2, xlarge 4, Nxlarge N × 4."""
    if size == "medium":
        return 1
    if size == "large":
        return 2
    factor = size.removesuffix("xlarge")
    if factor == size:
        return None
    return 4 * int(factor) if factor.isdigit() else (4 if factor == "" else None)
