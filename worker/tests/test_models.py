"""The result of `run_compute` has every computed value, for every kind of dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import phoebe
import pytest
from harness import Connection
from test_script import bundle_of

# Each kind of dataset with options, and the qualifiers that it computes.
KINDS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "lc": ({"times": [0.0, 0.1, 0.35]}, {"fluxes"}),
    "rv": ({"times": {"primary": [0.0, 0.1, 0.35], "secondary": [0.2, 0.6]}}, {"rvs"}),
    "lp": (
        {"times": [0.1, 0.2], "wavelengths": [549.0, 549.5, 550.0, 550.5, 551.0]},
        {"wavelengths", "flux_densities"},
    ),
    "orb": ({"compute_times": [0.0, 0.1]}, {"us", "vs", "ws", "vus", "vvs", "vws"}),
    "mesh": (
        {"compute_times": [0.0, 0.1], "columns": ["teffs", "volume"], "coordinates": ["uvw"]},
        {"uvw_elements", "uvw_normals", "teffs", "volume"},
    ),
}


def test_every_kind_of_dataset_is_here() -> None:
    assert KINDS.keys() == set(phoebe.list_available_datasets())


def assert_complete(connection: Connection, model: dict[str, Any]) -> None:
    """Each computed parameter of the Bundle is in the result, by value or by twig."""
    bundle = bundle_of(connection)
    computed = bundle.filter(context="model", check_visible=False, check_default=False).to_list()
    found = 0
    for parameter in computed:
        if parameter.dataset is None:
            continue
        entry = model[parameter.dataset]
        if parameter.kind != bundle.filter(dataset=parameter.dataset, context="dataset").kind:
            entry = entry[parameter.kind]
        if parameter.component is not None:
            entry = entry["components"][parameter.component]
        given = entry[parameter.qualifier]
        if parameter._time is not None:
            place = entry["times"].index(float(parameter._time))
            if isinstance(given, dict):
                given = connection.result("get_value", twig=given["twigs"][place])
            else:
                given = given[place]
        np.testing.assert_array_equal(
            np.array(given, float), np.array(parameter.get_value(), float), str(parameter.twig)
        )
        assert len(entry["phases"]) == len(entry["times"])
        np.testing.assert_allclose(entry["phases"], bundle.to_phase(entry["times"]), atol=1e-12)
        found += 1
    assert found


@pytest.mark.parametrize("morphology", ["detached", "contact"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_answers_what_it_computes(
    connection: Connection, kind: str, morphology: str
) -> None:
    options, qualifiers = KINDS[kind]
    connection.result("set_morphology", morphology=morphology)
    connection.result("add_dataset", kind=kind, dataset="ds01", **options)
    model = connection.result("run_compute", ntriangles=100, irrad_method="none")["model"]
    assert_complete(connection, model)
    dataset = model["ds01"]
    (first, *_) = [*dataset.get("components", {}).values(), dataset]
    assert first.keys() - {"components", "rv1s", "rv2s"} == qualifiers | {"times", "phases"}
    assert dataset["times"] == first["times"]
    assert dataset["phases"] == first["phases"]


def test_each_star_has_its_own_times(connection: Connection) -> None:
    """In addition to the older fields, which have the times of the first star."""
    connection.result("set_value", twig="period@binary@component", value=2.0)
    times = {"primary": [0.0, 0.5, 1.5], "secondary": [0.25, 0.5]}
    connection.result("add_dataset", kind="rv", dataset="rv01", times=times)
    rv = connection.result("run_compute", ntriangles=100)["model"]["rv01"]
    for star, phases in (("primary", [0.0, 0.25, -0.25]), ("secondary", [0.125, 0.25])):
        own = rv["components"][star]
        assert own["times"] == times[star]
        assert own["phases"] == pytest.approx(phases)
        assert own["rvs"] == rv[f"rvs_{star}"]
    assert rv["times"] == times["primary"]
    assert rv["rv2s"] == rv["rvs_secondary"]


def test_columns_of_a_mesh_that_belong_to_other_datasets(connection: Connection) -> None:
    connection.result("add_dataset", kind="lc", dataset="lc01", times=[0.0, 0.2])
    connection.result("add_dataset", kind="rv", dataset="rv01", times=[0.3])
    columns = ["intensities@lc01", "pblum_ext@lc01", "rvs@rv01"]
    connection.result(
        "add_dataset", kind="mesh", dataset="mesh01", compute_times=[0.0, 0.1], columns=columns
    )
    model = connection.result("run_compute", ntriangles=100)["model"]
    assert_complete(connection, model)
    assert model["lc01"].keys() == {"times", "phases", "fluxes", "mesh"}
    assert len(model["rv01"]["components"]["primary"]["rvs"]) == 1
    assert len(model["rv01"]["mesh"]["components"]["primary"]["rvs"]["twigs"]) == 2
    assert len(model["lc01"]["mesh"]["components"]["primary"]["pblum_ext"]) == 2


def test_a_mesh_is_answered_in_few_bytes(connection: Connection) -> None:
    options = {"compute_times": [0.0, 0.1, 0.2], "columns": ["*"], "coordinates": ["xyz", "uvw"]}
    connection.result("add_dataset", kind="mesh", dataset="mesh01", **options)
    seq = connection.start("run_compute", ntriangles=1000)
    _, body = connection.reply_bytes(seq)
    assert len(body) < 50_000
