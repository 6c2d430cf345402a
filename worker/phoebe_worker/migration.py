"""Bundles of earlier versions of PHOEBE: PHOEBE's own migration, and what it leaves undone.

PHOEBE (2.5) migrates a file when it opens it. Around that, so that a session goes on as it was:

- A constraint that was flipped is turned back before and flipped again after. PHOEBE's migration
  fails for a flipped mass (before 2.4.4), and else builds constraints anew, not flipped.
- Parameters that PHOEBE builds anew keep their unique ids: clients and solutions know them.
- Files of PHOEBE 2.0 and 2.1 can be opened at all. PHOEBE stops at `set_hierarchy`, because it
  keeps constraints in SI units, although it builds all of them anew there; it forgets what belongs
  to a star in a dataset; and it takes the wrong star for the one that sets the luminosity.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from .parameter_json import parameters_of

Fields = dict[str, Any]

_IDENTIFYING = (
    "qualifier", "time", "feature", "component", "dataset", "distribution", "compute", "model",
    "solver", "solution", "figure", "server", "context",
)  # fmt: skip


def opened(parameters: list[Fields], *, from_newer: bool) -> Any:
    """The Bundle of these parameters, whatever PHOEBE wrote them; raises what PHOEBE raises.

    `from_newer`: also one of a newer PHOEBE, for which PHOEBE promises nothing.
    """
    import phoebe
    from packaging.version import parse

    version = parse(_version(parameters) or phoebe.__version__)
    if version.release[:2] >= parse(phoebe.__version__).release[:2]:
        return phoebe.Bundle.open(parameters, import_from_newer=from_newer)
    if version < parse("2.2"):
        bundle = _from_before_2_2(parameters)
    else:
        try:
            bundle = _with_flips(parameters)
        except (ValueError, NotImplementedError) as error:
            print(f"constraints stay as PHOEBE builds them: {error}", flush=True)
            bundle = phoebe.Bundle.open(parameters)
    return _with_unique_ids(bundle, parameters)


def _version(parameters: list[Fields]) -> str | None:
    found = [each.get("value") for each in parameters if each.get("qualifier") == "phoebe_version"]
    return str(found[0]).split(".dev")[0] if found else None


# Flipped constraints.


@dataclass(frozen=True, slots=True)
class _Flip:
    """A constraint that sets another parameter than it does by default, and what was free then."""

    uniqueid: str
    function: str
    arguments: Fields
    default: Any
    solves_for: Fields
    free: list[tuple[Fields, Any]]


def _with_flips(parameters: list[Fields]) -> Any:
    import phoebe

    before = phoebe.Bundle(parameters)
    flips = _flips(before)
    for flip in flips:
        before.flip_constraint(uniqueid=flip.uniqueid, solve_for=flip.default, check_nan=False)
    bundle = phoebe.Bundle.open(parameters_of(before))
    _flip_again(bundle, flips)
    return bundle


def _flips(bundle: Any) -> list[_Flip]:
    import phoebe

    found = []
    for constraint in [each for each in bundle._params if each.context == "constraint"]:
        function = constraint.constraint_func
        build = getattr(phoebe.constraint, function or "", None)
        if build is None:
            continue  # a user's own; PHOEBE cannot flip it
        try:
            default = build(bundle, **constraint.constraint_kwargs)[0]
        except (ValueError, NotImplementedError):
            continue  # it needs what only later versions have; PHOEBE's migration builds it anew
        solved = constraint.get_constrained_parameter()
        if default.uniqueid == solved.uniqueid:
            continue
        involved = [each for each in constraint.vars.to_list() if each._is_constraint is None]
        free = [(_tags(each), each.get_quantity()) for each in involved]
        found.append(
            _Flip(
                constraint.uniqueid,
                function,
                constraint.constraint_kwargs,
                default,
                _tags(solved),
                free,
            )
        )
    return found


def _tags(parameter: Any) -> Fields:
    names = ("qualifier", "component", "dataset", "feature", "context")
    return {name: getattr(parameter, name) for name in names}


def _flip_again(bundle: Any, flips: list[_Flip]) -> None:
    for flip in flips:
        for constraint in [each for each in bundle._params if each.context == "constraint"]:
            same = constraint.constraint_func == flip.function
            if same and constraint.constraint_kwargs == flip.arguments:
                target = _one(bundle, flip.solves_for)
                if constraint.get_constrained_parameter().uniqueid != target.uniqueid:
                    bundle.flip_constraint(
                        uniqueid=constraint.uniqueid, solve_for=target, check_nan=False
                    )
                break
    for flip in flips:
        for tags, quantity in flip.free:
            parameter = _one(bundle, tags)
            if parameter._is_constraint is None and parameter.get_quantity() != quantity:
                parameter.set_value(quantity)


def _one(bundle: Any, tags: Fields) -> Any:
    return bundle.get_parameter(**tags, check_visible=False, check_default=False)


# Unique ids.


def _with_unique_ids(bundle: Any, parameters: list[Fields]) -> Any:
    """The same Bundle, in which a parameter has the id that the one of the same tags had."""
    import phoebe

    known = _by_tags(parameters)
    migrated = parameters_of(bundle)
    new_id = {}
    for tags, each in _by_tags(migrated).items():
        if "uniqueid" in known.get(tags, ()):
            new_id[each["uniqueid"]] = known[tags]["uniqueid"]
    for each in migrated:
        each["uniqueid"] = new_id.get(each["uniqueid"], each["uniqueid"])
    if len({each["uniqueid"] for each in migrated}) < len(migrated):
        return bundle
    result = phoebe.Bundle(migrated)
    result._failed_constraints = [new_id.get(each, each) for each in bundle._failed_constraints]
    return result


def _by_tags(parameters: list[Fields]) -> dict[tuple[Any, ...], Fields]:
    """Parameters by what identifies them; without those that share it."""
    tags = [tuple(_time(each) if name == "time" else each.get(name) for name in _IDENTIFYING)
            for each in parameters]
    times = Counter(tags)
    return {tag: each for tag, each in zip(tags, parameters, strict=True) if times[tag] == 1}


def _time(fields: Fields) -> float | None:
    return None if fields.get("time") is None else round(float(fields["time"]), 6)


# PHOEBE 2.0 and 2.1.


def _from_before_2_2(parameters: list[Fields]) -> Any:
    import phoebe

    class Migrating(phoebe.Bundle):  # type: ignore[misc]
        """Stars are removed and added anew amid the migration; what datasets say of them stays."""

        _import_before_v211 = property(lambda _: False, lambda *_: None)

        def remove_component(self, component: str, *args: Any, **options: Any) -> Any:
            of_it = self.filter(context="dataset", component=component, check_visible=False)
            self.__dict__.setdefault("_kept", []).extend(of_it.to_list())
            return super().remove_component(component, *args, **options)

        def set_hierarchy(self, *args: Any, **options: Any) -> Any:
            result = super().set_hierarchy(*args, **options)
            for kept in self.__dict__.pop("_kept", []):
                tags = {**_tags(kept), "kind": kept.kind}
                for parameter in self.filter(**tags, check_visible=False).to_list():
                    parameter._value = kept._value
            return result

    parameters = [dict(each) for each in parameters]
    decoupled = _invert_luminosities(parameters)
    bundle = Migrating.open(parameters)
    bundle.__class__ = phoebe.Bundle
    for dataset in decoupled:
        bundle.set_value("pblum_mode", dataset=dataset, context="dataset", value="decoupled")
    for each in parameters:
        if each.get("qualifier") == "pblum" and each.get("dataset") in decoupled:
            tags = {name: each.get(name) for name in ("qualifier", "component", "dataset")}
            for parameter in bundle.filter(**tags, context="dataset").to_list():
                parameter.set_value(each["value"], unit=each["default_unit"])
    return bundle


def _invert_luminosities(parameters: list[Fields]) -> list[str]:
    """Mark the star whose luminosity is its own, which PHOEBE takes for the one that refers to
    another; tells the datasets in which several are their own, on which PHOEBE fails."""
    references: dict[str, list[Fields]] = {}
    for each in parameters:
        if each.get("qualifier") == "pblum_ref" and each.get("component") != "_default":
            references.setdefault(each["dataset"], []).append(each)
    decoupled = []
    for dataset, found in references.items():
        own = [each for each in found if each["value"] == "self"]
        if len(own) > 1:
            decoupled.append(dataset)
        for each in found:
            each["value"] = each["component"] if own and each is own[0] else "self"
    return decoupled
