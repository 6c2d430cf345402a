"""Runs draw different random numbers, and with a seed the same as stock PHOEBE."""

from __future__ import annotations

import inspect
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import computes
import numpy as np
import orjson
import phoebe
import pytest
from harness import (
    MISBEHAVIOUR,
    Connection,
    Worker,
    command_line,
    free_port,
    receive_packet,
    socket_pair,
)
from scripts import Journal, assert_close, bundle_of, run, summary

from phoebe_worker import portable, random_numbers
from phoebe_worker.commands import COMMANDS

SEED = 2026
SAMPLES = {"sample_num": 3, "sample_mode": "all", "expose_samples": True}


@pytest.fixture(scope="module")
def bundle_text() -> str:
    """Distributions of one and of two parameters; half of those that are `wide` overflow."""
    phoebe.progressbars_off()
    b = computes.bundle()
    times = np.linspace(0, 1, 5)
    fluxes = 2 - 0.1 * np.cos(4 * np.pi * times)
    b.add_dataset("lc", times=times, fluxes=fluxes, sigmas=np.full(5, 0.01), dataset="lc01")
    b.set_value_all("ntriangles", 100)
    b.set_value("irrad_method", value="none")
    teff = phoebe.gaussian_around(100)
    b.add_distribution({"teff@secondary": teff}, distribution="one")
    both = {"teff@secondary": teff, "incl@binary": phoebe.uniform(80, 90)}
    b.add_distribution(both, distribution="two")
    wide = {"requiv@primary": phoebe.uniform(0.8, 3.0), "teff@secondary": teff}
    b.add_distribution(wide, distribution="wide")
    narrow = {"requiv@primary": phoebe.uniform(0.8, 1.9), "teff@secondary": teff}
    b.add_distribution(narrow, distribution="narrow")
    b.add_solver(
        "sampler.emcee",
        solver="walkers",
        init_from=["wide"],
        init_from_requires=["limits", "checks"],
        priors=["narrow"],
        nwalkers=6,
        niters=2,
        expose_failed=True,
    )
    b.add_solver(
        "optimizer.differential_evolution",
        solver="evolution",
        fit_parameters=["requiv@primary"],
        bounds=["wide"],
        maxiter=1,
        popsize=4,
        polish=False,
    )
    b.add_solver("sampler.dynesty", solver="nested", priors=["wide"], nlive=8, maxiter=4)
    return portable.write(b).decode()


# Without a seed.


def assert_all_differ(drawn: list[list[Any]]) -> None:
    """Assert that the lists have different values at every position."""
    for place, values in enumerate(zip(*drawn, strict=True)):
        assert len(set(map(str, values))) == len(values), f"place {place} repeats"


def test_every_word_is_random() -> None:
    states = []
    for _ in range(4):
        random_numbers.reseed()
        words, *_, python = random_numbers.capture()
        states.append([*np.frombuffer(words, np.uint32), *python[1][:624]])
    assert_all_differ(states)


def spawned_words() -> list[int]:
    """The words of a worker in a fresh interpreter."""
    lifeline, theirs = socket_pair()
    process = subprocess.Popen(command_line("spawn", MISBEHAVIOUR), stdin=theirs.fileno())
    theirs.close()
    port = free_port()
    lifeline.send(orjson.dumps({"session": "a", "port": port, "key": "ab" * 32}))
    assert "ready" in receive_packet(lifeline)
    connection = Connection("a", port, bytes.fromhex("ab" * 32))
    words = connection.result("test_random_words")
    connection.close()
    lifeline.close()
    process.wait()
    return words


def test_no_two_workers_and_no_two_runners_share_a_word(
    start_worker: Callable[..., Worker],
) -> None:
    connections = [start_worker().wait_ready() for _ in range(2)]
    words = [each.result("test_random_words") for each in connections]
    words += [each.result("test_random_words_long") for each in 2 * connections]
    words += [spawned_words() for _ in range(2)]
    assert_all_differ(words)


@pytest.mark.parametrize("distribution", ["one", "two"])
def test_no_two_runs_draw_the_same(
    start_worker: Callable[..., Worker], bundle_text: str, distribution: str
) -> None:
    """In one session and two, on one core and two, for every parameter."""
    drawn = []
    for _ in range(2):
        connection = start_worker().wait_ready()
        connection.result("load_bundle", bundle=bundle_text)
        for cores in (1, 2):
            options = {"sample_from": distribution, "overwrite": True, **SAMPLES}
            seq = connection.start("run_compute", cores=cores, **options)
            assert connection.reply(seq)[1]["success"]
            samples = connection.result("get_value", qualifier="samples", context="model")
            assert len(samples) == 3
            drawn += samples
    assert_all_differ(drawn)


