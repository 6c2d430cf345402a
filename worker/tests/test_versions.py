"""Sessions can use files and snapshots of other versions of PHOEBE and Python."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from harness import Connection
from snapshot_states import content

from phoebe_worker import portable
from phoebe_worker.environment import VARIABLES

DATA = Path(__file__).parent / "data"
PHOEBE_2 = sorted(path for path in DATA.glob("phoebe-2*.gz"))
PHOEBE_1 = sorted(path for path in DATA.glob("phoebe-1*.gz"))
WORKER = Path(__file__).resolve().parents[1]

OTHER = os.environ.get("PHOEBE_TEST_OTHER_PYTHON", "")
needs_other = pytest.mark.skipif(
    not OTHER, reason="PHOEBE_TEST_OTHER_PYTHON names no interpreter with another PHOEBE"
)

MASS = {"qualifier": "mass", "component": "primary", "context": "component"}
SMA = {"qualifier": "sma", "component": "binary", "context": "component"}


def contents(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes())


def value(connection: Connection, twig: str) -> Any:
    return connection.result("get_value", twig=twig)


def assert_still_answers(connection: Connection) -> None:
    """The content that `data/make.py` wrote is present, and further commands work."""
    assert value(connection, "period@binary@component") == 2.345678901234567
    assert value(connection, "incl@binary@component") == 87.5
    assert value(connection, "teff@secondary@component") == 5432.1
    assert value(connection, "times@lc01@dataset") == [0.0, 0.11, 0.25, 1.0 / 3, 0.5]
    assert value(connection, "fluxes@lc01@dataset") == [0.9, 1.0, 1.1, 1.05, 0.95]
    connection.result("set_value", twig="period@binary@component", value=2.5)
    freq = value(connection, "freq@binary@component")
    assert np.isclose(freq, 2 * np.pi / 2.5, rtol=1e-12)
    connection.result("set_value", twig="incl@binary@component", value=88.0)
    if not connection.result("get_datasets")["datasets"].keys() - {"lc01"}:
        return
    for dataset in connection.result("get_datasets")["datasets"].keys() - {"lc01"}:
        connection.result("remove_dataset", dataset=dataset)
    # What the environment lacks: celerite2, and passbands with extinction.
    parameters = json.loads(connection.exported("portable"))
    for feature in {each["feature"] for each in parameters if each["context"] == "feature"}:
        connection.result("remove_feature", feature=feature)
    connection.result("set_value", qualifier="Av", context="system", value=0.0)
    connection.result("add_compute", kind="phoebe", compute="fresh")
    connection.result("set_value_all", twig="enabled@fresh", value=False)
    connection.result("set_value", twig="enabled@lc01@fresh", value=True)
    connection.result("set_value_all", twig="ntriangles@fresh", value=100)
    for qualifier in ("ld_func", "ld_func_bol"):  # the coefficients are of one that has two
        connection.result(
            "set_value_all", qualifier=qualifier, value="logarithmic", check_visible=False
        )
    model = connection.result("run_compute", compute="fresh", irrad_method="none")["model"]
    assert len(model["lc01"]["fluxes"]) == 5
    fluxes = model["lc01"]["fluxes"]
    assert all(flux > 0 for flux in fluxes), fluxes


@pytest.mark.parametrize("form", ["file", "portable"])
@pytest.mark.parametrize("path", PHOEBE_2, ids=lambda path: path.name)
def test_files_of_phoebe_2(connection: Connection, path: Path, form: str) -> None:
    data = contents(path)
    answer = connection.restore(form, data)
    assert answer.header["success"], answer.body
    constrained = {
        name: connection.result("is_parameter_constrained", **tags)
        for name, tags in (("mass", MASS), ("sma", SMA))
    }
    assert constrained == {"mass": False, "sma": True}, "still flipped"
    assert connection.result("get_value", **MASS) == 1.25
    now = {each["uniqueid"] for each in json.loads(connection.exported("portable"))}
    lasting = {("component", "teff"), ("dataset", "times")}
    for each in json.loads(data):
        if "uniqueid" in each and (each["context"], each["qualifier"]) in lasting:
            assert each["uniqueid"] in now, "clients know parameters by these"
    assert connection.result("get_datasets")["datasets"].keys() >= {"lc01", "rv01"}
    assert_still_answers(connection)


@pytest.mark.parametrize("path", PHOEBE_1, ids=lambda path: path.name)
def test_files_of_phoebe_1(connection: Connection, path: Path) -> None:
    answer = connection.restore("file", contents(path))
    assert answer.header["success"], answer.body
    assert value(connection, "period@binary@component") == 2.345678901234567
    assert np.isclose(value(connection, "mass@primary@component"), 1.25, rtol=1e-6)
    assert "lc01" in connection.result("get_datasets")["datasets"]
    connection.result("set_value", twig="period@binary@component", value=2.5)
    freq = value(connection, "freq@binary@component")
    assert np.isclose(freq, 2 * np.pi / 2.5, rtol=1e-12), "constraints are on again"


def test_windows_line_ends_and_another_encoding(connection: Connection) -> None:
    data = contents(PHOEBE_1[0]).replace(b"\n", b"\r\n") + b"\r\n# \xe9\xff\r\n"
    answer = connection.restore("file", data)
    assert answer.header["success"], answer.body
    assert value(connection, "period@binary@component") == 2.345678901234567


def test_the_luminosity_of_phoebe_2_0_is_that_of_the_right_star(connection: Connection) -> None:
    (oldest,) = [path for path in PHOEBE_2 if path.name.startswith("phoebe-2.0")]
    connection.restore("file", contents(oldest))
    assert value(connection, "pblum_component@lc01") == "primary"
    parameters = json.loads(contents(oldest))
    for each in parameters:
        of_stars = each["qualifier"] == "pblum_ref" and each["component"] != "_default"
        if of_stars and each["dataset"] == "lc01":
            each["value"] = "self"
        if each["qualifier"] == "pblum" and each["component"] == "secondary":
            each["value"] = 7.5
    answer = connection.restore("file", orjson.dumps(parameters))
    assert answer.header["success"], answer.body
    assert value(connection, "pblum_mode@lc01") == "decoupled"
    assert value(connection, "pblum@secondary@lc01") == 7.5


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not one that PHOEBE can import"),
        (b"hello", "not one that PHOEBE can import"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not one that PHOEBE can import"),
        (b"{}", "not one that PHOEBE can import"),
        (b"[1, 2", "PHOEBE 2 file cannot be imported"),
        (b"[]", "PHOEBE 2 file cannot be imported"),
        (b"phoebe_lcno = 1\n", "PHOEBE 1 file cannot be imported"),
        (b"phoebe_lcno = x\nphoebe_model = y\n", "PHOEBE 1 file cannot be imported"),
    ],
)
def test_invalid_files(connection: Connection, data: bytes, said: str) -> None:
    before = content(pickle.loads(connection.exported("pickle")))
    answer = connection.restore("file", data)
    assert not answer.header["success"]
    error = json.loads(answer.body)["error"]
    assert said in error
    assert "Accepted is a .phoebe file of PHOEBE 2.0 or later" in error
    assert content(pickle.loads(connection.exported("pickle"))) == before
    connection.result("set_value", twig="period@binary@component", value=2.5)
    freq = value(connection, "freq@binary@component")
    assert np.isclose(freq, 2 * np.pi / 2.5, rtol=1e-12), "a failed import leaves constraints on"


def newer(data: bytes) -> bytes:
    parameters = json.loads(data)
    for each in parameters:
        if each["qualifier"] == "phoebe_version":
            each["value"] = "99.0"
    return orjson.dumps(parameters)


def test_a_newer_phoebe(connection: Connection) -> None:
    """A file of a newer PHOEBE is rejected; a snapshot of a session is read."""
    connection.result("set_value", **MASS, value=3.0)
    data = newer(connection.exported("portable"))
    connection.result("new_bundle")
    refused = connection.restore("file", data)
    assert "newer version of PHOEBE (99.0)" in json.loads(refused.body)["error"]
    assert connection.restore("portable", data).header["success"]
    assert connection.result("get_value", **MASS) == 3.0


def test_stock_phoebe_opens_a_download(connection: Connection, tmp_path: Path) -> None:
    connection.result("add_dataset", kind="mesh", dataset="mesh01", compute_times=[1 / 3])
    connection.result(
        "attach_parameters", parameters=[{"ptype": "string", "qualifier": "note", "value": "é"}]
    )
    connection.result("run_compute", ntriangles=100)
    path = tmp_path / "session.phoebe"
    path.write_bytes(connection.exported("file"))
    code = (
        "import phoebe, sys; b = phoebe.load(sys.argv[1]); print(len(b._params), "
        "b.get_value('note@ui') == 'é', b.filter(dataset='mesh01', context='model').times)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, **VARIABLES},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    count = len(json.loads(connection.exported("portable")))
    assert told.splitlines()[-1] == f"{count} True ['00.333333']"


# An interpreter with another PHOEBE or another Python.

ELSEWHERE = f"""
import os, pickle, sys
sys.path[:0] = [{str(WORKER)!r}, {str(DATA)!r}]
from phoebe_worker.environment import VARIABLES
os.environ.update(VARIABLES)
import phoebe
from phoebe_worker import portable
import make
folder = sys.argv[2]
if sys.argv[1] == "write":
    b = make.build()
    with open(folder + "/portable", "wb") as file:
        file.write(portable.write(b))
    with open(folder + "/pickle", "wb") as file:
        pickle.dump(b, file, 5)
