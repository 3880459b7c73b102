"""What a deployment's record says was changed."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from clary.domain.differences import differences
from clary.domain.endpoints import Fleet, Variant
from clary.domain.instances import Artifact, Container, ModelSource
from clary.domain.routes import Capture

BASE = Variant("A", "m", "xgboost:1", "ml.m5.large", 2, 8 << 30, 0, weight=1.0, count=2)


def fleet(*variants: Variant, shadows: tuple[Variant, ...] = (), capture: Capture | None = None) -> Fleet:
    return Fleet("f", "c", variants, shadows, capture)


def test_Z03_a_first_fleet_is_told_variant_by_variant() -> None:
    assert differences(None, fleet(BASE, shadows=(replace(BASE, name="S", weight=0.5),))) == (
        "A: added, model m on 2 × ml.m5.large, weight 1",
        "shadow S: added, model m on 2 × ml.m5.large, weight 0.5",
    )


def test_Z03_each_change_is_a_line() -> None:
    changed = replace(
        BASE,
        model_name="n",
        count=3,
        weight=0.25,
        volume_bytes=5 << 30,
        artifacts=(Artifact("s3://b/n.tar.gz"),),
        environment={"NEW": "1", "SAME": "x", "OTHER": "secret-2"},
    )
    before = replace(BASE, environment={"OLD": "1", "SAME": "x", "OTHER": "secret-1"})
    new = fleet(changed, replace(BASE, name="B"), capture=Capture("s3://b/c", 20.0))
    told = differences(fleet(before, replace(BASE, name="C")), new)
    assert told == (
        "A.model_name: m → n",
        "A.count: 2 → 3",
        "A.weight: 1 → 0.25",
        "A.volume_bytes: 0 → 5368709120",
        "A.model_data: none → s3://b/n.tar.gz",
        "A.environment.NEW: added",
        "A.environment.OLD: removed",
        "A.environment.OTHER: changed",
        "B: added, model m on 2 × ml.m5.large, weight 1",
        "C: removed",
        "data_capture: off → 20 % to s3://b/c",
    )
    assert "secret" not in " ".join(told)


variants = st.builds(
    replace,
    st.just(BASE),
    name=st.sampled_from("ABC"),
    count=st.integers(1, 3),
    instance_type=st.sampled_from(("ml.m5.large", "ml.c5.large")),
    environment=st.dictionaries(st.sampled_from("XY"), st.sampled_from("12"), max_size=2),
)
fleets = st.lists(variants, min_size=1, max_size=3, unique_by=lambda v: v.name).map(lambda vs: fleet(*vs))


@given(fleets, fleets)
def test_Z03_a_record_says_that_something_changed_exactly_when_it_did(old: Fleet, new: Fleet) -> None:
    told = differences(old, new)
    same = {v.name: v for v in old.variants} == {v.name: v for v in new.variants}
    assert same == (told[0].startswith("nothing is different"))
    assert not same or len(told) == 1


def test_C01_each_container_is_told_by_its_name() -> None:
    one = Container("one", "xgboost:1", {"KEY": "secret-1"}, (Artifact("s3://b/1.tar.gz"),))
    two = Container("two", "sklearn:1")
    before = replace(BASE, containers=(one, two))
    changed = (replace(one, environment={"KEY": "secret-2"}), replace(two, image="sklearn:2"))
    assert differences(fleet(before), fleet(replace(before, containers=changed))) == (
        "A.one.environment.KEY: changed",
        "A.two.image: sklearn:1 → sklearn:2",
    )
    direct = replace(before, containers=(two, replace(two, name="three")), is_direct=True)
    assert differences(fleet(before), fleet(direct)) == (
        "A.mode: Serial → Direct",
        "A.containers: one, two → two, three",
    )
    assert "A.mode: one container → Serial" in differences(fleet(BASE), fleet(before))


def test_M01_the_place_of_many_models_is_told() -> None:
    many = replace(BASE, models=ModelSource("s3://b/flats/"))
    assert differences(fleet(many), fleet(replace(many, models=ModelSource("s3://b/new/", False)))) == (
        "A.models: s3://b/flats/ → s3://b/new/ (not cached)",
    )
    assert "A.models: none → s3://b/flats/" in differences(fleet(BASE), fleet(many))
