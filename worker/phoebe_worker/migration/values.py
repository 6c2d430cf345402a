"""Sets the file's values for all parameters of the same tags in the migrated Bundle.

The tables below list the parameters whose meaning or name has changed between versions of PHOEBE.
PHOEBE's migration converts their values.
"""

from __future__ import annotations

from typing import Any

from packaging.version import Version

from .identities import Tags, tags_of_parameter

# Set by other modules.
_NOT_VALUES = frozenset({"phoebe_version", "hierarchy"})

# The qualifier had another meaning before this version. PHOEBE converts its value.
_CONVERTED = {
    "vgamma": Version("2.1"),  # the sign
}

# PHOEBE renamed choices or units in this version. It converts the value.
_RENAMED_VALUES = {
    "ld_func": Version("2.2"),  # `interp` is the choice of `ld_mode` since
    "ld_mode": Version("2.2"),
    "ld_mode_bol": Version("2.2"),
    "passband": Version("2.2"),
    "l3": Version("2.2"),  # it was W/m3
}

# Qualifiers that have changed, with otherwise equal tags.
_NEW_NAMES = {"compute_phases_t0": "phases_t0"}

# PHOEBE's migration moves these values to another parameter since this version.
_MOVED = {
    "log_history": Version("2.3"),  # the Bundle does not hold commands any more
    "rpole": Version("2.1"),  # `requiv`
    "phshift": Version("2.1"),  # PHOEBE removes it
    "plotting_backend": Version("2.2"),
    "pot": Version("2.1"),  # of a star: `requiv`
    "times": Version("2.2"),  # of meshes and orbits: `compute_times`
    "pblum_ref": Version("2.2"),  # `pblum_mode`, `pblum_component`
    "ebv": Version("2.3"),  # from datasets to the system
    "Av": Version("2.3"),
    "Rv": Version("2.3"),
    "boosting_method": Version("2.5"),  # moved from computes, with one choice, to datasets
    "rv_offset": Version("2.5"),  # from datasets to a feature
    "log_S0": Version("2.4"),  # `sigma`, `rho` and `tau` of the feature
    "log_Q": Version("2.4"),
    "log_omega0": Version("2.4"),
    "log_sigma": Version("2.4"),
    "log_rho": Version("2.4"),
}


def restore_values(bundle: Any, file: Any, version: Version) -> list[str]:
    """Set all values; returns the problems, as text for the user."""
    _refresh_choices(bundle)
    known: dict[Tags | None, Any] = {
        tags_of_parameter(each): each for each in bundle._params
    }
    problems, missing = [], set()
    for old in file._params:
        if old.qualifier in _NOT_VALUES or _before(version, _CONVERTED, old.qualifier):
            continue
        new = known.get(tags_of_parameter(old))
        if new is None:
            new = known.get(_renamed(old))
        if new is None:
            if not _before(version, _MOVED, old.qualifier):
                missing.add(old.qualifier)
            continue
        try:
            _set(new, old)
        except Exception as error:
            if not _before(version, _RENAMED_VALUES, old.qualifier):
                problems.append(f"{new.twig} is not as in the file: {error}.")
    if missing:
        problems.append(f"This PHOEBE has no {', '.join(sorted(missing))} where the file has.")
    return problems


def _renamed(old: Any) -> Tags | None:
    """The tags of the parameter in a later PHOEBE."""
    if old.qualifier == "times" and old.kind in ("mesh", "orb"):
        if not len(old.get_value()):
            return None
        return tags_of_parameter(old, qualifier="compute_times", component=None)
    qualifier = _NEW_NAMES.get(old.qualifier, old.qualifier)
    return tags_of_parameter(old, qualifier=qualifier)


def _before(version: Version, table: dict[str, Version], qualifier: str) -> bool:
    return qualifier in table and version < table[qualifier]


def _refresh_choices(bundle: Any) -> None:
    """Update choices that are labels, to include those of parameters that were not migrated."""
    bundle._handle_distribution_selectparams()
    bundle._handle_computesamplefrom_selectparams()
    bundle._handle_solution_choiceparams()
    bundle._handle_solution_selectparams()


def _set(new: Any, old: Any) -> None:
    """Set a value. Raises PHOEBE's exceptions if PHOEBE rejects it."""
    if hasattr(new, "set_default_unit") and hasattr(old, "default_unit"):
        new.set_default_unit(old.default_unit)
    value = old.get_quantity() if hasattr(old, "get_quantity") else old.get_value()
    if value is not None:
        new.set_value(
            value, ignore_readonly=True, force=True, run_checks=False, run_constraints=False
        )
    if type(new) is type(old):
        new._value = old._value  # exactly: without wrapped angles and expanded arrays