else:
    with open(folder + "/portable", "rb") as file:
        b = portable.read(file.read()).bundle
    b.set_value("incl@binary@component", 80.0)
    if phoebe.__version__ >= sys.argv[3]:  # an earlier one lacks what it would compute with
        b.set_value_all("ntriangles", 100)
        b.run_compute(irrad_method="none", dataset="lc01")
        assert len(b.get_value("fluxes@lc01@model")) == 2
    print("LAST", len(b.datasets), b.get_value("mass@primary@component"))
"""


def run_with_version(*arguments: str) -> str:
    done = subprocess.run(
        [OTHER, "-c", ELSEWHERE, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


@needs_other
def test_snapshots_of_another_version(connection: Connection, tmp_path: Path) -> None:
    run_with_version("write", str(tmp_path))
    pickled = connection.restore("pickle", (tmp_path / "pickle").read_bytes())
    print("pickle of the other version:", pickled.body[:200])
    answer = connection.restore("portable", (tmp_path / "portable").read_bytes())
    assert answer.header["success"], answer.body
    assert connection.result("get_value", **MASS) == 1.25
    assert not connection.result("is_parameter_constrained", **MASS)
    assert_still_answers(connection)


@needs_other
def test_another_version_reads_ours(connection: Connection, tmp_path: Path) -> None:
    connection.result("set_value", **MASS, value=1.25)
    connection.result("add_dataset", kind="lc", dataset="lc01", times=[0.0, 0.25])
    (tmp_path / "portable").write_bytes(connection.exported("portable"))
    told = run_with_version("read", str(tmp_path), "2.5").splitlines()
    assert told[-1] == "LAST 1 1.25"


def test_current_bundles_are_not_migrated() -> None:
    """Reading a Bundle of this version rebuilds nothing."""
    import phoebe

    bundle = phoebe.default_binary()
    data = portable.write(bundle)
    assert content(portable.read(data).bundle) == content(bundle)
