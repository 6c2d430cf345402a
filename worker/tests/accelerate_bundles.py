"""Bundles of all kinds and their states, to compare stock with accelerated PHOEBE.

Each builder runs with both. The state of a Bundle does not include its random unique ids.
"""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from phoebe_worker.environment import VARIABLES

os.environ.update(VARIABLES)

import numpy as np
import phoebe
from phoebe.parameters import ParameterSet, parameters

from phoebe_worker import accelerate

phoebe.progressbars_off()
phoebe.logger(clevel="CRITICAL")


@contextmanager
def accelerated(on: bool) -> Iterator[None]:
    """PHOEBE with all patches, or with none."""
    accelerate.uninstall()
    if on:
        assert accelerate.install() == []
    try:
        yield
    finally:
        accelerate.uninstall()


def detached() -> Any:
    bundle = phoebe.default_binary()
    bundle.add_solver("differential_corrections", solver="dc")
    bundle.flip_constraint("mass@primary", solve_for="sma@binary")
    bundle.flip_constraint("mass@secondary", solve_for="q")
    bundle.add_dataset("lc", dataset="lc01", compute_phases=np.linspace(-0.5, 0.5, 5))
    return bundle


def semidetached() -> Any:
    bundle = phoebe.default_binary(semidetached="primary")
    bundle.set_value("ecc", 0.2)
    bundle.add_dataset("rv", dataset="rv01", times=[0.0, 0.5, 1.0])
    bundle.flip_constraint("ecosw", solve_for="ecc")
    return bundle


def contact() -> Any:
    bundle = phoebe.default_binary(contact_binary=True)
    bundle.add_dataset("lc", dataset="lc01", times=np.linspace(0, 1, 4))
    bundle.flip_constraint("pot", solve_for="requiv@primary")
    return bundle


def triple() -> Any:
    """Two orbits and three stars. PHOEBE 2.5 fails at the constraints; the rest remains."""
    bundle = phoebe.default_binary()
    bundle.add_component("star", component="tertiary")
    bundle.add_component("orbit", component="outer")
    hierarchy = phoebe.hierarchy
    inner = hierarchy.binaryorbit(bundle["binary"], bundle["primary"], bundle["secondary"])
    with suppress(ValueError):
        bundle.set_hierarchy(hierarchy.binaryorbit, bundle["outer"], bundle["tertiary"], inner)
    return bundle


def datasets() -> Any:
    bundle = phoebe.default_binary()
    bundle.add_dataset("lc", dataset="lc01", times=[0.0, 0.1, 0.2], fluxes=[1.0, 0.9, 1.0])
    bundle.add_dataset("lc", dataset="lc02", compute_phases=[0.0, 0.5], pblum_mode="dataset-scaled")
    bundle.add_dataset("rv", dataset="rv01", times=[0.0, 0.1], component="primary")
    bundle.add_dataset("mesh", dataset="mesh01", times=[0.0, 0.25], columns=["teffs", "loggs"])
    bundle.add_dataset("orb", dataset="orb01", times=[0.0, 0.1, 0.2])
    bundle.add_dataset("lp", dataset="lp01", times=[0.0, 0.5], wavelengths=[550.0, 551.0])
    bundle.set_value("l3_mode", dataset="lc01", value="fraction")
    bundle.add_compute("legacy", compute="legacy01")
    bundle.disable_dataset("lc02", compute="legacy01")
    bundle.remove_dataset("orb01")
    bundle.rename_dataset("rv01", "velocities")
    return bundle


def features() -> Any:
    bundle = phoebe.default_binary()
    bundle.add_dataset("lc", dataset="lc01", times=[0.0, 0.1], fluxes=[1.0, 1.0], sigmas=[0.1, 0.1])
    bundle.add_spot(component="primary", feature="spot01", relteff=0.9)
    bundle.add_spot(component="secondary", feature="spot02", relteff=1.1)
    bundle.disable_feature("spot02")
    around, within = phoebe.gaussian_around(100), phoebe.uniform(80, 90)
    bundle.add_distribution("teff@primary@component", around, distribution="d1")
    bundle.add_distribution("incl@binary@component", within, distribution="d1")
    bundle.add_solver("optimizer.nelder_mead", solver="nm", fit_parameters=["teff", "incl@binary"])
    bundle.add_solver("sampler.emcee", solver="mcmc", init_from="d1")
    bundle.add_server("localthread", server="here")
    bundle.add_figure("lc", figure="figure01")
    return bundle


