"""Every command with stock and with accelerated PHOEBE: medians and their ratio, as a table.

    python worker/benchmarks/commands.py [--repeats 7]

Both run in one process, in turn, so that other load on the machine meets both alike. Times are of
the command in the worker (processor time, milliseconds), without HTTP and ZeroMQ.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from phoebe_worker.environment import VARIABLES

os.environ.update(VARIABLES)

from phoebe_worker import accelerate, templates
from phoebe_worker.answer import Answer
from phoebe_worker.commands import COMMANDS, Session

LC = {
    "kind": "lc",
    "dataset": "lc01",
    "passband": "Johnson:V",
    "compute_phases": [index / 200 - 0.5 for index in range(201)],
}
TEFF = {"qualifier": "teff", "component": "primary", "context": "component"}
UI = {"ptype": "string", "qualifier": "note", "value": "x", "description": "", "context": "ui"}
_numbers = count()


class Bench:
    """A session to which commands are given, with the dataset of `LC` or without."""

    def __init__(self, prepared: templates.Templates) -> None:
        self._templates = prepared
        self.bare = Session(prepared.fresh(), prepared)
        self.filled = Session(prepared.fresh(), prepared)
        self.call(self.filled, "add_dataset", **LC)
        self.text = self.call(self.filled, "get_bundle")["bundle"]

    def call(self, session: Session, command: str, /, **arguments: Any) -> Any:
        return COMMANDS[command].function(session, **arguments)

    def fresh(self) -> Session:
        return Session(self._templates.fresh(), self._templates)

    def cases(self) -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], Any]]]:
        """Name; what is made ready without being timed; what is timed with it."""
        bare, filled, call = self.bare, self.filled, self.call

        def command(name: str, /, **arguments: Any) -> Callable[[Any], Any]:
            return lambda session: call(session, name, **arguments)

        def change(**arguments: Any) -> Callable[[Any], Any]:
            start = arguments.pop("start")
            return lambda session: call(
                session, "set_value", value=start + next(_numbers) * 1e-3, **arguments
            )

        def error(name: str, /, **arguments: Any) -> Callable[[Any], Any]:
            def fail(session: Any) -> None:
                try:
                    call(session, name, **arguments)
                except ValueError:
                    return
                raise AssertionError(f"{name} {arguments} did not fail")

            return fail

        yield "ping", lambda: bare, command("ping")
        yield "get_value, twig", lambda: bare, command("get_value", twig="period@binary")
        yield "get_value, tags", lambda: bare, command("get_value", **TEFF)
        yield "get_value, nothing found", lambda: bare, error("get_value", twig="no@such")
        yield "get_parameter", lambda: bare, command("get_parameter", **TEFF)
        yield "get_uniqueid", lambda: bare, command("get_uniqueid", twig="period@binary")
        constrained = command("is_parameter_constrained", twig="period@binary")
        yield "is_parameter_constrained", lambda: bare, constrained
        yield "set_value, no constraint", lambda: bare, change(twig="teff@primary", start=6000.0)
        yield "set_value, 23 constraints", lambda: bare, change(twig="period@binary", start=1.0)
        yield "set_value, inclination", lambda: bare, change(twig="incl@binary", start=80.0)
        yield "attach_parameters", self.fresh, command("attach_parameters", parameters=[UI])
        yield "add_dataset, lc 201 phases", self.fresh, command("add_dataset", **LC)
        rv = command("add_dataset", kind="rv", dataset="rv01", compute_phases=[0.0, 0.25])
        yield "add_dataset, rv", self.fresh, rv
        yield "get_datasets", lambda: filled, command("get_datasets")
        yield "remove_dataset", self._with_dataset, command("remove_dataset", dataset="lc01")
        yield "get_bundle", lambda: filled, command("get_bundle")
        yield "load_bundle", self.fresh, command("load_bundle", bundle=self.text)
        yield "set_morphology", self.fresh, command("set_morphology", morphology="contact")
        yield "checks before a compute", lambda: filled, _check
        yield "run_compute, 3 points", self._with_points, command("run_compute", ntriangles=100)

    def _with_dataset(self) -> Session:
        return self._copy(self.filled)

    def _with_points(self) -> Session:
        session = self._copy(self.filled)
        session.bundle.set_value("compute_phases@lc01", [0.0, 0.25, 0.5])
        return session

    def _copy(self, session: Session) -> Session:
        return Session(pickle.loads(pickle.dumps(session.bundle, 5)), self._templates)


def _check(session: Session) -> None:
    session.bundle.run_checks_compute()


def milliseconds(make: Callable[[], Any], run: Callable[[Any], Any]) -> float:
    """One run, with its answer written as JSON; one before it fills the processor's caches."""
    for _ in range(2):
        prepared = make()
        start = time.process_time()
        Answer.result(run(prepared))
        spent = (time.process_time() - start) * 1e3
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    bench = Bench(templates.prepare())
    accelerate.uninstall()
    print(f"{'command':28} {'stock ms':>10} {'accelerated ms':>15} {'ratio':>8}")
    for name, make, run in bench.cases():
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(repeats):
            for on in (False, True):
                if on:
                    accelerate.install()
                times[on].append(milliseconds(make, run))
                accelerate.uninstall()
        stock, fast = statistics.median(times[False]), statistics.median(times[True])
        print(f"{name:28} {stock:10.3f} {fast:15.3f} {stock / max(fast, 1e-6):8.1f}")


if __name__ == "__main__":
    main()
