"""The result of `run_compute`: the computed values of a model by dataset.

The result has all values of each component, except arrays over the elements of a mesh, which may
take hundreds of MB. It has their twigs instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Names of a dataset's values for each star, in the order of the hierarchy.
_OLDER_NAMES = (("rvs_primary", "rv1s"), ("rvs_secondary", "rv2s"))


def answer(bundle: Any, label: str) -> dict[str, dict[str, Any]]:
    """The datasets of the model with this label."""
    model = bundle.filter(context="model", model=label, check_visible=False, check_default=False)
    parameters = [each for each in model.to_list() if each.dataset is not None]
    names = dict.fromkeys(each.dataset for each in parameters)
    return {
        name: _dataset(bundle, name, [each for each in parameters if each.dataset == name])
        for name in names
    }


def _dataset(bundle: Any, name: str, parameters: list[Any]) -> dict[str, Any]:
    """The values of one dataset, with those of each component."""
    kind = bundle.filter(dataset=name, context="dataset", check_visible=False).kind
    components = _components(bundle, name, [each for each in parameters if each.kind == kind])
    result = dict(components.pop(None, {}))
    for values in components.values():
        if "times" in values and "times" not in result:
            result.update(times=values["times"], phases=values["phases"])
    for star, older_names in zip(bundle.hierarchy.get_stars(), _OLDER_NAMES, strict=False):
        rvs = components.get(star, {}).get("rvs")
        if rvs is not None:
            result.update(dict.fromkeys(older_names, rvs))
    if components:
        result["components"] = components
    # Columns of meshes for this dataset, such as `intensities@lc01`.
    columns = [each for each in parameters if each.kind != kind]
    for other in dict.fromkeys(each.kind for each in columns):
        result[other] = {
            "components": _components(
                bundle, name, [each for each in columns if each.kind == other]
            )
        }
    return result


def _components(bundle: Any, name: str, parameters: list[Any]) -> dict[str | None, dict[str, Any]]:
    """The values of each component, by qualifier; times come first."""
    components: dict[str | None, dict[str, Any]] = {}
    for component in dict.fromkeys(each.component for each in parameters):
        own = [each for each in parameters if each.component == component]
        values = _values(own)
        times = values.pop("times", None)
        if times is not None:
            values = {"times": times, "phases": _phases(bundle, name, times), **values}
        components[component] = values
    return components


def _values(parameters: list[Any]) -> dict[str, Any]:
    """The values by qualifier. Values with a time become lists in the order of times."""
    values = {
        each.qualifier: _flatten_single_sample(each.get_value())
        for each in parameters
        if each._time is None
    }
    by_time = sorted(
        (each for each in parameters if each._time is not None), key=lambda each: float(each._time)
    )
    if by_time:
        values.setdefault("times", list(dict.fromkeys(float(each._time) for each in by_time)))
    for qualifier in dict.fromkeys(each.qualifier for each in by_time):
        same = [each for each in by_time if each.qualifier == qualifier]
        values[qualifier] = _column(same) if same[0].kind == "mesh" else _read(same)
    return values


def _read(parameters: list[Any]) -> list[Any]:
    return [each.get_value() for each in parameters]


def _column(parameters: list[Any]) -> Any:
    """One number for each time; the twigs if the values are arrays over a mesh."""
    if np.ndim(parameters[0].get_value()) == 0:
        return _read(parameters)
    return {"twigs": [each.twig for each in parameters]}


def _phases(bundle: Any, dataset: str, times: Any) -> Any:
    """The requested phases if the model has exactly these; else computed from the times."""
    asked = bundle.filter(dataset=dataset, context="dataset", check_visible=False)
    phases = asked.filter(qualifier="compute_phases", check_visible=False).to_list()
    compute_times = asked.filter(qualifier="compute_times", check_visible=False).to_list()
    if phases and compute_times and np.array_equal(compute_times[0].get_value(), times):
        return phases[0].get_value()
    return bundle.to_phase(times)


def _flatten_single_sample(values: Any) -> Any:
    """Flatten a single row: a compute with a solution returns one row for each sample."""
    return values[0] if np.ndim(values) == 2 and len(values) == 1 else values
