"""PHOEBE's own migration, kept from failing where it need not.

It opens parameters that have neither constraints nor distributions. Nothing is put right here.
"""

from __future__ import annotations

import contextlib
from typing import Any

from packaging.version import Version

from .identities import Fields

_STRUCTURE = frozenset({
    "dataset", "compute", "solver", "check_label", "overwrite",
    "pblum_mode", "pblum_component", "ld_mode", "ld_func", "l3", "phases_t0", "ebai_method",
})  # fmt: skip

_FIGURE_SETTINGS = ("auto_add_figure", "auto_remove_figure")
_UNSEEN_TOO = {"check_visible": False, "check_default": False}


def migrated(parameters: list[Fields], *, from_newer: bool) -> Any:
    """The Bundle that PHOEBE makes of them; raises what PHOEBE raises. It changes `parameters`."""
    import phoebe

    class Migrating(phoebe.Bundle):  # type: ignore[misc]
        """Goes on where PHOEBE stops, and keeps what it would drop."""

        # Stops `set_hierarchy`, for the sake of constraints in SI units; all are built anew here.
        _import_before_v211 = property(lambda _: False, lambda *_: None)

        def run_all_constraints(self) -> None:
            """One that cannot be computed is no reason to refuse the file."""
            run_constraints(self)

        def remove_component(self, component: str, *args: Any, **options: Any) -> Any:
            """Not what datasets, computes and features say of it: it comes back at once."""
            of_it = {"component": component, "context": ["component", "constraint"]}
            return self.remove_parameters_all(**of_it, **_UNSEEN_TOO)

        def remove_dataset(self, dataset: str, *args: Any, **options: Any) -> Any:
            of_it = self.filter(dataset=dataset, context="dataset", **_UNSEEN_TOO)
            _times_of(self)[dataset] = [float(time) for time in of_it.times]
            return super().remove_dataset(dataset, *args, **options)

        def add_dataset(self, kind: Any, *args: Any, **options: Any) -> Any:
            wanted = _of_structure(options)
            if str(kind) == "lp":  # one parameter for each time
                wanted["times"] = options.get("times") or _times_of(self)[options["dataset"]]
            return super().add_dataset(kind, *args, **wanted)

        def add_compute(self, kind: Any, *args: Any, **options: Any) -> Any:
            return super().add_compute(kind, *args, **_of_structure(options))

        def add_solver(self, kind: Any, *args: Any, **options: Any) -> Any:
            return super().add_solver(kind, *args, **_of_structure(options))

        def add_feature(self, kind: Any, *args: Any, **options: Any) -> Any:
            if kind == "rv_offset" and not self.filter(
                qualifier="rv_offset", dataset=options["dataset"], context="dataset", **_UNSEEN_TOO
            ):
                return None  # the file has none to be moved
            return super().add_feature(kind, *args, **options)

        def add_constraint(self, *args: Any, **options: Any) -> Any:
            """A constraint brings no parameters of which others need copies; looking for them in
            the whole Bundle takes most of the time of a migration."""
            self.__dict__["_copies"] = False
            try:
                return super().add_constraint(*args, **options)
            finally:
                self.__dict__["_copies"] = True

        def _attach_params(self, params: Any, *args: Any, **tags: Any) -> Any:
            """What the system has already, in a file that says an older version than it is of, is
            not attached again: PHOEBE fails where a parameter is there twice."""
            if tags.get("context") == "system":
                known = {each.qualifier for each in self._params if each.context == "system"}
                params = [each for each in params if each.qualifier not in known]
            return super()._attach_params(params, *args, **tags)

        def _check_copy_for(self) -> None:
            if self.__dict__.get("_copies", True):
                super()._check_copy_for()

        def set_value(self, *args: Any, **options: Any) -> Any:
            with contextlib.suppress(ValueError):  # no such parameter, or no such choice any more
                return super().set_value(*args, **options)

    decoupled = _invert_luminosities(parameters)
    bundle = Migrating.open(parameters, import_from_newer=from_newer)
    bundle.__class__ = phoebe.Bundle
    for dataset in decoupled:
        bundle.set_value("pblum_mode", dataset=dataset, context="dataset", value="decoupled")
    for own in ("_copies", "_times_of_datasets"):
        bundle.__dict__.pop(own, None)
    return bundle


def without_new_figures(parameters: list[Fields]) -> list[Fields]:
    """The parameters, for which PHOEBE adds and removes no figures: those that there were are set
    apart. It looks for these settings, which are of 2.2 and 2.3, in older files too."""
    plain = {"Class": "BoolParameter", "context": "setting", "description": "", "value": False}
    return [each for each in parameters if each.get("qualifier") not in _FIGURE_SETTINGS] + [
        {**plain, "qualifier": qualifier} for qualifier in _FIGURE_SETTINGS
    ]


def set_figure_settings(bundle: Any) -> None:
    """What this PHOEBE begins with; the file's values, if it has any, are set later."""
    from phoebe.parameters import setting

    for each in setting.settings().to_list():
        if each.qualifier in _FIGURE_SETTINGS:
            bundle.set_value(each.qualifier, context="setting", value=each.get_value())


def not_migrated(version: Version) -> frozenset[str]:
    """The contexts that PHOEBE's migration from this version leaves as they are, or should."""
    apart = {"constraint", "distribution", "figure", "model"}
    return frozenset(apart | ({"solver", "solution"} if version >= Version("2.4") else set()))


def _times_of(bundle: Any) -> dict[str, list[float]]:
    times: dict[str, list[float]] = bundle.__dict__.setdefault("_times_of_datasets", {})
    return times


def _of_structure(options: dict[str, Any]) -> dict[str, Any]:
    """What of the options decides which parameters there are, or is a value that PHOEBE converts.

    All others are the file's values, which are set later: here one that PHOEBE refuses would end
    the migration."""
    return {name: value for name, value in options.items() if name in _STRUCTURE}


def run_constraints(bundle: Any) -> None:
    """Run all constraints; one that fails is in `_failed_constraints`, and does not stop others."""
    for each in [each for each in bundle._params if each.context == "constraint"]:
        bundle.run_constraint(uniqueid=each.uniqueid, skip_kwargs_checks=True)


def _invert_luminosities(parameters: list[Fields]) -> list[str]:
    """Before 2.2: mark the star whose luminosity is its own, which PHOEBE takes for the one that
    refers to another; tells the datasets in which several are their own, on which PHOEBE fails."""
    references: dict[str, list[Fields]] = {}
    for each in [each for each in parameters if each.get("qualifier") == "pblum_ref"]:
        if each.get("component") == "_default":
            each["value"] = ""  # PHOEBE counts it among the stars
        else:
            references.setdefault(each["dataset"], []).append(each)
    decoupled = []
    for dataset, found in references.items():
        own = [each for each in found if each["value"] == "self"] or found
        if len(own) > 1 and own is not found:
            decoupled.append(dataset)
        for each in found:
            each["value"] = each["component"] if each is own[0] else "self"
    return decoupled