def models() -> Any:
    bundle = phoebe.default_binary()
    bundle.add_dataset("lc", dataset="lc01", times=[0.0, 0.25], fluxes=[1.0, 1.0])
    bundle.add_dataset("mesh", dataset="mesh01", times=[0.1], columns=["teffs"])
    bundle.set_value_all("ntriangles", 100)
    bundle.set_value_all("irrad_method", "none")
    bundle.run_compute(model="first")
    bundle.add_dataset("rv", dataset="rv01", times=[0.3])
    bundle.run_compute(model="second")
    bundle.add_solver("estimator.lc_geometry", solver="geometry")
    return bundle


def attached() -> Any:
    """With parameters of a client, some of them with their own tags and conditions."""
    bundle = phoebe.default_binary()
    bundle.add_dataset("lc", dataset="lc01", times=[0.0])
    make = parameters
    bundle._attach_params(
        [
            make.ChoiceParameter(
                qualifier="backend", value="A", choices=["A", "B"], description="", context="ui"
            ),
            make.StringParameter(qualifier="note", value="x", description="", context="ui",
                                 visible_if="backend:B"),
            make.FloatParameter(qualifier="a@b", value=1.0, description="", context="ui"),
            make.BoolParameter(qualifier="flag", value=True, description="", context="ui",
                               component="primary", visible_if="false"),
            make.IntParameter(qualifier="teff", value=3, description="", context="ui",
                              kind="Other"),
            make.FloatParameter(qualifier="at", value=3.0, time=1.5, description="", context="ui"),
            make.FloatParameter(qualifier="at", value=4.0, time=0.0, description="", context="ui"),
        ]
    )
    return bundle


def broken() -> Any:
    """With an invalid condition, so that every evaluation of visibility fails."""
    bundle = phoebe.default_star()
    bundle._attach_params(
        [parameters.StringParameter(qualifier="note", value="x", description="", context="ui",
                                    visible_if="nonsense")]
    )
    return bundle


BUILDERS: dict[str, Callable[[], Any]] = {
    each.__name__: each
    for each in (
        detached, semidetached, contact, triple, datasets, features, models, attached, broken
    )
}


@functools.cache
def built(name: str, on: bool) -> bytes:
    """The Bundle of that name, pickled, as stock or accelerated PHOEBE builds it; built once."""
    with accelerated(on):
        return pickle.dumps(BUILDERS[name](), 5)


def plain(value: Any) -> Any:
    """A form of the value that `==` compares exactly: by type, by bit, and NaN as equal."""
    if isinstance(value, float | np.floating):
        return type(value).__name__, float(value).hex()
    if isinstance(value, np.ndarray) and hasattr(value, "unit"):
        return type(value).__name__, plain(np.asarray(value.value)), value.unit.to_string()
    if isinstance(value, np.ndarray):
        return "array", str(value.dtype), value.shape, [plain(each) for each in value.ravel()]
    if isinstance(value, parameters.Parameter):
        return "Parameter", value.uniqueid
    if isinstance(value, ParameterSet):
        tags = {field: getattr(value, f"_{field}") for field in parameters._meta_fields_twig}
        ids = [parameter.uniqueid for parameter in value.to_list()]
        return "ParameterSet", ids, plain(value._filter), tags
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value).__name__, [plain(each) for each in value]
    if value is None or isinstance(value, str | int | bool):
        return type(value).__name__, value
    return type(value).__name__, str(value)


def state(bundle: Any, *, ids: bool = True) -> list[Any]:
    """Every Parameter in order: tags, value, limits, and its constraints."""
    order = {p.uniqueid: index for index, p in enumerate(bundle._params)}

    def name(uniqueid: str | None) -> Any:
        return uniqueid if ids or uniqueid is None else order.get(uniqueid, "gone")

    told: list[Any] = [
        [name(each) for each in bundle._delayed_constraints],
        [name(each) for each in bundle._failed_constraints],
    ]
    for parameter in bundle._params:
        is_constraint = isinstance(parameter, parameters.ConstraintParameter)
        value = parameter.get_value() if is_constraint else parameter._value
        told.append(
            (
                type(parameter).__name__,
                [getattr(parameter, field) for field in parameters._meta_fields_twig],
                plain(value),
                str(getattr(parameter, "_default_unit", None)),
                str(getattr(parameter, "_limits", None)),
                str(getattr(parameter, "_choices", None)),
                [name(each) for each in parameter._in_constraints],
                name(parameter._is_constraint),
                str(parameter._visible_if),
                name(parameter.uniqueid),
            )
        )
        if is_constraint:
            told.append([name(variable.unique_label) for variable in parameter._vars])
            told.append([name(p.uniqueid) for p in parameter.vars.to_list()])
    return told


def outcome(call: Callable[[], Any]) -> Any:
    """The outcome of a call: its value, or the type and text of its exception."""
    try:
        return plain(call())
    except Exception as error:
        return "raised", type(error).__name__, str(error)
