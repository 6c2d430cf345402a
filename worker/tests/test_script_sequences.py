"""Random sequences of everything that changes a session, and the scripts that repeat them.

A script makes the session's Bundle, parameter by parameter, or there is none, and the reason why is
true. `PHOEBE_TEST_SEQUENCES` is how many sequences there are, `PHOEBE_TEST_SEED` the first.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from harness import Connection, Worker
from scripts import Journal, State, assert_equal, bundle_of

from phoebe_worker.commands import COMMANDS
from phoebe_worker.environment import VARIABLES

SEQUENCES = int(os.environ.get("PHOEBE_TEST_SEQUENCES", "8"))
FIRST_SEED = int(os.environ.get("PHOEBE_TEST_SEED", "1"))
ACTS = 24

Fields = dict[str, Any]


def _one_of(*names: str) -> Callable[[Random], str]:
    return lambda random: random.choice(names)


_dataset = _one_of("lc01", "lc02", "rv01", "orb01", "none")
_compute = _one_of("phoebe01", "quick", "other")
_star = _one_of("primary", "secondary")
_PARAMETERS: list[tuple[Fields, Callable[[Random], Any]]] = [
    ({"twig": "period@binary@component"}, lambda random: random.uniform(0.8, 9)),
    ({"twig": "incl@binary@component"}, lambda random: random.uniform(60, 120)),
    ({"twig": "ecc@binary@component"}, lambda random: random.uniform(-0.2, 0.4)),
    ({"twig": "per0@binary@component"}, lambda random: random.uniform(0, 360)),
    ({"twig": "mass@primary@component"}, lambda random: random.uniform(0.8, 2)),
    ({"twig": "teff@secondary@component"}, lambda random: random.uniform(4000, 7000)),
    ({"twig": "teffratio@component"}, lambda random: random.uniform(0.8, 1.1)),
    ({"twig": "requiv@primary@component"}, lambda random: random.uniform(0.5, 3)),
    ({"twig": "sma@binary@component"}, lambda random: random.uniform(4, 9)),
    ({"qualifier": "pblum", "dataset": "lc01"}, lambda random: random.uniform(1, 9)),
    ({"qualifier": "sigmas", "dataset": "lc02"}, lambda _: [0.01, 0.02, 1 / 3]),
    ({"qualifier": "enabled", "dataset": "rv01", "compute": "phoebe01"}, lambda _: False),
    ({"twig": "irrad_method@phoebe01"}, _one_of("none", "horvat", "unheard of")),
    ({"twig": "nosuch@thing"}, lambda _: 1),
    ({"twig": "note"}, _one_of("é\n'\"", "{}")),
]


_HIERARCHIES = [
    "orbit:binary(star:primary, star:secondary)",
    "orbit:binary(star:secondary, star:primary)",
    "star:primary",
    "nonsense",
]


def _set_value(random: Random, _: Journal) -> Fields:
    filters, value = random.choice(_PARAMETERS)
    return {**filters, "value": value(random)}


def _set_value_by_unique_id(random: Random, journal: Journal) -> Fields:
    filters, value = random.choice(_PARAMETERS)
    answer = journal.do("get_uniqueid", **filters)
    return {"uniqueid": answer.get("result") or "unheard of", "value": value(random)}


def _dataset_options(random: Random) -> Fields:
    kind = random.choice(["lc", "lc", "rv", "orb", "mesh", "nosuch"])
    options: Fields = {"kind": kind, "dataset": _dataset(random)}
    if random.random() < 0.3:
        return {**options, "compute_phases": [0.0, 0.1, random.random()]}
    if random.random() < 0.3:
        linspace = {"nparray": "linspace", "start": 0, "stop": random.random(), "num": 3}
        return {**options, "compute_times": linspace}
    times = sorted(random.uniform(0, 3) for _ in range(3))
    data = {"lc": {"fluxes": [1.0, 0.9, 1.1]}, "rv": {"rvs": {"primary": [3.0, -9.0, 1 / 7]}}}
    return {**options, "times": times, **data.get(kind, {}), "overwrite": True}


def _set_all(random: Random) -> Fields:
    return {"twig": "ntriangles", "value": random.choice([100, 150, "few"])}


def _flip(random: Random) -> Fields:
    flips: list[Fields] = [
        {"twig": "esinw", "solve_for": "per0"},
        {"twig": "ecosw", "solve_for": "ecc"},
        {"twig": "teffratio", "solve_for": "teff@secondary"},
        {"twig": "sma@binary", "solve_for": "mass@primary"},
        {"twig": "q@binary", "solve_for": "mass@secondary"},
        {"qualifier": "freq", "component": "binary", "solve_for": "period@binary"},
        {"twig": "requivratio", "solve_for": "requiv@secondary"},
        {"twig": "per0", "solve_for": "nosuch"},
    ]
    return random.choice(flips)


def _compute_options(random: Random) -> Fields:
    options: Fields = {"ntriangles": 100, "irrad_method": "none", "overwrite": True}
    if random.random() < 0.5:
        options["model"] = random.choice(["latest", "model01", "lc01"])
    return {**options, "compute": random.choice(["phoebe01", "phoebe01", "quick"])}


def _attached(random: Random) -> Fields:
    new: list[Fields] = [
        {"ptype": "choice", "qualifier": "mode", "value": "a", "choices": ["a", "b"]},
        {"ptype": "string", "qualifier": "note", "value": "é\n'\"", "dataset": _dataset(random)},
        {"ptype": "float", "qualifier": "width", "value": 0.1, "component": _star(random)},
        {"ptype": "nosuch", "qualifier": "x"},
    ]
    return {"parameters": random.sample(new, random.choice([1, 2]))}


def _loaded(random: Random, journal: Journal) -> Fields:
    texts = [journal.connection.exported("file").decode(), "[]", "no Bundle"]
    return {"bundle": random.choices(texts, [8, 1, 1])[0]}


# The arguments of each command that changes a Bundle. The test requires all of them.
GENERATORS: dict[str, Callable[[Random, Journal], Fields]] = {
    "set_value": _set_value,
    "set_value_all": lambda random, _: _set_all(random),
    "attach_parameters": lambda random, _: _attached(random),
    "attach_params": lambda random, _: _attached(random),
    "add_dataset": lambda random, _: _dataset_options(random),
    "remove_dataset": lambda random, _: {"dataset": _dataset(random)},
    "add_feature": lambda random, _: {
        "kind": random.choice(["spot", "nosuch"]),
        "feature": "spot01",
        "component": _star(random),
        "relteff": random.uniform(0.7, 0.95),
    },
    "remove_feature": lambda _, __: {"feature": "spot01"},
    "add_compute": lambda random, _: {"compute": _compute(random)},
    "remove_compute": lambda random, _: {"compute": random.choice(["quick", "other"])},
    "add_solver": lambda random, _: {
        "kind": random.choice(["optimizer.nelder_mead", "estimator.lc_geometry", "nosuch"]),
        "solver": "extra",
    },
    "remove_solver": lambda _, __: {"solver": "extra"},
    "flip_constraint": lambda random, _: _flip(random),
    "set_hierarchy": lambda random, _: {"value": random.choice(_HIERARCHIES)},
    "run_compute": lambda random, _: _compute_options(random),
    "run_solver": lambda random, _: {"solver": "dc", "solution": "s", "ntriangles": 100},
    "adopt_solution": lambda random, _: {"solution": "s", "trial_run": random.random() < 0.2},
    "new_bundle": lambda _, __: {},
    "set_morphology": lambda random, _: {
        "morphology": random.choice(["Detached", "semi-detached", "contact", "round"])
    },
    "change_morphology": lambda _, __: {"morphology": "detached"},
    "load_bundle": _loaded,
}
_RARE = {
    "new_bundle": 0.2,
    "set_morphology": 0.3,
    "change_morphology": 0.2,
    "load_bundle": 0.5,
}
_OFTEN = {"set_value": 5.0, "add_dataset": 3.0, "flip_constraint": 2.0}


def test_every_command_that_changes_the_bundle_is_tried() -> None:
    ours = {name for name, entry in COMMANDS.items() if entry.kind != "read"}
    assert {name for name in ours if not name.startswith("test_")} == GENERATORS.keys()


class Sequence:
    """One session with its journal. Undo restores an earlier state."""

    def __init__(self, seed: int, connection: Connection) -> None:
        self.random = Random(seed)
        self.connection = connection
        self.journal = Journal(connection)
        self.earlier: list[tuple[bytes, State]] = []
        self.done: list[str] = []

    def act(self) -> None:
        names = [*GENERATORS, "by unique id", "upload", "go back"]
        weights = [_RARE.get(name, _OFTEN.get(name, 1.0)) for name in names]
        name = self.random.choices(names, weights)[0]
        self.remember()
        if name == "upload":
            self.journal.upload(self.some_file())
        elif name == "go back":
            bundle, state = self.random.choice(self.earlier)
            assert self.connection.restore("pickle", bundle).header["success"]
            self.journal.state = deepcopy(state)
        elif name == "by unique id":
            arguments = _set_value_by_unique_id(self.random, self.journal)
            self.journal.do("set_value", **arguments)
            name = f"set_value {arguments}"
        else:
            arguments = GENERATORS[name](self.random, self.journal)
            success = self.journal.do(name, **arguments)["success"]
            name = f"{name} {str(arguments)[:100]}: {success}"
        self.done.append(name)

    def remember(self) -> None:
        """Restore like undo and checkpoints."""
        if self.random.random() < 0.3 or not self.earlier:
            pickled = self.connection.exported("pickle")
            self.earlier.append((pickled, deepcopy(self.journal.state)))

    def some_file(self) -> bytes:
        if self.random.random() < 0.2:
            return b"no file of PHOEBE"
        bundle = pickle.loads(self.random.choice(self.earlier)[0])
        bundle.set_value("incl@binary@component", self.random.uniform(70, 110))
        return json.dumps(bundle.to_json(incl_uniqueid=True)).encode()


@pytest.fixture(scope="module")
def stock() -> Iterator[subprocess.Popen[str]]:
    """Stock PHOEBE, imported once, which runs each script in a process of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    program = str(Path(__file__).with_name("run_scripts.py"))
    with subprocess.Popen(
        [sys.executable, program],
        env={**kept, **VARIABLES},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def run_in(stock: subprocess.Popen[str], script: str, folder: Path) -> Any:
    path, kept_in = folder / "session.py", folder / "bundle.pickle"
    path.write_text(script)
    assert stock.stdin is not None
    assert stock.stdout is not None
    stock.stdin.write(f"{path} {kept_in}\n")
    stock.stdin.flush()
    error = orjson.loads(stock.stdout.readline())
    assert not error, error
    return pickle.loads(kept_in.read_bytes())


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEQUENCES))
def test_a_script_makes_the_bundle_of_any_session(
    start_worker: Callable[..., Worker],
    stock: subprocess.Popen[str],
    tmp_path: Path,
    seed: int,
) -> None:
    sequence = Sequence(seed, start_worker().wait_ready())
    for _ in range(ACTS):
        sequence.act()
    told = "\n".join(sequence.done)
    message = sequence.journal.export()
    if not message.header["success"]:
        # Parameters of clients may have the same tags as others.
        assert b"others have the same tags" in message.body, f"{message.body!r} after\n{told}"
        return
    try:
        built = run_in(stock, message.attachments[0].decode(), tmp_path)
        assert_equal(built, bundle_of(sequence.connection))
    except AssertionError as error:
        raise AssertionError(f"{error}, after\n{told}") from error
