"""`timed`: a decorator of TorchServe's handlers. It measured the steps; here it leaves them as they are."""

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def timed(func: F) -> F:
    return func
