"""Migration of Bundles keeps every value, constraint and distribution."""

from __future__ import annotations

import gzip
import inspect
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import phoebe
import pytest
from astropy import units
from harness import Connection

from phoebe_worker import accelerate, migration, portable

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.glob("phoebe-2*.gz"))

Fields = dict[str, Any]

TAGS = (
    "qualifier", "time", "feature", "component", "dataset", "distribution", "compute", "model",
    "solver", "solution", "figure", "server", "context",
)  # fmt: skip
NEW_NAMES = {"compute_phases_t0": "phases_t0"}
TARGET = ("qualifier", "component", "dataset", "feature")

# Values that differ from the file: before which version, context, qualifier, and the reason.
KNOWN = [
    ("99", "setting", "phoebe_version", "it is this PHOEBE's"),
    ("2.5", "dataset", "rv_offset", "moved to a feature"),
    ("2.5", "compute", "boosting_method", "it had one choice; it is of datasets since"),
    ("2.4", "feature", "log_S0", "converted to what celerite2 has"),
    ("2.4", "feature", "log_Q", "converted to what celerite2 has"),
    ("2.4", "feature", "log_omega0", "converted to what celerite2 has"),
    ("2.4", "feature", "log_sigma", "converted to what celerite2 has"),
    ("2.4", "feature", "log_rho", "converted to what celerite2 has"),
    ("2.3", "dataset", "ebv", "moved to the system, which has one"),
    ("2.3", "dataset", "Av", "moved to the system, which has one"),
    ("2.3", "dataset", "Rv", "moved to the system, which has one"),
    ("2.3", "compute", "lc_method", "removed; told in the notice"),
    ("2.3", "setting", "log_history", "commands are not kept in the Bundle any more"),
    ("2.2", "dataset", "pblum_ref", "pblum_mode and pblum_component since"),
    ("2.2", "dataset", "l3", "its unit was wrong"),
    ("2.2", "dataset", "ld_func", "interp is a choice of ld_mode since"),
    ("2.2", "setting", "plotting_backend", "removed"),
    ("2.1", "component", "rpole", "converted to requiv"),
    ("2.1", "component", "pot", "of a star: converted to requiv"),
    ("2.1", "feature", "colon", "converted to colat and long"),
    *[("2.1", "component", qualifier, "PHOEBE 2.0 does not solve flipped ecosw and esinw together")
      for qualifier in ("ecc", "per0", "t0_perpass", "t0_ref", "mean_anom")],
    ("2.1", "component", "phshift", "removed"),
    ("2.1", "compute", "protomesh", "removed; told in the notice"),
    ("2.1", "compute", "pbmesh", "removed; told in the notice"),
    ("2.1", "compute", "horizon", "removed; told in the notice"),
    ("2.1", "system", "vgamma", "its sign was the other"),
    ("2.4", "solver", "maxfev", "removed; told in the notice"),
]


def release(path: Path) -> tuple[int, ...]:
    return tuple(map(int, path.name.removeprefix("phoebe-").split(".phoebe")[0].split(".")))


def known(path: Path, fields: Fields) -> bool:
    return any(
        release(path) < tuple(map(int, before.split(".")))
        and (fields["context"], fields["qualifier"]) == (context, qualifier)
        for before, context, qualifier, _ in KNOWN
    )


def agreement(path: Path) -> float:
    """The tolerance of computed values: PHOEBE 2.0 had another gravitational constant."""
    return 1e-3 if release(path) < (2, 1) else 1e-6


def tags(fields: Fields) -> tuple[Any, ...]:
    return tuple(
        round(float(fields["time"]), 6)
        if name == "time" and fields.get("time") is not None
        else fields.get(name)
        for name in TAGS
    )


def identified(parameters: list[Fields]) -> dict[tuple[Any, ...], Fields]:
    """The parameters by tags. Of figures, several with the same tags differ in visibility."""
    times = Counter(map(tags, parameters))
    return {
        (*tags(each), each.get("visible_if") if times[tags(each)] > 1 else None): each
        for each in parameters
    }


