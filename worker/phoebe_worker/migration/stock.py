"""Runs PHOEBE's own migration, and avoids its unnecessary failures.

It takes parameters without constraints and distributions. Other modules correct the result.
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
_NO_CHECKS = {"check_visible": False, "check_default": False}


def migrate(parameters: list[Fields], *, from_newer: bool) -> Any:
    """The Bundle that PHOEBE migrates. Raises PHOEBE's exceptions. Changes `parameters`."""
    import phoebe

    class MigratingBundle(phoebe.Bundle):  # type: ignore[misc]
        """Continues where PHOEBE fails, and keeps parameters that PHOEBE would drop."""

        # If true, `set_hierarchy` keeps constraints in SI units. Here all are rebuilt.
        _import_before_v211 = property(lambda _: False, lambda *_: None)

        def run_all_constraints(self) -> None:
            """Continue after a constraint that fails."""
            run_constraints(self)

        def remove_component(self, component: str, *args: Any, **options: Any) -> Any:
            """Keep its parameters in datasets, computes and features: it is added again at once."""
            of_it = {"component": component, "context": ["component", "constraint"]}
            return self.remove_parameters_all(**of_it, **_NO_CHECKS)

        def remove_dataset(self, dataset: str, *args: Any, **options: Any) -> Any:
            of_it = self.filter(dataset=dataset, context="dataset", **_NO_CHECKS)
            _times_of(self)[dataset] = [float(time) for time in of_it.times]
            return super().remove_dataset(dataset, *args, **options)

        def add_dataset(self, kind: Any, *args: Any, **options: Any) -> Any:
            wanted = _structural_options(options)
            if str(kind) == "lp":  # one parameter for each time
                wanted["times"] = options.get("times") or _times_of(self)[options["dataset"]]
            return super().add_dataset(kind, *args, **wanted)

        def add_compute(self, kind: Any, *args: Any, **options: Any) -> Any:
            return super().add_compute(kind, *args, **_structural_options(options))

        def add_solver(self, kind: Any, *args: Any, **options: Any) -> Any:
            return super().add_solver(kind, *args, **_structural_options(options))

        def add_feature(self, kind: Any, *args: Any, **options: Any) -> Any:
            if kind == "rv_offset" and not self.filter(
                qualifier="rv_offset", dataset=options["dataset"], context="dataset", **_NO_CHECKS
            ):
                return None  # the file has no offset to move
            return super().add_feature(kind, *args, **options)

        def add_constraint(self, *args: Any, **options: Any) -> Any:
            """Skip the search for parameters to copy, which takes most of a migration's time.

            A constraint adds no parameters that need copies.
            """
            self.__dict__["_copies"] = False
            try:
                return super().add_constraint(*args, **options)
            finally:
                self.__dict__["_copies"] = True

        def _attach_params(self, params: Any, *args: Any, **tags: Any) -> Any:
            """Do not attach parameters of the system twice, on which PHOEBE fails.

            This happens if the file states an older version than that of its content.
            """
            if tags.get("context") == "system":
                known = {each.qualifier for each in self._params if each.context == "system"}
                params = [each for each in params if each.qualifier not in known]
            return super()._attach_params(params, *args, **tags)

        def _check_copy_for(self) -> None:
            if self.__dict__.get("_copies", True):
                super()._check_copy_for()

        def set_value(self, *args: Any, **options: Any) -> Any:
            with contextlib.suppress(ValueError):  # this PHOEBE lacks the parameter or the choice
                return super().set_value(*args, **options)

    decoupled = _invert_luminosities(parameters)
    bundle = MigratingBundle.open(parameters, import_from_newer=from_newer)
    bundle.__class__ = phoebe.Bundle
    for dataset in decoupled:
        bundle.set_value("pblum_mode", dataset=dataset, context="dataset", value="decoupled")
    for own in ("_copies", "_times_of_datasets"):
        bundle.__dict__.pop(own, None)
    return bundle


def without_new_figures(parameters: list[Fields]) -> list[Fields]:
    """The parameters, with settings that stop PHOEBE from adding and removing figures.

    PHOEBE reads these settings, introduced in 2.2 and 2.3, from older files too.
    """
    plain = {"Class": "BoolParameter", "context": "setting", "description": "", "value": False}
    return [each for each in parameters if each.get("qualifier") not in _FIGURE_SETTINGS] + [
        {**plain, "qualifier": qualifier} for qualifier in _FIGURE_SETTINGS
    ]


def set_figure_settings(bundle: Any) -> None:
    """Set the defaults of this PHOEBE. Values of the file are set later."""
    from phoebe.parameters import setting

    for each in setting.settings().to_list():
        if each.qualifier in _FIGURE_SETTINGS:
            bundle.set_value(each.qualifier, context="setting", value=each.get_value())


def contexts_to_keep(version: Version) -> frozenset[str]:
    """The contexts that PHOEBE's migration from this version does not, or should not, change."""
    kept = {"constraint", "distribution", "figure", "model"}
    return frozenset(kept | ({"solver", "solution"} if version >= Version("2.4") else set()))


def _times_of(bundle: Any) -> dict[str, list[float]]:
    times: dict[str, list[float]] = bundle.__dict__.setdefault("_times_of_datasets", {})
    return times


def _structural_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options that decide which parameters exist, or whose values PHOEBE converts.

    All others are values of the file and are set later. A value that PHOEBE rejects would end the
    migration here.
    """
    return {name: value for name, value in options.items() if name in _STRUCTURE}


def run_constraints(bundle: Any) -> None:
    """Run all constraints. Those that fail are listed in `_failed_constraints`."""
    for each in [each for each in bundle._params if each.context == "constraint"]:
        bundle.run_constraint(uniqueid=each.uniqueid, skip_kwargs_checks=True)


def _invert_luminosities(parameters: list[Fields]) -> list[str]:
    """Swap the meaning of `pblum_ref` (before 2.2), which PHOEBE's migration interprets inversely.

    Returns the datasets, on which PHOEBE fails, whose stars have several independent luminosities.
    """
    references: dict[str, list[Fields]] = {}
    for each in [each for each in parameters if each.get("qualifier") == "pblum_ref"]:
        if each.get("component") == "_default":
            each["value"] = ""  # PHOEBE takes it for a star
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
