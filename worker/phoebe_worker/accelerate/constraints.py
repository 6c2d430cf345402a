"""Constraints: the expressions that set one Parameter from others."""

from __future__ import annotations

import logging
import types
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import numpy as np
from phoebe import u
from phoebe.constraints import builtin
from phoebe.frontend import bundle as phoebe_bundle
from phoebe.parameters import parameters as phoebe_parameters

from .matching import match_tag
from .registry import original, patch

_MODULE = "phoebe.parameters.parameters"
_EXPRESSION = "phoebe.constraints.expression"
_RESULT = f"{_MODULE}:ConstraintParameter.get_result"
_RUN = "phoebe.frontend.bundle:Bundle.run_constraint"
_MATH = ("sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2", "sqrt", "log10")
_BUILTIN = tuple(name for name in dir(builtin) if isinstance(getattr(builtin, name), types.FunctionType))
_UNIQUEID_LENGTH = 30
_RUN_KEYS = {"uniqueid", "skip_kwargs_checks", "run_constraints"}
_FLOAT_PARAMETER = phoebe_parameters.FloatParameter


class _NotPlain(Exception):
    """The expression is one that PHOEBE itself shall evaluate."""


@patch(
    _RESULT,
    reason="to evaluate one expression it looked up the unique names of all variables, listed a "
    "module's functions and searched the Bundle for each value several times",
    equal_because="the same text, with the same numbers in it, is evaluated; where that fails, "
    "PHOEBE evaluates it again and raises what it raises",
    checked_with=("2.5.4",),
    guards={
        _RESULT: "ece27e446a4ee0065e4ef3ed32f55422bd89d063617d395f1c7ff6e88d27871f",
        f"{_MODULE}:ConstraintParameter.get_value": "5a0a5e96c53a7ffdb8c5069fdca939757c151c50a690607e1d07c2665d7ba2a1",
        f"{_MODULE}:ConstraintParameter.vars": "19518e60d6381ad8da0652eb5e2dbbd9bca2576b2cc7df8896c7e4b786b0341d",
        f"{_MODULE}:ConstraintParameter.addl_vars": "534ae2e189e25f5f28f4e4cdb16b12009894a6c49204c544aef0a924ddc433d0",
        f"{_MODULE}:ConstraintParameter.get_parameter": "da250df45f447550dddda13bf97962748c6efb3329d53e0c966dce2855b7064b",
        f"{_MODULE}:ConstraintParameter.get_constrained_parameter": "e300c8c809429b1aae68056f6edce0d535bc9aef2ea82d2acb98e2d4f649da26",
        f"{_EXPRESSION}:ConstraintVar.get_parameter": "055f00159796bda6036cb9ccd864d65bd79ea07d0e7ad9a13f672aca6bfd3210",
        f"{_MODULE}:FloatParameter.get_quantity": "ec9f9619baae03f9e9641aa4672dfd202d91b400ab8ee706dab3ae23e89eed23",
        f"{_MODULE}:FloatParameter.default_unit": "070ecd58f897a04285dbcd6060ed8f60f55e748f830c837a8c3aa386219f030a",
        f"{_EXPRESSION}:ConstraintVar.get_quantity": "277401e2aba3512216c513a2a3f3738977d5d9976fff8ff6ecec7a054213b5e2",
        f"{_EXPRESSION}:ConstraintVar.get_value": "361d3462781fcfd21d944c470d3f0822429d4267076f409a79206547de57f489",
        f"{_EXPRESSION}:ConstraintVar.update_user_label": "1f7ea786e5ef089c6683c1ecaeab8eab10f13e7760f30b3198fb5b3c28a89804",
        f"{_MODULE}:ParameterSet.get_quantity": "d699284f13ac06560f3fbf44717dfe4df8d86870dc04a69c035247511b8e19d6",
        f"{_MODULE}:ParameterSet.get_value": "31231467508b8633604863c88c53f52c9190700748b4e060b99bdb671831b439",
        f"{_MODULE}:ParameterSet._remove_parameter": "dd565290510cdef1d55f21e5b80412f8fc1da4545da7ec28d3fd127efd9dac10",
        f"{_MODULE}:ParameterSet.remove_parameters_all": "c7c6f77a0296300c7727a90afe6a8622f5bc6d88325de063676f0368230c4208",
    },
)
def get_result(
    self: Any, t: Any = None, use_distribution: Any = None, suppress_error: bool = True,
    distribution_uniqueids: Any = None,
) -> Any:
    if t is None and not use_distribution and not phoebe_parameters._use_sympy:
        try:
            return _result(self)
        except Exception:  # noqa: BLE001, S110 - whatever it is, PHOEBE meets it again and tells
            pass
    return original(_RESULT)(self, t, use_distribution, suppress_error, distribution_uniqueids)


def _result(constraint: Any) -> Any:
    variables = constraint._vars + constraint._addl_vars
    _merge_variables(constraint)
    if _needs_functions(constraint._value):
        value = _evaluate_with_functions(constraint, variables)
    else:
        value = _evaluate_arithmetic(constraint, variables)
    unit = constraint.default_unit
    if unit is None:
        return value
    return value / _scale(unit, _to_solar if constraint.in_solar_units else _to_system) * unit


