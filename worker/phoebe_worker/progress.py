"""The progress of a long command: every progress bar of the libraries reports instead of drawing.

PHOEBE, emcee and dynesty show progress with tqdm. A bar that draws writes to the log and starts a
thread, which a fork cannot have. The bars here are tqdm's own class without its display, so that a
library may use all of tqdm's interface. Nothing here knows of pipes or sessions.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Report = Callable[[float], None]

_INTERVAL_SECONDS = 0.2


@functools.cache
def names_of_tqdm() -> tuple[tuple[str, str], ...]:
    """Every global variable of a loaded module that holds tqdm's class: module and name.

    The search takes some ms: the zygote does it once for all of its forks.
    """
    stock = _stock()
    return tuple(
        (module_name, name)
        for module_name, module in tuple(sys.modules.items())
        for name, value in tuple(getattr(module, "__dict__", {}).items())
        if value is stock
    )


def report_to(report: Report) -> None:
    """From now on each progress bar calls `report` with the fraction that is done, at most five
    times a second, and only in this process: forks of it are silent.

    Bars without a total are silent. What is imported later finds the new class too.
    """
    names = names_of_tqdm()
    bar = _bar_class(report)
    for module_name, name in names:
        setattr(sys.modules[module_name], name, bar)


@functools.cache
def _stock() -> Any:
    from tqdm import tqdm

    return tqdm


def _bar_class(report: Report) -> Any:
    process = os.getpid()

    class Bar(_stock()):  # type: ignore[misc]
        """tqdm's bar, which tells its fraction to `report`."""

        monitor_interval = 0  # seconds; 0 starts no thread
        _lock = threading.RLock()  # tqdm's own needs a semaphore of the system

        def __init__(self, *args: Any, **options: Any) -> None:
            self._reported_at = 0.0
            # `gui` is tqdm's option for subclasses that display by themselves.
            own = {"gui": True, "delay": 0, "miniters": 1, "mininterval": _INTERVAL_SECONDS}
            super().__init__(*args, **{**options, **own})
            self.last_print_t = 0.0  # a long time ago: the first step is told

        def display(self, *_: Any, **__: Any) -> None:
            now = time.monotonic()
            if not self.total or not self.n or os.getpid() != process:
                return
            if now - self._reported_at >= _INTERVAL_SECONDS:
                self._reported_at = now
                report(min(self.n / self.total, 1.0))

        def clear(self, *_: Any, **__: Any) -> None:
            """Nothing is drawn."""

    Bar.__name__ = Bar.__qualname__ = "tqdm"
    return Bar
