"""Names of models: keys below a prefix, and nothing that could mean anything else."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.domain.target_models import why_unfit


@pytest.mark.parametrize(
    "name", ["nyc.tar.gz", "a/b/c.tar.gz", "...", "..a/b..", ".hidden/x", "a b.tar.gz", "ä.tar.gz", "a//b"]
)
def test_M01_keys_below_the_prefix_are_names(name: str) -> None:
    assert why_unfit(name) == ""


@pytest.mark.parametrize(
    "name", ["", "/", "/a", "a/", "..", "../a", "a/..", "a/../b", ".", "./a", "a/./b", "a\nb", "a\0b"]
)
def test_M01_what_could_mean_something_else_is_no_name(name: str) -> None:
    assert why_unfit(name)


@given(st.text(st.sampled_from("a./ ")))
def test_M01_no_name_leads_out_of_its_prefix(name: str) -> None:
    if not why_unfit(name):
        path = posixpath.normpath(posixpath.join("/prefix", name))
        assert path.startswith("/prefix/")
