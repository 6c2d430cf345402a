"""Every command, with real PHOEBE, beyond what the recordings show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import Connection

PERIOD = {"qualifier": "period", "component": "binary", "context": "component"}
LC = {"kind": "lc", "dataset": "lc01", "compute_phases": [0.0, 0.25]}
RV = {"kind": "rv", "dataset": "rv01", "compute_phases": [0.25]}


# Reading and setting.


@pytest.mark.parametrize("morphology", ["detached", "semi-detached", "contact"])
def test_morphologies(connection: Connection, morphology: str) -> None:
    connection.result("set_value", **PERIOD, value=9.0)
    assert connection.result("set_morphology", morphology=morphology) == {}
    assert connection.result("get_value", **PERIOD) != 9.0
    hierarchy = connection.result("get_value", qualifier="hierarchy")
    assert ("envelope" in hierarchy) == (morphology == "contact")
    for filters in (
        {"qualifier": "mass", "component": "primary", "context": "component"},
        {"qualifier": "mass", "component": "secondary", "context": "component"},
    ):
        assert connection.result("is_parameter_constrained", **filters) is False
    q = {"qualifier": "q", "component": "binary", "context": "component"}
    assert connection.result("is_parameter_constrained", **q) is True
    requiv = {"qualifier": "requiv", "component": "primary", "context": "component"}
    assert connection.result("is_parameter_constrained", **requiv) is (
        morphology == "semi-detached"
    )
    connection.result("add_dataset", **LC)
    model = connection.result("run_compute")["model"]
    assert all(flux > 0 for flux in model["lc01"]["fluxes"])


def test_change_morphology_is_the_older_name(connection: Connection) -> None:
    assert connection.result("change_morphology", morphology="contact") == {}
    assert "envelope" in connection.result("get_value", qualifier="hierarchy")


def test_an_unknown_morphology_changes_nothing(connection: Connection) -> None:
    connection.result("set_value", **PERIOD, value=9.0)
    assert connection.error("set_morphology", morphology=["contact"])
    assert connection.error("set_morphology", morphology="round") == "Unknown morphology: round"
    assert connection.result("get_value", **PERIOD) == 9.0


def test_new_bundle(connection: Connection) -> None:
    connection.result("set_value", **PERIOD, value=9.0)
    connection.result("add_dataset", **LC)
    for _ in range(2):
        assert connection.result("new_bundle") == {}
        assert connection.result("get_value", **PERIOD) == 1.0
        assert connection.result("get_datasets") == {"datasets": {}}
        connection.result("set_value", **PERIOD, value=9.0)


def test_phoebe_options_reach_phoebe(connection: Connection) -> None:
    assert connection.result("get_value", **PERIOD, unit="h") == pytest.approx(24.0)
    connection.result("set_value", **PERIOD, value=48.0, unit="h")
    assert connection.result("get_value", **PERIOD) == pytest.approx(2.0)
    assert connection.result("get_value", twig="nosuch", default=5.0) == 5.0


def test_update_uniqueid_is_get_uniqueid(connection: Connection) -> None:
    uniqueid = connection.result("get_uniqueid", **PERIOD)
    assert connection.result("update_uniqueid", **PERIOD) == uniqueid
    assert "2 results found" in connection.error("get_uniqueid", twig="teff@component")


def test_arrays_and_choices(connection: Connection) -> None:
    connection.result("add_dataset", **LC)
    phases = {"qualifier": "compute_phases", "dataset": "lc01"}
    connection.result("set_value", **phases, value=[0.1, 0.2, 0.3])
    assert connection.result("get_value", **phases) == [0.1, 0.2, 0.3]
    assert connection.result("get_parameter", **phases)["Class"] == "FloatArrayParameter"
    passband = connection.result("get_parameter", qualifier="passband", dataset="lc01")
    assert passband["choices"] == ["Johnson:V", "Bolometric:900-40000"]
    assert "must be one of" in connection.error(
        "set_value", qualifier="passband", dataset="lc01", value="No:U"
    )


# The client's own parameters.


def attach(connection: Connection, *parameters: dict[str, Any]) -> list[str]:
    result = connection.result("attach_parameters", parameters=list(parameters))
    return list(result["unique_ids"])


def test_attached_parameters_of_each_type(connection: Connection) -> None:
    uniqueids = attach(
        connection,
        {"ptype": "choice", "qualifier": "backend", "value": "a", "choices": ["a", "b"]},
        {"ptype": "int", "qualifier": "points", "value": 3, "limits": [1, 5]},
        {"ptype": "float", "qualifier": "width", "value": 1.5, "default_unit": "d"},
        {"ptype": "bool", "qualifier": "folded", "value": False, "description": "Folded?"},
        {"ptype": "string", "qualifier": "title", "value": "é"},
    )
    values = [connection.result("get_value", uniqueid=each) for each in uniqueids]
    assert values == ["a", 3, 1.5, False, "é"]
    width = connection.result("get_parameter", uniqueid=uniqueids[2])
    assert (width["context"], width["quantity"]) == ("ui", {"value": 1.5, "unit": "d"})
    connection.result("set_value", twig="backend@ui", value="b")
    assert connection.result("get_value", twig="backend@ui") == "b"
    assert connection.error("set_value", twig="backend@ui", value="c")
    assert connection.error("set_value", twig="points@ui", value=6)


def test_attach_is_all_or_nothing(connection: Connection) -> None:
    good = {"ptype": "string", "qualifier": "title", "value": "a"}
    for bad in ({"ptype": "quaternion", "qualifier": "x"}, {"ptype": "float"}, "text"):
        assert connection.error("attach_parameters", parameters=[good, bad])
    assert connection.error("attach_parameters", parameters={"a": 1})
    assert connection.result("get_uniqueid", twig="title@ui") is None


def test_attach_params_is_the_older_name(connection: Connection) -> None:
    new = {"ptype": "string", "qualifier": "title", "value": "a"}
    assert len(connection.result("attach_params", parameters=[new])["unique_ids"]) == 1


def test_copy_for(connection: Connection) -> None:
    connection.result("add_dataset", **LC)
    attach(
        connection,
        {
            "ptype": "float",
            "qualifier": "phase_min",
            "value": -0.5,
            "dataset": "_default",
            "copy_for": {"kind": ["lc", "rv"], "dataset": "*"},
        },
    )
    connection.result("add_dataset", **RV)
    for dataset in ("lc01", "rv01"):
        assert connection.result("get_value", twig=f"phase_min@{dataset}@ui") == -0.5
    connection.result("remove_dataset", dataset="rv01")
    assert connection.result("get_uniqueid", twig="phase_min@rv01@ui") is None
    assert connection.result("get_value", twig="phase_min@lc01@ui") == -0.5
    assert connection.result("get_datasets") == {"datasets": {"lc01": {"kind": "lc"}}}


# Datasets and computes.


def test_remove_dataset_removes_its_model(connection: Connection) -> None:
    connection.result("add_dataset", **LC)
    connection.result("add_dataset", **RV)
    connection.result("run_compute")
    connection.result("remove_dataset", dataset="lc01")
    assert connection.result("get_uniqueid", qualifier="fluxes", context="model") is None
    assert connection.result("get_value", qualifier="rvs", component="primary", context="model")
    connection.result("add_dataset", **LC)
    assert set(connection.result("run_compute")["model"]) == {"lc01", "rv01"}


def test_a_failed_compute_keeps_the_earlier_model(connection: Connection) -> None:
    connection.result("add_dataset", **LC)
    connection.result("run_compute")
    fluxes = {"qualifier": "fluxes", "context": "model"}
    before = connection.result("get_value", **fluxes)
    connection.result("set_value", qualifier="requiv", component="primary", value=50.0)
    assert "failed to pass checks" in connection.error("run_compute")
    assert connection.result("get_value", **fluxes) == before


def test_named_models(connection: Connection) -> None:
    connection.result("add_dataset", **LC)
    first = connection.result("run_compute", model="first")["model"]
    assert "already in use" in connection.error("run_compute", model="first")
    connection.result("set_value", qualifier="teff", component="primary", value=5000.0)
    second = connection.result("run_compute", model="second")["model"]
    assert first["lc01"]["fluxes"] != second["lc01"]["fluxes"]
    assert connection.result("run_compute", model="first", overwrite=True)["model"] == second


def test_times_and_phases(connection: Connection) -> None:
    connection.result("set_value", **PERIOD, value=2.0)
    connection.result("add_dataset", kind="lc", dataset="lc01", times=[0.5, 2.5, 3.5])
    lc = connection.result("run_compute")["model"]["lc01"]
    assert lc["times"] == [0.5, 2.5, 3.5]
    assert lc["phases"] == pytest.approx([0.25, 0.25, -0.25])


def test_a_disabled_dataset_is_left_out(connection: Connection) -> None:
    connection.result("add_dataset", **LC)
    connection.result("add_dataset", **RV)
    connection.result("set_value", qualifier="enabled", dataset="lc01", value=False)
    assert set(connection.result("run_compute")["model"]) == {"rv01"}


def test_a_compute_without_datasets(connection: Connection) -> None:
    answer = connection.send("run_compute")
    assert answer["success"] is False or answer["result"] == {"model": {}}


def test_other_kinds_of_datasets(connection: Connection) -> None:
    connection.result("add_dataset", kind="orb", dataset="orb01", compute_times=[0.0, 0.5])
    connection.result("add_dataset", kind="mesh", dataset="mesh01", compute_times=[0.0])
    model = connection.result("run_compute")["model"]
    assert model["orb01"]["times"] == [0.0, 0.5]
    assert connection.result("get_value", qualifier="us", component="primary", context="model")


# Whole Bundles.


def test_bundles_are_exchanged_without_a_loss(connection: Connection) -> None:
    connection.result("set_value", **PERIOD, value=2.5)
    connection.result("add_dataset", **LC)
    attach(connection, {"ptype": "string", "qualifier": "title", "value": "Algol"})
    model = connection.result("run_compute")["model"]
    uniqueid = connection.result("get_uniqueid", twig="title@ui")
    text = connection.result("save_bundle")["bundle"]
    connection.result("new_bundle")
    assert connection.result("load_bundle", bundle=text) == {}
    assert connection.result("get_value", **PERIOD) == 2.5
    assert connection.result("get_value", uniqueid=uniqueid) == "Algol"
    fluxes = connection.result("get_value", qualifier="fluxes", context="model")
    assert fluxes == model["lc01"]["fluxes"]
    assert json.loads(connection.result("get_bundle")["bundle"]) == json.loads(text)
    assert connection.result("run_compute")["model"] == model


@pytest.mark.parametrize("bundle", ["[]", "{}", "5", "null", '[{"a": 1}]', 5, None, [1], ""])
def test_invalid_bundles_change_nothing(connection: Connection, bundle: Any) -> None:
    connection.result("set_value", **PERIOD, value=2.5)
    assert connection.error("load_bundle", bundle=bundle)
    assert connection.result("get_value", **PERIOD) == 2.5


def test_stock_phoebe_opens_what_is_saved(connection: Connection) -> None:
    import io

    import phoebe

    connection.result("set_value", **PERIOD, value=2.5)
    text = connection.result("save_bundle")["bundle"]
    opened = phoebe.Bundle.open(io.StringIO(text))
    assert opened.get_value("period@binary@component") == 2.5
