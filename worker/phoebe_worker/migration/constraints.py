"""Makes rebuilt constraints solve for the same parameters as in the file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .identities import Fields

_Target = tuple[Any, ...]
_Key = tuple[Any, ...]

_CAN_BE_CONSTRAINED = frozenset({"component", "dataset", "feature", "system"})


def restore_constraints(bundle: Any, parameters: list[Fields]) -> list[str]:
    """Remove, flip and add constraints as in the file; returns the problems."""
    wanted = [each for each in parameters if each.get("context") == "constraint"]
    _remove_others(bundle, wanted, parameters)
    return _Builder(bundle).build(wanted)


def _remove_others(bundle: Any, wanted: list[Fields], parameters: list[Fields]) -> None:
    """Remove the constraints of parameters that are free in the file."""
    keys = {_key_of_fields(each) for each in wanted}
    constrained = {_target_of_fields(each) for each in wanted}
    known = {
        _target_of_fields(each)
        for each in parameters
        if each.get("context") in _CAN_BE_CONSTRAINED
    }
    for each in _constraints(bundle):
        target = _target(each)
        if _key(each) not in keys and target in known - constrained:
            bundle.remove_constraint(uniqueid=each.uniqueid)


@dataclass(frozen=True, slots=True)
class _Builder:
    bundle: Any

    def build(self, wanted: list[Fields]) -> list[str]:
        """Build all constraints. One is deferred while another solves for its parameter."""
        problems = []
        while wanted:
            waiting = []
            for each in wanted:
                try:
                    if not self._build_one(each):
                        waiting.append(each)
                except Exception as error:
                    problems.append(_problem(each, error))
            if len(waiting) == len(wanted):
                problems += [_problem(each, "another one solves for it") for each in waiting]
                break
            wanted = waiting
        return problems

    def _build_one(self, fields: Fields) -> bool:
        """Build one constraint; returns False to defer it. Raises PHOEBE's exceptions."""
        target = self._parameters().get(_target_of_fields(fields)) or self._create_target(fields)
        if target is None:
            return True  # this PHOEBE has no such parameter
        key = _key_of_fields(fields)
        same = [each for each in _constraints(self.bundle) if _key(each) == key]
        if same and _target(same[0]) == _target_of_fields(fields):
            return True
        if target._is_constraint is not None:
            # True: this PHOEBE replaces it by another constraint.
            return not same and _function(fields) is None
        if same:
            self.bundle.flip_constraint(
                uniqueid=same[0].uniqueid, solve_for=target.uniquetwig, check_nan=False
            )
        else:
            self._add(fields, target)
        return True

    def _create_target(self, fields: Fields) -> Any:
        """The parameter to solve for, if adding the constraint creates it."""
        function = _function(fields)
        if function is not None:
            with contextlib.suppress(Exception):  # this PHOEBE takes other arguments
                self.bundle.add_constraint(function, **(fields.get("constraint_kwargs") or {}))
        return self._parameters().get(_target_of_fields(fields))

    def _parameters(self) -> dict[_Target, Any]:
        return {
            _target(each): each
            for each in self.bundle._params
            if each.context in _CAN_BE_CONSTRAINED
        }

    def _add(self, fields: Fields, target: Any) -> None:
        from phoebe.parameters import ConstraintParameter, ParameterSet

        function = _function(fields)
        if function is not None and fields.get("constraint_func") != "custom":
            arguments = fields.get("constraint_kwargs") or {}
            self.bundle.add_constraint(function, solve_for=target.uniquetwig, **arguments)
            return
        own = {name: value for name, value in fields.items() if name not in ("Class", "uniqueid")}
        constraint = ConstraintParameter._from_json(bundle=self.bundle, **own)
        constraint._update_bookkeeping()
        self.bundle._attach_params(ParameterSet([constraint]), context="constraint")


def _constraints(bundle: Any) -> list[Any]:
    return [each for each in bundle._params if each.context == "constraint"]


def _function(fields: Fields) -> Callable[..., Any] | None:
    import phoebe

    name = fields.get("constraint_func")
    return getattr(phoebe.constraint, name, None) if name else None


def _key(constraint: Any) -> _Key:
    function, arguments = constraint.constraint_func, constraint.constraint_kwargs
    return _key_of(function, arguments, _target(constraint))


def _key_of_fields(fields: Fields) -> _Key:
    function, arguments = fields.get("constraint_func"), fields.get("constraint_kwargs")
    return _key_of(function, arguments, _target_of_fields(fields))


def _key_of(function: str | None, arguments: Fields | None, target: _Target) -> _Key:
    """Identifies a constraint independently of what it solves for.

    A constraint of the user cannot be flipped, so its target identifies it.
    """
    if function in (None, "custom"):
        return target
    return function, json.dumps(arguments or {}, sort_keys=True, default=str)


def _target(each: Any) -> _Target:
    return each.qualifier, each.component, each.dataset, each.feature, each.model


def _target_of_fields(fields: Fields) -> _Target:
    names = ("qualifier", "component", "dataset", "feature", "model")
    return tuple(fields.get(name) for name in names)


def _problem(fields: Fields, reason: object) -> str:
    target = "@".join(str(each) for each in _target_of_fields(fields) if each is not None)
    return f"The constraint that solves for {target} is not as in the file: {reason}."
