"""Stock and accelerated PHOEBE leave equal Parameters after every change."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from accelerate_bundles import accelerated, built, outcome, phoebe, plain, state

SETS_PER_BUNDLE = 14
CHANGED = ["detached", "semidetached", "contact", "datasets", "features", "attached"]


def both(pickled: bytes, steps: Callable[[Any], Any]) -> tuple[list[Any], list[Any]]:
    """The results of the steps and the final state, with stock and with accelerated PHOEBE."""
    told = []
    for on in (False, True):
        bundle = pickle.loads(pickled)
        with accelerated(on):
            answers = steps(bundle)
        with accelerated(False):
            told.append([answers, *state(bundle, ids=False)])
    return told[0], told[1]


def assert_equal(pickled: bytes, steps: Callable[[Any], Any]) -> list[Any]:
    stock, fast = both(pickled, steps)
    assert fast[0] == stock[0]
    for fast_each, stock_each in zip(fast, stock, strict=True):
        assert fast_each == stock_each
    return stock


@pytest.fixture(scope="module")
def bundles() -> dict[str, bytes]:
    return {name: built(name, False) for name in [*CHANGED, "models"]}


@pytest.mark.parametrize("name", CHANGED)
def test_set_value(bundles: dict[str, bytes], name: str) -> None:
    """Random valid and invalid values: values, results of constraints, failures, errors."""

    def steps(bundle: Any) -> list[Any]:
        random_ = random.Random(7)
        answers = []
        for _ in range(SETS_PER_BUNDLE):
            parameter = random_.choice(settable)
            parameter = bundle._params[parameter]
            value = new_value(parameter, random_)
            answers.append((parameter.twig, outcome(lambda p=parameter, v=value: bundle.set_value(
                twig=p.twig, value=v, check_visible=False))))
        return answers

    original = pickle.loads(bundles[name])
    settable = [
        index
        for index, parameter in enumerate(original._params)
        if parameter.context in ("component", "dataset", "compute", "system", "ui")
        and parameter.component != "_default"
    ]
    physical = [i for i in settable if original._params[i]._in_constraints]
    settable = settable + 4 * physical
    assert_equal(bundles[name], steps)


def new_value(parameter: Any, random_: random.Random) -> Any:
    kind = random_.random()
    if kind < 0.1:
        return random_.choice(["abc", None, [1, 2], -1, {"a": 1}, 1e9])
    if hasattr(parameter, "choices") and parameter.choices:
        return random_.choice(parameter.choices)
    present = parameter.get_value()
    if isinstance(present, bool):
        return not present
    if isinstance(present, np.ndarray):
        return list(np.linspace(0, 1, random_.randint(0, 4)))
    if isinstance(present, int | float):
        return type(present)(present * random_.uniform(0.9, 1.1) + random_.choice([0, 0.01]))
    return "text"


SEQUENCES: dict[str, tuple[str, list[tuple[str, tuple[Any, ...], dict[str, Any]]]]] = {
    "flip and set": (
        "detached",
        [
            ("flip_constraint", ("mass@primary",), {"solve_for": "period@binary"}),
            ("set_value", ("sma@binary",), {"value": 6.0}),
            ("flip_constraint", ("esinw",), {"solve_for": "ecc"}),
            ("set_value", ("esinw@binary",), {"value": 0.1}),
            ("flip_constraint", ("nosuch",), {"solve_for": "ecc"}),
            ("run_delayed_constraints", (), {}),
            ("run_all_constraints", (), {}),
        ],
    ),
    "constraints that fail": (
        "detached",
        [
            ("set_value", ("ecc@binary",), {"value": 0.9}),
            ("set_value", ("requiv@primary@component",), {"value": 5.0}),
            ("set_value", ("q@binary@component",), {"value": 3.0}),
            ("set_value", ("mass@primary@component",), {"value": 1e-9}),
            ("set_value", ("ecc@binary",), {"value": 1.5}),
            ("run_failed_constraints", (), {}),
        ],
    ),
    "datasets of every kind": (
        "detached",
        [
            ("add_dataset", ("lc",), {"dataset": "a", "times": [0, 1], "passband": "Johnson:V"}),
            ("add_dataset", ("lc",), {"dataset": "a"}),
            ("add_dataset", ("lc",), {"dataset": "a", "overwrite": True, "compute_phases": [0.5]}),
            ("add_dataset", ("rv",), {"dataset": "b", "compute_phases": [0.1, 0.2]}),
            ("add_dataset", ("zz",), {"dataset": "z"}),
            ("add_dataset", ("lc",), {"dataset": "n", "passband": "Nope:X"}),
            ("add_dataset", ("mesh",), {"dataset": "m", "compute_times": [0.0]}),
            ("add_dataset", ("orb",), {"dataset": "o", "compute_times": [0.0]}),
            ("add_dataset", ("lp",), {"dataset": "p", "wavelengths": [500.0]}),
            ("set_value", ("compute_phases@b",), {"value": [0.0, 0.5]}),
            ("set_value", ("period@binary",), {"value": 2.5}),
            ("rename_dataset", ("a", "c"), {}),
            ("disable_dataset", ("b",), {}),
            ("remove_dataset", ("b",), {}),
            ("remove_dataset", ("nosuch",), {}),
        ],
    ),
    "features, distributions, solvers": (
        "features",
        [
            ("add_spot", (), {"component": "primary", "feature": "s3"}),
            ("remove_feature", ("spot01",), {}),
            ("rename_component", ("primary", "first"), {}),
            ("add_distribution", ("ecc@binary@component",), {"value": phoebe.uniform(0, 0.1)}),
            ("add_solver", ("optimizer.nelder_mead",), {"solver": "another"}),
            ("set_value", ("fit_parameters@nm",), {"value": ["incl@binary", "teff@first"]}),
            ("add_compute", ("ellc",), {"compute": "other"}),
            ("remove_compute", ("phoebe01",), {}),
        ],
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(bundles: dict[str, bytes], name: str) -> None:
    start, calls = SEQUENCES[name]

    def steps(bundle: Any) -> list[Any]:
        answers = []
        for method, args, kwargs in calls:
            answer = outcome(lambda m=method, a=args, k=kwargs: getattr(bundle, m)(*a, **k))
            # A set of new Parameters has random ids; the state describes the Parameters.
            answers.append(answer if answer[0] == "raised" else type(answer).__name__)
        return answers

    assert_equal(bundles[start], steps)


@pytest.mark.parametrize("name", [*CHANGED, "models"])
def test_checks(bundles: dict[str, bytes], name: str) -> None:
    def steps(bundle: Any) -> list[Any]:
        told = []
        for method in ("run_checks_system", "run_checks_compute", "run_checks_solver",
                       "run_checks_solution", "run_checks_figure", "run_checks_server"):
            report = outcome(lambda m=method: [
                (item.message, item.fail, item._param_uniqueids, item._affects_methods)
                for item in getattr(bundle, m)().items
            ])
            told.append(report)
        return told

    assert_equal(bundles[name], steps)


@pytest.mark.parametrize("name", ["detached", "features"])
def test_a_bundle_read_from_json_is_the_same(bundles: dict[str, bytes], name: str) -> None:
    def steps(bundle: Any) -> list[Any]:
        texts = bundle.to_json(incl_uniqueid=True)
        opened = phoebe.Bundle(bundle.to_json(incl_uniqueid=True))
        return [plain(texts), state(opened)]

    assert_equal(bundles[name], steps)


def test_run_compute_and_its_models(bundles: dict[str, bytes]) -> None:
    """The checks, the copies and the attached model of a compute."""

    def steps(bundle: Any) -> list[Any]:
        bundle.set_value_all("ntriangles", 100)
        bundle.add_dataset("rv", dataset="rv01", compute_phases=[0.1])
        answers = [
            outcome(lambda: bundle.run_compute(model="m").twigs),
            outcome(lambda: bundle.run_compute(compute="nosuch")),
            outcome(lambda: bundle.run_compute(model="m")),
        ]
        bundle.set_value("requiv@primary@component", 50.0)
        answers.append(outcome(lambda: bundle.run_compute(model="n")))
        return answers

    assert_equal(bundles["detached"], steps)