def _merge_variables(constraint: Any) -> None:
    """PHOEBE joins the two cached sets, in place, whenever it looks for the constrained one."""
    if constraint._addl_vars or constraint._var_params is None or constraint._addl_var_params is None:
        known = constraint.vars._params
        ids = {parameter._uniqueid for parameter in known}
        for parameter in constraint.addl_vars._params:
            if parameter._uniqueid not in ids:
                ids.add(parameter._uniqueid)
                known.append(parameter)


@lru_cache(maxsize=4096)
def _needs_functions(expression: str) -> bool:
    return any(f"{name}(" in expression for name in _BUILTIN + _MATH)


def _evaluate_with_functions(constraint: Any, variables: list[Any]) -> Any:
    """The text of the expression, with numbers for its variables, as Python."""
    text = constraint._value
    if "{" in text or "}" in text:
        raise _NotPlain
    for variable in variables:
        label = variable._safe_label
        if len(label) != _UNIQUEID_LENGTH:
            raise _NotPlain
        if label in text:
            text = text.replace(label, format(_number(constraint, variable, as_list=True)))
    functions = {name: getattr(builtin, name) for name in _BUILTIN + _MATH}
    value = eval(text, phoebe_parameters.__dict__, functions)  # noqa: S307 - as PHOEBE
    if value is None:
        raise _NotPlain
    try:
        return float(value)
    except TypeError:
        return np.asarray(value)


def _evaluate_arithmetic(constraint: Any, variables: list[Any]) -> Any:
    """Arithmetic alone: it is evaluated with the numbers as variables, and so works on arrays."""
    numbers = {v._safe_label: _number(constraint, v, as_list=False) for v in variables}
    for variable in constraint._vars:
        number = numbers[variable._safe_label]
        if isinstance(number, np.ndarray | list) or number is None or isinstance(number, str):
            raise _NotPlain
    return eval(_compiled(constraint._value), numbers)  # noqa: S307 - as PHOEBE


@lru_cache(maxsize=4096)
def _compiled(expression: str) -> Any:
    return compile(expression, "<string>", "eval")


def _number(constraint: Any, variable: Any, *, as_list: bool) -> Any:
    """A variable's value in SI or solar units; text in quotes; anything else as it is."""
    parameter = _parameter(variable)
    if not isinstance(parameter, _FLOAT_PARAMETER):
        value = parameter.get_value()
        return f"'{value}'" if isinstance(value, str) else value
    quantity = parameter._value
    if type(quantity) is not u.Quantity or quantity._unit is not parameter._default_unit:
        quantity = parameter.get_quantity()
        if not isinstance(quantity, u.Quantity):
            return quantity
    to_system = _to_solar if constraint.in_solar_units else _to_si
    number = quantity.value * _scale(quantity.unit, to_system)
    if isinstance(number, np.ndarray):
        number = np.float64(number[0]) if number.size == 1 else np.float64(number)
        return number.tolist() if as_list and isinstance(number, np.ndarray) else number
    return np.float64(number)


def _parameter(variable: Any) -> Any:
    """The Parameter of a variable; what was found before is good while it is in the Bundle."""
    parameter = variable._parameter
    if (
        parameter is None
        or parameter._bundle is not variable._bundle
        or parameter._uniqueid != variable._unique_label
    ):
        parameter = variable._bundle.get_parameter(
            uniqueid=variable._unique_label, check_visible=False, check_default=False
        )
    return parameter


_scales: dict[tuple[int, Callable[[Any], float]], tuple[Any, float]] = {}
_SCALES_MAX = 4096


def _scale(unit: Any, to_system: Callable[[Any], float]) -> float:
    """A unit's factor into a system. To compare units is slow, so that objects are remembered."""
    known = _scales.get((id(unit), to_system))
    if known is None:
        if len(_scales) >= _SCALES_MAX:
            _scales.clear()
        known = _scales[id(unit), to_system] = unit, to_system(unit)
    return known[1]


def _to_si(unit: Any) -> float:
    return unit.si.scale


def _to_system(unit: Any) -> float:
    return unit.to_system(u.si)[0].scale


def _to_solar(unit: Any) -> float:
    return u.to_solar(unit)


_LABEL = f"{_EXPRESSION}:ConstraintVar.update_user_label"
_TO_JSON = f"{_MODULE}:ParameterSet.to_json"
_names: ContextVar[dict[str, str] | None] = ContextVar("names", default=None)