def target(fields: Fields) -> tuple[Any, ...]:
    return tuple(fields.get(name) for name in TARGET)


def constrained(parameters: list[Fields]) -> set[tuple[Any, ...]]:
    return {target(each) for each in parameters if each["context"] == "constraint"}


def renamed(fields: Fields, key: tuple[Any, ...]) -> tuple[Any, ...]:
    """The tags of the parameter that replaces one with these tags."""
    if fields["qualifier"] == "times" and fields.get("kind") in ("mesh", "orb"):
        once = {**fields, "qualifier": "compute_times", "component": None}
        return (*tags(once), None)
    return (NEW_NAMES.get(key[0], key[0]), *key[1:])


def differ(one: Fields, other: Fields, tolerance: float) -> bool:
    """Whether the values of two parameters differ, in any units."""
    values = [each.get("value") for each in (one, other)]
    if values[0] == values[1] and one.get("default_unit") == other.get("default_unit"):
        return False
    if one["Class"] == "UnitParameter":
        return units.Unit(values[0]) != units.Unit(values[1])  # astropy's order of units may change
    if one["Class"] not in ("FloatParameter", "FloatArrayParameter") or None in values:
        return values[0] != values[1]
    if isinstance(values[0], dict) or isinstance(values[1], dict):
        return values[0] != values[1]
    quantities = [
        np.asarray(value, float) * units.Unit(each.get("default_unit", ""))
        for value, each in zip(values, (one, other), strict=True)
    ]
    if quantities[0].shape != quantities[1].shape:
        return True
    if not quantities[1].unit.is_equivalent(quantities[0].unit):
        return True
    other_value = quantities[1].to(quantities[0].unit).value
    return not np.allclose(
        quantities[0].value, other_value, rtol=tolerance, atol=tolerance * 1e-3, equal_nan=True
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_value_is_the_files(connection: Connection, path: Path) -> None:
    data = gzip.decompress(path.read_bytes())
    answer = connection.restore("file", data)
    assert answer.header["success"], answer.body
    print(json.loads(answer.body)["result"])
    file, now = json.loads(data), json.loads(connection.exported("portable"))
    here, bound, bound_before = identified(now), constrained(now), constrained(file)
    wrong = []
    for key, each in identified(file).items():
        if each["context"] == "constraint" or known(path, each):
            continue
        if each["qualifier"] == "times" and key not in here and not each["value"]:
            continue  # of a star of an orbit, which has times once since
        found = here.get(key) or here.get(renamed(each, key))
        is_bound = each["context"] in ("component", "dataset", "system", "feature") and (
            target(each) in bound
        )
        if found is None:
            wrong.append(("missing", *key))
        elif is_bound and target(each) not in bound_before:
            wrong.append(("constrained now", *key))
        elif differ(each, found, agreement(path) if is_bound else 1e-15):
            wrong.append((each.get("value"), found.get("value"), *key))
    assert not wrong, "\n".join(str([one for one in each if one is not None]) for each in wrong)
    assert len({each["uniqueid"] for each in now}) == len(now)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_constraint_is_the_files(connection: Connection, path: Path) -> None:
    data = gzip.decompress(path.read_bytes())
    connection.restore("file", data)
    file, now = json.loads(data), json.loads(connection.exported("portable"))
    parameters = {target(each) for each in now if each["context"] != "constraint"}
    lost = {each for each in constrained(file) if each in parameters} - constrained(now)
    assert not lost


def test_values_of_one_star_or_dataset_do_not_become_anothers(connection: Connection) -> None:
    """The values that PHOEBE's own migration mixes up, one by one."""
    data = gzip.decompress((DATA / "phoebe-2.4.23.phoebe.gz").read_bytes())
    assert json.loads(connection.restore("file", data).body) == {"success": True, "result": {}}

    def value(qualifier: str, **where: str) -> Any:
        return connection.result("get_value", qualifier=qualifier, **where)

    rv01 = {"dataset": "rv01", "context": "dataset"}
    assert value("rvs", component="primary", **rv01) == [-50.0, -40.0, -30.0]
    assert value("rvs", component="secondary", **rv01) == [60.0, 70.0]
    assert value("times", component="primary", **rv01) == [0.1, 0.2, 0.3]
    assert value("times", component="secondary", **rv01) == [0.15, 0.25]
    phoebe01 = {"compute": "phoebe01", "context": "compute"}
    assert value("ntriangles", component="primary", **phoebe01) == 333
    assert value("ntriangles", component="secondary", **phoebe01) == 777
    assert value("atm", component="primary", **phoebe01) == "blackbody"
    assert value("atm", component="secondary", **phoebe01) == "ck2004"


# Everything else that this PHOEBE can build, as if another version had written it.

OLDER = ["2.4.23", "2.3.63", "2.2.2"]
NEWER = ["2.6.0", "3.0.0"]
# Constraints that no Bundle can have, with the reason.
NO_KIND = {
    "custom": "a user's own; PHOEBE cannot flip it",
    "t0": "another name of t0_perpass_supconj",
    "ph_supconj": "orbits have no parameter of this name",
    "ph_infconj": "orbits have no parameter of this name",
    "ph_perpass": "orbits have no parameter of this name",
    "passband_ratio": "PHOEBE raises NotImplementedError",
}


@pytest.fixture(scope="module", autouse=True)
def fast_phoebe() -> Iterator[None]:
    """The default Bundle of a worker."""
    accelerate.install()
    yield
    accelerate.uninstall()


def binary() -> Any:
    bundle = phoebe.default_binary()
    bundle.add_dataset("lc", dataset="lc01", compute_times=[0.0, 0.25, 0.75])
    bundle.add_feature("spot", component="primary", feature="spot01")
    bundle.add_constraint("impact_param", "binary")
    bundle.add_constraint("semidetached", "secondary")
    bundle.add_constraint("requivfrac", "primary")
    bundle.add_constraint("parallax")
    return bundle


BUNDLES = {
    "binary": binary,
    "contact": lambda: phoebe.default_binary(contact_binary=True),
    "single": phoebe.default_star,
}


def marked(data: bytes, version: str) -> bytes:
    parameters = json.loads(data)
    (said,) = [each for each in parameters if each["qualifier"] == "phoebe_version"]
    said["value"] = version
    return json.dumps(parameters).encode()


def constraints_of(bundle: Any) -> list[Any]:
    return [each for each in bundle._params if each.context == "constraint"]


def flipped(bundle: Any, number: int) -> int:
    """Flip each constraint to the parameter of this number if possible; returns the count."""
    done = 0
    for constraint in constraints_of(bundle):
        solved = constraint.get_constrained_parameter()
        others = {
            each.uniqueid: each
            for each in (constraint.vars + constraint.addl_vars).to_list()
            if each.uniqueid != solved.uniqueid
        }
        if len(others) <= number:
            continue
        other = list(others.values())[number]
        if getattr(other, "_is_constraint", None) is not None or not hasattr(other, "get_quantity"):
            continue
        try:
            bundle.flip_constraint(
                uniqueid=constraint.uniqueid, solve_for=other.uniquetwig, check_nan=False
            )
            done += 1
        except (NotImplementedError, ValueError):
            continue
    return done


def solved_by(bundle: Any) -> set[tuple[Any, ...]]:
    return {
        (each.constraint_func, *target_of(each.get_constrained_parameter()))
        for each in constraints_of(bundle)
    }


def target_of(parameter: Any) -> tuple[Any, ...]:
    return tuple(getattr(parameter, name) for name in TARGET)


def assert_same(bundle: Any, opened: migration.Opened, version: str) -> None:
    assert solved_by(opened.bundle) >= solved_by(bundle), version
    before, now = (
        identified(json.loads(portable.write(each))) for each in (bundle, opened.bundle)
    )
    bound = constrained(list(before.values()))
    for key, each in before.items():
        of_model = each["context"] in ("component", "dataset", "system", "feature")
        if of_model and target(each) not in bound:
            assert not differ(each, now[key], 1e-15), (version, key)


@pytest.mark.parametrize("name", BUNDLES)
def test_constraints_of_any_kind_last_however_they_are_flipped(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, none = 0, 0
    while none < 3:
        bundle = BUNDLES[name]()
        none = 0 if flipped(bundle, number) or number == 0 else none + 1
        data = portable.write(bundle)
        for version in OLDER[number % 3 :][:1] if number else OLDER:
            assert_same(bundle, portable.read(marked(data, version)), version)
        for version in NEWER:
            assert_same(bundle, portable.read(marked(data, version)), version)
        with monkeypatch.context() as later:
            later.setattr(phoebe, "__version__", "2.6.0")
            later.setattr("phoebe.frontend.bundle.__version__", "2.6.0")
            assert_same(bundle, portable.read(data), "read by 2.6.0")
        number += 1


def test_the_walk_knows_all_kinds_of_constraints() -> None:
    kinds = {
        name
        for name, function in inspect.getmembers(phoebe.constraint, inspect.isfunction)
        if not name.startswith("_")
        and function.__module__ == phoebe.constraint.__name__
        and next(iter(inspect.signature(function).parameters), None) in ("b", "args")
    }
    built = {each.constraint_func for build in BUNDLES.values() for each in constraints_of(build())}
    assert kinds - built == NO_KIND.keys()


def test_compute_phases_stay_free(connection: Connection) -> None:
    connection.result(
        "add_dataset", kind="lc", dataset="lc01", compute_phases=[0.0, 0.25], passband="Johnson:V"
    )
    data = marked(connection.exported("portable"), "2.4.23")
    answer = connection.restore("file", data)
    assert answer.header["success"], answer.body
    of = {"dataset": "lc01", "context": "dataset"}
    assert connection.result("get_value", qualifier="compute_phases", **of) == [0.0, 0.25]
    assert not connection.result("is_parameter_constrained", qualifier="compute_phases", **of)
    assert connection.result("is_parameter_constrained", qualifier="compute_times", **of)


@pytest.mark.parametrize(
    ("said", "read_as"),
    [("devel", phoebe.__version__), ("feature-blending", phoebe.__version__), (None, "2.5.4")],
)
def test_an_unknown_version_is_read_by_its_content(
    connection: Connection, said: str | None, read_as: str
) -> None:
    connection.result("set_value", qualifier="incl", component="binary", value=81.5)
    parameters = json.loads(connection.exported("portable"))
    for each in [each for each in parameters if each["qualifier"] == "phoebe_version"]:
        each["value"] = said
        if said is None:
            parameters.remove(each)
    connection.result("new_bundle")
    answer = connection.restore("file", json.dumps(parameters).encode())
    assert answer.header["success"], answer.body
    assert f"read as one of PHOEBE {read_as}" in json.loads(answer.body)["result"]["notice"]
    assert answer.header["notice"] == json.loads(answer.body)["result"]["notice"]
    assert connection.result("get_value", qualifier="incl", component="binary") == 81.5
    same = connection.result("load_bundle", bundle=json.dumps(parameters))
    assert same["notice"] == answer.header["notice"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_content_tells_the_version(path: Path) -> None:
    """The minor release of each file is found without its version."""
    parameters = json.loads(gzip.decompress(path.read_bytes()))
    unnamed = [each for each in parameters if each["qualifier"] != "phoebe_version"]
    written = migration.versions.find_version(unnamed)
    assert written.version.release[:2] == release(path)[:2]
    assert written.notices


def test_what_this_phoebe_refuses_is_told(connection: Connection) -> None:
    parameters = json.loads(marked(connection.exported("portable"), "2.4.23"))
    for each in parameters:
        if (each["qualifier"], each.get("component")) == ("ld_mode_bol", "primary"):
            each["value"] = "as_it_was_once"
        if (each["qualifier"], each.get("component")) == ("gravb_bol", "secondary"):
            each["value"] = 0.125
    answer = connection.restore("file", json.dumps(parameters).encode())
    notice = json.loads(answer.body)["result"]["notice"]
    assert "ld_mode_bol@primary" in notice
    assert "as_it_was_once" in notice
    assert connection.result("get_value", qualifier="gravb_bol", component="secondary") == 0.125
