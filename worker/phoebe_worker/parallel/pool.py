"""PHOEBE's pool interface over forked helpers.

PHOEBE asks for a `SerialPool` where neither MPI nor multiprocessing is on. Here that pool maps over
the granted cores. Functions and arguments need no pickling: helpers have them by the fork, made
anew for each call of `map`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from ..accelerate.registry import patch
from .helpers import granted, share_out

_TARGET = "phoebe.pool:SerialPool"
# As many points dynesty proposes at a time, which alters its random numbers: so it depends on
# nothing. SerialPool says 0, with which no dynesty works. Of more, some are out of date when used.
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
    """In the place of SerialPool; always the master."""

    size = _QUEUE_SIZE
    rank = 0

    def __init__(self, **_: Any) -> None:
        self._one_after_another: list[Callable[[Any], Any]] = []

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
        """The results in order; `callback` gets each as it comes.

        A function that draws random numbers for most arguments, as dynesty's random walks do, needs
        the result before; next time it is called in a loop, with the frames of models shared out.
        """
        if granted() < 2 or function in self._one_after_another:
            return _lazily(function, iterable, callback)
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

        # A sample changes the copy of the Bundle that is its argument.
        pairs = share_out(len(arguments), compute, done, repeatable=False)
        if len(arguments) > 1 and computed_again > len(arguments) / 2:
            self._one_after_another.append(function)
        failed.extend(sample for _, failed_here in pairs for sample in failed_here)
        return [result for result, _ in pairs]


def _lazily(
    function: Callable[[Any], Any], iterable: Iterable[Any], callback: Callback
) -> Iterable[Any]:
    for result in map(function, iterable):
        if callback is not None:
            callback(result)
        yield result


def _failed_samples() -> list[Any]:
    """The list in which PHOEBE's samplers note, as a side effect, samples without a model."""
    from phoebe.solverbackends import solverbackends

    samples = getattr(solverbackends, "failed_samples_buffer", None)
    return samples if isinstance(samples, list) else []
