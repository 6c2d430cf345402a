"""PHOEBE's pool interface over forked helpers.

PHOEBE uses a `SerialPool` when neither MPI nor multiprocessing is on. This pool replaces it, and
maps over the granted cores. Each call of `map` forks new helpers, so functions and arguments need
no pickling.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from ..accelerate.registry import patch
from .helpers import distribute, granted

_TARGET = "phoebe.pool:SerialPool"
# The number of points that dynesty proposes at a time. It affects the random numbers, so it does
# not depend on the number of cores. dynesty does not work with the 0 of SerialPool. With a larger
# number, some points are outdated when they are used.
_QUEUE_SIZE = 8
Callback = Callable[[Any], None] | None


@patch(
    _TARGET,
    reason="samples and walkers are independent models",
    equal_because="the same function of the same arguments and random numbers, in their order",
    checked_with=("2.5.4",),
    guards={_TARGET: "631cbfcaf5a007760bd6c5fddf25c19474dbee1609f348359ae99b9d2928f2a0"},
)
class HelperPool:
    """Replaces SerialPool; always the master."""

    size = _QUEUE_SIZE
    rank = 0

    def __init__(self, **_: Any) -> None:
        self._sequential: list[Callable[[Any], Any]] = []

    @staticmethod
    def enabled() -> bool:
        return True

    def is_master(self) -> bool:
        return True

    def is_worker(self) -> bool:
        return False

    def wait(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> HelperPool:
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(
        self, function: Callable[[Any], Any], iterable: Iterable[Any], callback: Callback = None
    ) -> Iterable[Any]:
        """The results in order. `callback` gets each result when it is complete.

        A function that draws random numbers for most arguments, such as dynesty's random walks, is
        called in a serial loop the next time; the frames of its models are distributed instead.
        """
        if granted() < 2 or function in self._sequential:
            return _serial_map(function, iterable, callback)
        arguments = list(iterable)
        failed = _failed_samples()
        owner, computed_again = os.getpid(), 0

        def compute(index: int) -> tuple[Any, list[Any]]:
            nonlocal computed_again
            computed_again += os.getpid() == owner
            before = len(failed)
            result = function(arguments[index])
            failed_here = failed[before:]
            del failed[before:]
            return result, failed_here

        def done(pair: tuple[Any, list[Any]]) -> None:
            if callback is not None:
                callback(pair[0])

        # A sample changes the copy of the Bundle in its argument.
        pairs = distribute(len(arguments), compute, done, repeatable=False)
        if len(arguments) > 1 and computed_again > len(arguments) / 2:
            self._sequential.append(function)
        failed.extend(sample for _, failed_here in pairs for sample in failed_here)
        return [result for result, _ in pairs]


def _serial_map(
    function: Callable[[Any], Any], iterable: Iterable[Any], callback: Callback
) -> Iterable[Any]:
    for result in map(function, iterable):
        if callback is not None:
            callback(result)
        yield result


def _failed_samples() -> list[Any]:
    """The list to which PHOEBE's samplers append samples whose model failed."""
    from phoebe.solverbackends import solverbackends

    samples = getattr(solverbackends, "failed_samples_buffer", None)
    return samples if isinstance(samples, list) else []
