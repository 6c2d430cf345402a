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
from .sources import sources

_MODULE = "phoebe.parameters.parameters"
_EXPRESSION = "phoebe.constraints.expression"
_RESULT = f"{_MODULE}:ConstraintParameter.get_result"
_RUN = "phoebe.frontend.bundle:Bundle.run_constraint"
_MATH = ("sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2", "sqrt", "log10")
_BUILTIN = tuple(
    name for name in dir(builtin) if isinstance(getattr(builtin, name), types.FunctionType)
)
_UNIQUEID_LENGTH = 30
_RUN_KEYS = {"uniqueid", "skip_kwargs_checks", "run_constraints"}
_FLOAT_PARAMETER = phoebe_parameters.FloatParameter


class _Unsupported(Exception):
    """PHOEBE must evaluate this expression itself."""


@patch(
    _RESULT,
    reason="to evaluate one expression it looked up the unique names of all variables, listed a "
    "module's functions and searched the Bundle for each value several times",
    equal_because="the same text, with the same numbers in it, is evaluated; where that fails, "
    "PHOEBE evaluates it again and raises what it raises",
    checked_with=("2.5.4",),
    guards=sources(
        _RESULT,
        f"{_MODULE}:ConstraintParameter.get_value",
        f"{_MODULE}:ConstraintParameter.vars",
        f"{_MODULE}:ConstraintParameter.addl_vars",
        f"{_MODULE}:ConstraintParameter.get_parameter",
        f"{_MODULE}:ConstraintParameter.get_constrained_parameter",
        f"{_EXPRESSION}:ConstraintVar.get_parameter",
        f"{_MODULE}:FloatParameter.get_quantity",
        f"{_MODULE}:FloatParameter.default_unit",
        f"{_EXPRESSION}:ConstraintVar.get_quantity",
        f"{_EXPRESSION}:ConstraintVar.get_value",
        f"{_EXPRESSION}:ConstraintVar.update_user_label",
        f"{_MODULE}:ParameterSet.get_quantity",
        f"{_MODULE}:ParameterSet.get_value",
        f"{_MODULE}:ParameterSet._remove_parameter",
        f"{_MODULE}:ParameterSet.remove_parameters_all",
    ),
)
def get_result(
    self: Any, t: Any = None, use_distribution: Any = None, suppress_error: bool = True,
    distribution_uniqueids: Any = None,
) -> Any:
    if t is None and not use_distribution and not phoebe_parameters._use_sympy:
        try:
            return _evaluate(self)
        except Exception:
            pass
    return original(_RESULT)(self, t, use_distribution, suppress_error, distribution_uniqueids)


def _evaluate(constraint: Any) -> Any:
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
    """Merge the two cached sets in place, as PHOEBE does to find the constrained Parameter."""
    cached = constraint._var_params is not None and constraint._addl_var_params is not None
    if constraint._addl_vars or not cached:
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
    """Replace the variables by numbers in the text, and evaluate it as Python."""
    text = constraint._value
    if "{" in text or "}" in text:
        raise _Unsupported
    for variable in variables:
        label = variable._safe_label
        if len(label) != _UNIQUEID_LENGTH:
            raise _Unsupported
        if label in text:
            text = text.replace(label, format(_number(constraint, variable, as_list=True)))
    functions = {name: getattr(builtin, name) for name in _BUILTIN + _MATH}
    value = eval(text, phoebe_parameters.__dict__, functions)
    if value is None:
        raise _Unsupported
    try:
        return float(value)
    except TypeError:
        return np.asarray(value)


def _evaluate_arithmetic(constraint: Any, variables: list[Any]) -> Any:
    """Evaluate arithmetic with the numbers as variables, which may be arrays."""
    numbers = {v._safe_label: _number(constraint, v, as_list=False) for v in variables}
    for variable in constraint._vars:
        number = numbers[variable._safe_label]
        if isinstance(number, np.ndarray | list) or number is None or isinstance(number, str):
            raise _Unsupported
    return eval(_compiled(constraint._value), numbers)


@lru_cache(maxsize=4096)
def _compiled(expression: str) -> Any:
    return compile(expression, "<string>", "eval")


def _number(constraint: Any, variable: Any, *, as_list: bool) -> Any:
    """A variable's value in SI or solar units. Text is quoted; other values are unchanged."""
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
    """The Parameter of a variable. The cached one is valid while it is in the Bundle."""
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
    """A unit's factor into a system, cached by the unit's identity: comparing units is slow."""
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
    reason="it searched the Bundle for a Parameter that the variable has cached",
    equal_because="a cached Parameter is used only while it is in the Bundle under the same id",
    checked_with=("2.5.4",),
    guards=sources(
        _LABEL,
        f"{_EXPRESSION}:ConstraintVar.get_parameter",
        "phoebe.parameters.twighelpers:_uniqueid_to_uniquetwig",
        f"{_MODULE}:ParameterSet._remove_parameter",
        f"{_MODULE}:ParameterSet.remove_parameters_all",
    ),
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
    reason="it computed the same few unique names hundreds of times",
    equal_because="PHOEBE's own function runs; names cannot change meanwhile, and the cache ends "
    "with it",
    checked_with=("2.5.4",),
    guards=sources(
        _TO_JSON,
        _LABEL,
        f"{_MODULE}:Parameter.to_json",
    ),
)
def to_json(self: Any, *args: Any, **kwargs: Any) -> Any:
    before = _names.set({})
    try:
        return original(_TO_JSON)(self, *args, **kwargs)
    finally:
        _names.reset(before)


@patch(
    _RUN,
    reason="for debug messages it looked up three unique names in every run of a constraint",
    equal_because="the same steps without the messages; PHOEBE's own runs with debug messages on "
    "and after an error",
    checked_with=("2.5.4",),
    guards=sources(
        _RUN,
        f"{_MODULE}:ParameterSet.filter_or_get",
    ),
)
def run_constraint(
    self: Any, twig: Any = None, return_parameter: bool = False, suppress_error: bool = True,
    **kwargs: Any,
) -> Any:
    found = None
    plain = twig is None and kwargs.keys() <= _RUN_KEYS and kwargs.get("skip_kwargs_checks")
    if plain and not phoebe_bundle.logger.isEnabledFor(logging.DEBUG):
        found = _find(self, kwargs.get("uniqueid"))
    if found is None:
        return original(_RUN)(self, twig, return_parameter, suppress_error, **kwargs)
    constraint, constrained = found
    try:
        result = constraint.get_result(suppress_error=False)
    except Exception:
        return original(_RUN)(self, twig, return_parameter, suppress_error, **kwargs)
    if not isinstance(result, float) or result != constrained.get_value():
        try:
            constrained.set_value(result, from_constraint=True, force=True)
        except Exception as error:
            _set_failed(self, constraint, constrained, error, suppress_error)
    return constrained if return_parameter else result


def _find(bundle: Any, uniqueid: Any) -> tuple[Any, Any] | None:
    """The constraint with that id and the Parameter that it sets, if both are unique."""
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
    """Record a constraint whose result cannot be set, and log it once, as PHOEBE does."""
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
