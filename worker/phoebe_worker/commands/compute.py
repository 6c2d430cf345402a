"""Long commands: forward models and solvers, and the shape in which clients get their results."""

from __future__ import annotations

from typing import Any

import numpy as np

from .registry import Session, command
from .statements import method


@command("run_compute", kind="long", script=method("run_compute"))
def run_compute(session: Session, /, **options: Any) -> dict[str, Any]:
    """PHOEBE's run_compute; answers with the new model, dataset by dataset."""
    new = session.bundle.run_compute(**options)
    label = new.model if new is not None else options.get("model", "latest")
    return {"model": _model(session.bundle, label)}


@command("run_solver", kind="long", script=method("run_solver"))
def run_solver(session: Session, /, **options: Any) -> dict[str, Any]:
    """PHOEBE's run_solver; answers with what was fitted, from where to where."""
    new = session.bundle.run_solver(**options)
    label = new.solution if new is not None else options.get("solution", "latest")
    solution = session.bundle.filter(context="solution", solution=label, check_visible=False)
    fields = {
        "fit_parameters": "fitted_twigs",
        "initial_values": "initial_values",
        "fitted_values": "fitted_values",
    }
    return {
        "solution": {
            name: solution.get_value(qualifier=qualifier, check_visible=False)
            for name, qualifier in fields.items()
            if qualifier in solution.qualifiers
        }
    }


def _model(bundle: Any, label: str) -> dict[str, dict[str, Any]]:
    model = bundle.filter(context="model", model=label, check_visible=False, check_default=False)
    return {name: _dataset(bundle, model.filter(dataset=name), name) for name in model.datasets}


def _dataset(bundle: Any, model: Any, name: str) -> dict[str, Any]:
    """Times, phases, and the fluxes (lc) or radial velocities (rv) of one dataset's model."""
    result: dict[str, Any] = {}
    times = model.filter(qualifier="times").to_list()
    if times:
        result["times"] = times[0].get_value()
        result["phases"] = _phases(bundle, name, result["times"])
    fluxes = model.filter(qualifier="fluxes").to_list()
    if fluxes:
        result["fluxes"] = _one_sample_flat(fluxes[0].get_value())
    stars = bundle.hierarchy.get_stars()
    for star, long_name, short_name in zip(
        stars, ("rvs_primary", "rvs_secondary"), ("rv1s", "rv2s"), strict=False
    ):
        rvs = model.filter(qualifier="rvs", component=star).to_list()
        if rvs:
            result[long_name] = result[short_name] = _one_sample_flat(rvs[0].get_value())
    return result


def _phases(bundle: Any, dataset: str, times: Any) -> Any:
    """The phases that were asked for, where the model has exactly those; else from the times."""
    asked = bundle.filter(dataset=dataset, context="dataset", check_visible=False)
    phases = asked.filter(qualifier="compute_phases", check_visible=False).to_list()
    compute_times = asked.filter(qualifier="compute_times", check_visible=False).to_list()
    if phases and compute_times and np.array_equal(compute_times[0].get_value(), times):
        return phases[0].get_value()
    return bundle.to_phase(times)


def _one_sample_flat(values: Any) -> Any:
    """A compute with a solution answers one row a sample; clients expect a single row flat."""
    return values[0] if np.ndim(values) == 2 and len(values) == 1 else values
