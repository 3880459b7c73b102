"""ECR: the image repositories that the catalog answers for. There is no registry behind them to log in to."""

from collections.abc import Mapping

from clary.catalog import Catalog
from clary.services.ecr.repositories import Repositories

ACCEPTED_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {}
"""Operation → members that are kept, and shown where AWS shows them, and change nothing here."""


def resources(catalog: Catalog) -> tuple[object, ...]:
    """Everything that answers an operation of `ecr`."""
    return (Repositories(catalog),)
