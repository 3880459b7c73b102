"""What control remembers. `Store` is the only door; only control opens it."""

from clary.store.database import Store, Transaction
from clary.store.resources import DuplicateName, PageQuery, Resource, StaleResource, Summary
from clary.store.work import Lease, LeaseLost

__all__ = [
    "DuplicateName",
    "Lease",
    "LeaseLost",
    "PageQuery",
    "Resource",
    "StaleResource",
    "Store",
    "Summary",
    "Transaction",
]
