"""Reports the progress of a long command from the progress bars of the libraries.

PHOEBE, emcee and dynesty show progress with tqdm. A tqdm bar writes to the log and starts a thread,
which a fork must not have. The bars of this module are a subclass of tqdm without its display, so
libraries can use all of tqdm's interface. This module does not know pipes or sessions.
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

    The search takes some ms. The zygote does it once for all its forks.
    """
    stock = _stock()
    return tuple(
        (module_name, name)
        for module_name, module in tuple(sys.modules.items())
        for name, value in tuple(getattr(module, "__dict__", {}).items())
        if value is stock
    )


def report_to(report: Report) -> None:
    """Let each progress bar call `report` with the fraction done, at most five times a second.

    Forks of this process and bars without a total report nothing. Modules that are imported later
    use the new class too.
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
        """A tqdm bar that passes its fraction to `report`."""

        monitor_interval = 0  # seconds; 0 starts no thread
        _lock = threading.RLock()  # tqdm's own needs a semaphore of the system

        def __init__(self, *args: Any, **options: Any) -> None:
            self._reported_at = 0.0
            # `gui` is tqdm's option for subclasses that display by themselves.
            own = {"gui": True, "delay": 0, "miniters": 1, "mininterval": _INTERVAL_SECONDS}
            super().__init__(*args, **{**options, **own})
            self.last_print_t = 0.0  # so that the first step is reported

        def display(self, *_: Any, **__: Any) -> None:
            now = time.monotonic()
            if not self.total or not self.n or os.getpid() != process:
                return
            if now - self._reported_at >= _INTERVAL_SECONDS:
                self._reported_at = now
                report(min(self.n / self.total, 1.0))

        def clear(self, *_: Any, **__: Any) -> None:
            """Do nothing: the bar is not drawn."""

    Bar.__name__ = Bar.__qualname__ = "tqdm"
    return Bar