@patch(
    _LABEL,
    reason="it searched the Bundle for a Parameter that the variable knows already",
    equal_because="a known Parameter is used only while it is in the Bundle under the same id",
    checked_with=("2.5.4",),
    guards={
        _LABEL: "1f7ea786e5ef089c6683c1ecaeab8eab10f13e7760f30b3198fb5b3c28a89804",
        f"{_EXPRESSION}:ConstraintVar.get_parameter": "055f00159796bda6036cb9ccd864d65bd79ea07d0e7ad9a13f672aca6bfd3210",
        "phoebe.parameters.twighelpers:_uniqueid_to_uniquetwig": "d7fd07677427e65d4182c161830208a9dee2fb0b790168fa117bc6c7822ff243",
        f"{_MODULE}:ParameterSet._remove_parameter": "dd565290510cdef1d55f21e5b80412f8fc1da4545da7ec28d3fd127efd9dac10",
        f"{_MODULE}:ParameterSet.remove_parameters_all": "c7c6f77a0296300c7727a90afe6a8622f5bc6d88325de063676f0368230c4208",
    },
)
def update_user_label(self: Any) -> None:
    names = _names.get()
    if names is None:
        self._user_label = _parameter(self).uniquetwig
    else:
        if self._unique_label not in names:
            names[self._unique_label] = _parameter(self).uniquetwig
        self._user_label = names[self._unique_label]
    self._set_curly_label()


@patch(
    _TO_JSON,
    reason="writing the constraints asked for the unique name of a few Parameters hundreds of times",
    equal_because="PHOEBE's own function runs; names cannot change while it does, and are "
    "forgotten when it ends",
    checked_with=("2.5.4",),
    guards={_TO_JSON: "d7da4dad5ab686e8533e6f2188b424770b4dabd3526b083942cc329db7c3811a", _LABEL: "1f7ea786e5ef089c6683c1ecaeab8eab10f13e7760f30b3198fb5b3c28a89804", f"{_MODULE}:Parameter.to_json": "c39c50b08f0c7f1c280569ad506cebc5a81dc3f544a19c872417a095490c4663"},
)
def to_json(self: Any, *args: Any, **kwargs: Any) -> Any:
    before = _names.set({})
    try:
        return original(_TO_JSON)(self, *args, **kwargs)
    finally:
        _names.reset(before)


@patch(
    _RUN,
    reason="for messages that nobody reads it looked up three unique names in every run of every "
    "constraint",
    equal_because="the same steps without the messages; with debug messages on, and after an "
    "error, PHOEBE's own runs",
    checked_with=("2.5.4",),
    guards={_RUN: "f7e8c726c30876b3998e8542ad3e1ce22c0292a67dc132f15ff48fbb599d551b", f"{_MODULE}:ParameterSet.filter_or_get": "aee068d5c57d95319121d67e6a0852f0b8b0543a5b1630c4cebd0c1266e7aa34"},
)
def run_constraint(
    self: Any, twig: Any = None, return_parameter: bool = False, suppress_error: bool = True,
    **kwargs: Any,
) -> Any:
    found = None
    if twig is None and kwargs.keys() <= _RUN_KEYS and kwargs.get("skip_kwargs_checks"):
        if not phoebe_bundle.logger.isEnabledFor(logging.DEBUG):
            found = _find(self, kwargs.get("uniqueid"))
    if found is None:
        return original(_RUN)(self, twig, return_parameter, suppress_error, **kwargs)
    constraint, constrained = found
    try:
        result = constraint.get_result(suppress_error=False)
    except Exception:  # noqa: BLE001 - PHOEBE meets it again and tells
        return original(_RUN)(self, twig, return_parameter, suppress_error, **kwargs)
    if not isinstance(result, float) or result != constrained.get_value():
        try:
            constrained.set_value(result, from_constraint=True, force=True)
        except Exception as error:  # noqa: BLE001
            _set_failed(self, constraint, constrained, error, suppress_error)
    return constrained if return_parameter else result


def _find(bundle: Any, uniqueid: Any) -> tuple[Any, Any] | None:
    """The constraint with that id and the Parameter that it sets, where each is just one."""
    if type(uniqueid) is not str or "[" in uniqueid or "]" in uniqueid:
        return None
    constraints = [
        p for p in bundle._params if p._uniqueid == uniqueid and p._context == "constraint"
    ]
    if len(constraints) != 1:
        return None
    constraint = constraints[0]
    contexts = ["system"]
    found = bundle._params
    if constraint._qualifier is not None:
        found = match_tag(bundle, found, "qualifier", constraint._qualifier)
    for field in ("component", "dataset", "feature"):
        tag = getattr(constraint, field)
        if tag is not None:
            contexts.append(field)
            found = match_tag(bundle, found, field, tag)
    found = match_tag(bundle, found, "context", contexts)
    return (constraint, found[0]) if len(found) == 1 else None


def _set_failed(
    bundle: Any, constraint: Any, constrained: Any, error: Exception, suppress_error: bool
) -> None:
    """PHOEBE remembers a constraint whose result cannot be set, and tells of it once."""
    new = constraint.uniqueid not in bundle._failed_constraints
    if new:
        bundle._failed_constraints.append(constraint.uniqueid)
    message_prefix = (
        f"Constraint '{constraint.twig}' raised the following error while setting the value of "
        f"'{constrained.twig}'.  Original error: "
    )
    if suppress_error:
        if new:
            phoebe_bundle.logger.error(message_prefix + str(error))
        return
    if len(error.args) >= 1:
        error.args = (message_prefix + str(error), *error.args[1:])
    raise error
