"""Arguments of commands: PHOEBE's arrays in JSON, morphologies, classes with own commands."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import phoebe
import pytest
from harness import Connection
from phoebe.dependencies import nparray
from phoebe.parameters import parameters as phoebe_parameters
from test_script import Journal, assert_equal, bundle_of, journal, run

from phoebe_worker.commands import COMMANDS
from phoebe_worker.commands.arguments import decoded, literal
from phoebe_worker.commands.parameters import COMMAND_BY_CLASS
from phoebe_worker.templates import MORPHOLOGIES, morphology_named

__all__ = ["journal"]

OURS = [name for name in COMMANDS if not name.startswith("test_")]


def linspace(start: float, stop: float, num: int) -> dict[str, Any]:
    return {"nparray": "linspace", "start": start, "stop": stop, "num": num}


def arange(start: float, stop: float, step: float) -> dict[str, Any]:
    return {"nparray": "arange", "start": start, "stop": stop, "step": step}


# Regular arrays


@pytest.mark.parametrize("name", OURS)
def test_every_command_takes_arrays_as_phoebe_writes_them(name: str) -> None:
    """At any depth: a value, one for each component, one of a list of parameters."""
    form = linspace(0, 1, 5)
    fields = {"plain": form, "each": {"primary": form}, "parameters": [{"value": form}], "n": [1]}
    arguments, _ = COMMANDS[name].decoded_arguments(fields)
    for array in (
        arguments["plain"],
        arguments["each"]["primary"],
        arguments["parameters"][0]["value"],
    ):
        assert np.array_equal(array.array, np.linspace(0, 1, 5))
    assert arguments["n"] == [1]
    assert fields["plain"] == form, "the journal keeps what was sent"


@pytest.mark.parametrize(
    "array",
    [
        phoebe.linspace(0, 1, 7),
        phoebe.arange(0, 1, 0.25),
        phoebe.logspace(0, 2, 5),
        phoebe.geomspace(1, 9, 3),
        phoebe.invspace(1, 9, 3),
        nparray.array([1.5, 2.5]),
        nparray.zeros(3),
        nparray.ones(3),
        nparray.full(3, 7.0),
    ],
    ids=lambda array: type(array).__name__,
)
def test_every_kind_of_array(array: Any) -> None:
    form = array.to_dict()
    assert np.array_equal(decoded(form).array, array.array)
    assert np.array_equal(eval(literal([form]))[0].array, array.array)


@pytest.mark.parametrize("form", [{"nparray": "nosuch"}, {"nparray": 5}, {"nparray": "linspace"}])
def test_invalid_descriptions_of_arrays(connection: Connection, form: dict[str, Any]) -> None:
    error = connection.error("add_dataset", kind="lc", dataset="lc01", times=form)
    assert "describes no array" in error
    assert connection.result("get_datasets") == {"datasets": {}}


def test_arrays_reach_phoebe_and_the_script(journal: Journal, tmp_path: Path) -> None:
    done = journal.done
    done("add_dataset", kind="lc", dataset="lc01", times=linspace(0, 1, 5))
    rv_times = {"primary": arange(0, 1, 0.25), "secondary": linspace(0, 1, 3)}
    done("add_dataset", kind="rv", dataset="rv01", times=rv_times)
    wavelengths = linspace(549, 551, 7)
    done("add_dataset", kind="lp", dataset="lp01", times=[0.1], wavelengths=wavelengths)
    done("add_dataset", kind="lc", dataset="lc02", compute_phases=linspace(-0.5, 0.5, 3))
    done("set_value", twig="fluxes@lc01@dataset", value=linspace(1, 2, 5))
    done("set_value_all", qualifier="sigmas", dataset="lc01", value=linspace(0.01, 0.02, 5))
    periods = linspace(0.5, 2, 4)
    solver = {"kind": "estimator.lc_periodogram", "solver": "periods", "sample_mode": "manual"}
    done("add_solver", **solver, sample_periods=periods)
    done("run_solver", solver="periods", solution="found", sample_periods=linspace(0.5, 2, 3))
    model = done("run_compute", ntriangles=100, dataset="lc02", times=linspace(0, 0.5, 2))["model"]
    assert model["lc02"]["times"] == [0.0, 0.5]
    read = journal.connection.result
    assert read("get_value", twig="times@primary@rv01@dataset") == [0.0, 0.25, 0.5, 0.75]
    assert read("get_value", twig="times@secondary@rv01@dataset") == [0.0, 0.5, 1.0]
    assert read("get_value", twig="sigmas@lc01@dataset")[-1] == 0.02
    built, _ = run(journal.script(), tmp_path)
    assert_equal(built, bundle_of(journal.connection))


# Morphologies


@pytest.mark.parametrize(
    "name", ["Semi-detached", "SEMI-DETACHED", "semi_detached", "Semi Detached", "Contact"]
)
def test_morphologies_in_any_case(journal: Journal, tmp_path: Path, name: str) -> None:
    journal.done("set_morphology", morphology=name)
    other = {"contact": "primary@envelope", "semi-detached": "requiv@primary"}
    assert morphology_named(name) in other
    built, _ = run(journal.script(), tmp_path)
    assert_equal(built, bundle_of(journal.connection))


def test_every_morphology_is_known_by_its_name() -> None:
    assert [morphology_named(name.title()) for name in MORPHOLOGIES] == list(MORPHOLOGIES)


# Parameters with a command of their own


# Classes that `set_value` can change. A JobParameter rejects changes by itself.
PLAIN = {
    "Parameter", "StringParameter", "TwigParameter", "ChoiceParameter", "SelectParameter",
    "SelectTwigParameter", "BoolParameter", "UnitParameter", "DictParameter", "IntParameter",
    "DistributionParameter", "FloatParameter", "FloatArrayParameter", "ArrayParameter",
    "JobParameter", "CodeParameter",
}  # fmt: skip


def test_every_class_of_parameters_is_known() -> None:
    classes = {
        name
        for name, each in vars(phoebe_parameters).items()
        if inspect.isclass(each) and issubclass(each, phoebe_parameters.Parameter)
    }
    assert classes == PLAIN | COMMAND_BY_CLASS.keys()
    assert set(COMMAND_BY_CLASS.values()) <= COMMANDS.keys()


def test_every_setter_of_a_bundle_is_a_command() -> None:
    own = {name for name in vars(phoebe.Bundle) if name.startswith("set_")}
    assert own <= COMMANDS.keys()


@pytest.mark.parametrize("command", ["set_value", "set_value_all"])
@pytest.mark.parametrize(
    ("filters", "instead"),
    [
        ({"twig": "hierarchy@system"}, "set_hierarchy"),
        ({"qualifier": "hierarchy"}, "set_hierarchy"),
        ({"twig": "q@binary@constraint"}, "flip_constraint"),
        ({"qualifier": "logg", "component": "primary", "context": "constraint"}, "flip_constraint"),
    ],
)
def test_what_has_a_command_of_its_own_is_not_set(
    journal: Journal, command: str, filters: dict[str, Any], instead: str
) -> None:
    before = journal.connection.result("get_parameter", **filters)
    error = journal.do(command, **filters, value="1")["error"]
    assert f'Send the command "{instead}"' in error
    assert journal.connection.result("get_parameter", **filters) == before
    assert journal.entries == [], "a script would set it"


def test_set_hierarchy(journal: Journal, tmp_path: Path) -> None:
    """Swapping the stars updates the constraints."""
    swapped = "orbit:binary(star:secondary, star:primary)"
    journal.done("set_value", twig="mass@primary@component", value=2.0)
    journal.done("add_dataset", kind="rv", dataset="rv01", compute_phases=[0.25])
    before = journal.done("run_compute", ntriangles=100)["model"]["rv01"]["components"]
    journal.done("set_hierarchy", value=swapped)
    after = journal.done("run_compute", ntriangles=100)["model"]["rv01"]["components"]
    assert before["primary"]["rvs"][0] * after["primary"]["rvs"][0] < 0
    assert journal.connection.result("get_value", twig="hierarchy@system") == swapped
    built, _ = run(journal.script(), tmp_path)
    assert_equal(built, bundle_of(journal.connection))


@pytest.mark.parametrize(
    "value",
    [
        5,
        "",
        "garbage",
        "star:primary",
        "orbit:binary(star:primary",
        "orbit:binary(star:primary, star:nosuch)",
        "orbit:binary(star:primary, star:primary)",
        "orbit:binary(star:primary, orbit:binary)",
    ],
)
def test_invalid_hierarchies_change_nothing(journal: Journal, value: Any) -> None:
    before = journal.connection.exported("pickle")
    error = journal.do("set_hierarchy", value=value)["error"]
    assert "orbit:binary(star:primary, star:secondary)" in error
    assert journal.entries == []
    assert len(journal.connection.exported("pickle")) == pytest.approx(len(before), rel=0.01)
    twigs = journal.connection.result("get_value", twig="hierarchy@system")
    assert twigs == "orbit:binary(star:primary, star:secondary)"
