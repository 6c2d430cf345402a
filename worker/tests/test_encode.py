"""Every kind of value that PHOEBE returns becomes JSON that clients understand."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from astropy import units

from phoebe_worker.encode import encode


class Text(str):
    """A subclass of `str`, as a library might return."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ("é", "é"),
        (Text("a"), "a"),
        (math.nan, None),
        ([math.inf, -math.inf, 1.5], [None, None, 1.5]),
        ({"a": {"b": math.nan}}, {"a": {"b": None}}),
        (np.float64(1.5), 1.5),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (np.int64(-3), -3),
        (np.uint8(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.longdouble(0.5), 0.5),
        (np.array([1.0, np.nan, np.inf]), [1.0, None, None]),
        (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (np.arange(6).reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),
        (np.arange(6.0)[::2], [0.0, 2.0, 4.0]),
        (np.array([1.5, 2.5], dtype=">f8"), [1.5, 2.5]),
        (np.array([1, 2], dtype=">i4"), [1, 2]),
        (np.array([0.5], dtype=np.float16), [0.5]),
        (np.array([0.5], dtype=np.longdouble), [0.5]),
        (np.array([True, False]), [True, False]),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (np.array([np.float64(1.0), "a", None], dtype=object), [1.0, "a", None]),
        (np.array(2.5), 2.5),
        (np.array([]), []),
        ((1, 2), [1, 2]),
        ({"b", "a"}, ["a", "b"]),
        (b"abc", "abc"),
        (2 + 1j, {"real": 2.0, "imag": 1.0}),
        ({1: "a", 2.5: "b", None: "c"}, {"1": "a", "2.5": "b", "null": "c"}),
        ({(1, 2): "a"}, {"(1, 2)": "a"}),
        ({np.str_("a"): 1}, {"a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        ("\ud800", "?"),
        ({"\ud800": "a"}, {"?": "a"}),
        (2**64, float(2**64)),
        (-(2**63), -(2**63)),
        (10**400, str(10**400)),
        (units.d, "d"),
        (units.solRad, "solRad"),
        (units.dimensionless_unscaled, ""),
        (1.5 * units.d, {"value": 1.5, "unit": "d"}),
        (math.nan * units.d, {"value": None, "unit": "d"}),
        ([1.0, 2.0] * units.km, {"value": [1.0, 2.0], "unit": "km"}),
    ],
    ids=repr,
)
def test_value(value: Any, expected: Any) -> None:
    encoded = json.loads(encode(value))
    assert encoded == expected
    assert type(encoded) is type(expected)


@pytest.mark.parametrize("value", [object(), {"a": [object()]}, lambda: 1], ids=repr)
def test_values_that_json_cannot_represent(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        encode(value)


def test_recursive_values() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(TypeError):
        encode(endless)


@pytest.fixture(scope="module")
def bundle() -> Any:
    import phoebe

    return phoebe.default_binary()


def test_parameters(bundle: Any) -> None:
    encoded = json.loads(encode(bundle.get_parameter("period@binary@component")))
    assert encoded["quantity"] == {"value": 1.0, "unit": "d"}
    assert encoded["limits"] == [{"value": 1e-06, "unit": "d"}, None]
    found = bundle.filter("teff", context="component")
    assert [p["component"] for p in json.loads(encode(found))] == ["primary", "secondary"]


def test_every_parameter_of_a_default_bundle(bundle: Any) -> None:
    for parameter in bundle.to_list():
        encoded = json.loads(encode(parameter.to_dict()))
        assert encoded["uniqueid"] == parameter.uniqueid


def test_arrays_and_distributions_of_phoebe() -> None:
    import phoebe

    assert json.loads(encode(phoebe.linspace(0, 1, 3))) == [0.0, 0.5, 1.0]
    assert json.loads(encode(phoebe.gaussian(1.0, 0.5)))["scale"] == 0.5
