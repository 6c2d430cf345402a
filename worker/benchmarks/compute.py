"""run_compute: stock PHOEBE against the faster backend on 1 to n cores, as a table.

    python benchmarks/compute.py [--cores N] [--rounds N]

All variants run in one process, in turn, so that a busy machine slows them alike. For each: median
wall time, best wall time, and the median processor time of this process and its helpers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from phoebe_worker import environment

os.environ.update(environment.VARIABLES)

import numpy as np
import phoebe

from phoebe_worker import accelerate, backend, parallel  # noqa: F401 - backend has patches
from phoebe_worker.parallel import frames, pool  # noqa: F401 - and so have these

PHASES = np.linspace(-0.5, 0.5, 201)


def detached() -> Any:
    return _with_light_curve(phoebe.default_binary())


def eccentric() -> Any:
    """Every frame has meshes of its own, so there are fewer of them."""
    b = _with_light_curve(phoebe.default_binary(), PHASES[::5])
    b.set_value("ecc", 0.2)
    return b


def contact() -> Any:
    return _with_light_curve(phoebe.default_contact_binary())


def light_curve_and_velocities() -> Any:
    b = detached()
    b.add_dataset("rv", compute_phases=PHASES, dataset="rv01")
    return b


def many_times() -> Any:
    """100,000 observations, 201 computed phases between them."""
    b = phoebe.default_binary()
    times = np.linspace(0, 500, 100_000)
    b.add_dataset(
        "lc", times=times, fluxes=np.ones_like(times), compute_phases=PHASES, dataset="lc01"
    )
    return b


def _with_light_curve(b: Any, phases: Any = PHASES) -> Any:
    b.add_dataset("lc", compute_phases=phases, passband="Johnson:V", dataset="lc01")
    return b


SYSTEMS: dict[str, Callable[[], Any]] = {
    "detached, lc": detached,
    "detached, lc + rv": light_curve_and_velocities,
    "eccentric, lc of 41 points": eccentric,
    "contact, lc": contact,
    "100,000 times": many_times,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="systems whose name contains this")
    options = parser.parse_args()
    phoebe.progressbars_off()
    variants = ["stock", *(f"{cores} core(s)" for cores in range(1, options.cores + 1))]
    head = "median/best wall (processor), s"
    print(f"{head:32}" + "".join(f"{name:>20}" for name in variants))
    for name, make in SYSTEMS.items():
        if options.only in name:
            print(_row(name, make(), options.cores, options.rounds), flush=True)


def _row(name: str, b: Any, cores: int, rounds: int) -> str:
    measured: list[list[tuple[float, float]]] = [[] for _ in range(cores + 1)]
    expected = None
    for round_ in range(rounds + 1):
        for granted in range(cores + 1):
            (accelerate.install if granted else accelerate.uninstall)()
            parallel.grant(granted)
            walls, fluxes = _compute(b)
            if round_:  # the first is a warm-up
                measured[granted].append(walls)
            expected = fluxes if expected is None else expected
            np.testing.assert_allclose(fluxes, expected, rtol=1e-12)
    return f"{name:32}" + "".join(map(_cell, measured))


def _cell(measured: list[tuple[float, float]]) -> str:
    walls, processor = zip(*measured, strict=True)
    wall = f"{statistics.median(walls):.2f}/{min(walls):.2f}"
    return f"{wall:>12} ({statistics.median(processor):5.2f})"


def _compute(b: Any) -> tuple[tuple[float, float], Any]:
    started, used = time.perf_counter(), _processor_seconds()
    b.run_compute()
    taken = time.perf_counter() - started, _processor_seconds() - used
    return taken, b.get_value(qualifier="fluxes", dataset="lc01", context="model")


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()
