"""The state of the random number generators that PHOEBE and its samplers draw from.

These are Python's and NumPy's global generators, each a Mersenne Twister with 624 words of state.
PHOEBE samples distribution `i` with word `i` of the state as its seed, so every word must be
random. `numpy.random.seed()` and `random.seed()` set the first word to a constant: the first
distribution would give the same samples in every process.
"""

from __future__ import annotations

import os
import random
import struct
from typing import Any

import numpy as np

_WORDS = 624
SEED_MAX = 2**32 - 1

State = tuple[bytes, int, int, float, tuple[Any, ...]]


def reseed() -> None:
    """Seed every word from the operating system."""
    # The position is at the end, so that the first number comes from the next 624 words.
    random.setstate((random.Random.VERSION, (*_random_words(), _WORDS), None))
    np.random.set_state(("MT19937", np.array(_random_words(), np.uint32), _WORDS, 0, 0.0))


def _random_words() -> tuple[int, ...]:
    return struct.unpack(f"={_WORDS}I", os.urandom(4 * _WORDS))


def capture() -> State:
    """The state of both generators. Equal states give equal numbers."""
    state: Any = np.random.get_state(legacy=False)
    words, position = state["state"]["key"], state["state"]["pos"]
    return words.tobytes(), position, state["has_gauss"], state["gauss"], random.getstate()


def restore(state: State) -> None:
    words, position, has_gauss, gauss, python_state = state
    np.random.set_state(
        ("MT19937", np.frombuffer(words, np.uint32), position, has_gauss, gauss)
    )
    random.setstate(python_state)


def seed_random_numbers(seed: int) -> None:
    """Seed NumPy's generator and Python's, which PHOEBE and its samplers draw from."""
    import random

    import numpy

    random.seed(seed)
    numpy.random.seed(seed)