def test_no_two_samplers_start_alike(
    start_worker: Callable[..., Worker], bundle_text: str
) -> None:
    starts = []
    for _ in range(2):
        connection = start_worker().wait_ready()
        connection.result("load_bundle", bundle=bundle_text)
        connection.result("run_solver", solver="walkers", solution="walked", niters=1)
        starts += connection.result("get_value", qualifier="samples", solution="walked")[0]
    assert_all_differ(starts)


# With a seed.


COMMANDS_THAT_DRAW: dict[str, dict[str, Any]] = {
    "sample_from": {
        "command": "run_compute",
        "sample_from": "wide",
        "sample_num": 5,
        "sample_mode": "all",
        "expose_samples": True,
        "expose_failed": True,
    },
    "emcee": {"command": "run_solver", "solver": "walkers", "solution": "walked"},
    "differential_evolution": {"command": "run_solver", "solver": "evolution", "solution": "fit"},
}
NESTED = {"command": "run_solver", "solver": "nested", "solution": "sampled", "seed": SEED}


def summarized_results(bundle: Any) -> dict[Any, Any]:
    """Every value of models and solutions, by tags."""
    known = summary(bundle)
    return {
        key: value
        for key, (fields, value) in known.items()
        if fields["context"] in ("model", "solution")
    }


@pytest.mark.parametrize("name", COMMANDS_THAT_DRAW)
def test_a_seed_gives_the_numbers_of_stock(
    start_worker: Callable[..., Worker], bundle_text: str, tmp_path: Path, name: str
) -> None:
    """On one core, on two, with the script, and with `numpy.random.seed` alone."""
    fields = {**COMMANDS_THAT_DRAW[name], "seed": SEED}
    results = []
    for cores in (1, 2):
        journal = Journal(start_worker().wait_ready())
        journal.done("load_bundle", bundle=bundle_text)
        seq = journal.connection.request(orjson.dumps(fields), cores=cores)
        _, answer = journal.connection.reply(seq)
        assert answer["success"], answer
        journal.entries.append({"command": fields, "success": True})
        results.append(summarized_results(bundle_of(journal.connection)))
    script = journal.script()
    assert "results differ" not in script
    called = f"seed_random_numbers({SEED})"
    assert called in script
    results.append(summarized_results(run(script, tmp_path)[0]))
    with_numpy_alone = script.replace(called, f"import numpy\nnumpy.random.seed({SEED})")
    results.append(summarized_results(run(with_numpy_alone, tmp_path)[0]))
    first, *others = results
    if name != "differential_evolution":  # which does not tell
        failed = next(value for (twig, _), value in first.items() if "failed_samples@" in twig)
        assert failed, "no sample failed"
    for other in others:
        assert_same_results(other, first)


def assert_same_results(got: dict[Any, Any], expected: dict[Any, Any]) -> None:
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert_close(got[key], value, key)


def test_a_seed_gives_dynesty_the_same_numbers_on_any_number_of_cores(
    start_worker: Callable[..., Worker], bundle_text: str
) -> None:
    """Stock PHOEBE runs dynesty only with a pool of processes, for which seeds have no effect."""
    results = []
    for cores in (1, 2):
        connection = start_worker().wait_ready()
        connection.result("load_bundle", bundle=bundle_text)
        _, answer = connection.reply(connection.request(orjson.dumps(NESTED), cores=cores))
        assert answer["success"], answer
        results.append(summarized_results(bundle_of(connection)))
    assert results[0]
    assert_same_results(results[1], results[0])


def test_another_seed_gives_others(connection: Connection, bundle_text: str) -> None:
    connection.result("load_bundle", bundle=bundle_text)
    drawn = []
    for seed in (0, 1, random_numbers.SEED_MAX):
        options = {"sample_from": "one", "overwrite": True, **SAMPLES}
        connection.result("run_compute", seed=seed, **options)
        drawn += connection.result("get_value", qualifier="samples", context="model")
    assert_all_differ(drawn)


@pytest.mark.parametrize("name", [name for name in COMMANDS if COMMANDS[name].kind == "long"])
@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "1", [1]])
def test_invalid_seeds(connection: Connection, name: str, seed: Any) -> None:
    assert connection.error(name, seed=seed).startswith("seed must be a whole number from 0 to")


def test_phoebe_has_no_option_of_that_name() -> None:
    """An option `seed` of PHOEBE would be hidden."""
    b = phoebe.default_binary()
    for method in (b.run_compute, b.run_solver):
        assert "seed" not in inspect.signature(method).parameters
    for kind in phoebe.list_available_computes():
        b.add_compute(kind, compute=f"with_{kind.split('.')[-1]}")
    for kind in phoebe.list_available_solvers():
        b.add_solver(kind, solver=f"with_{kind.split('.')[-1]}")
    assert "seed" not in b.filter(check_visible=False, check_default=False).qualifiers
