"""Parameters have the file's values again, wherever the Bundle has a parameter of the same tags.

What a value means is PHOEBE's: where a later PHOEBE means something else by the same parameter, or
keeps it under another name, PHOEBE's migration converts the value, and the table below says so.
"""

from __future__ import annotations

from typing import Any

from packaging.version import Version

from .identities import Tags, tags_of_parameter

# The text, and which parameters there are, are decided elsewhere.
_NOT_VALUES = frozenset({"phoebe_version", "hierarchy"})

# Before this version the qualifier had another meaning: PHOEBE converts its value.
_CONVERTED = {
    "vgamma": Version("2.1"),  # the sign
}

# Before this version PHOEBE had choices or units that it has renamed; it converts the value.
_RENAMED_VALUES = {
    "ld_func": Version("2.2"),  # `interp` is the choice of `ld_mode` since
    "ld_mode": Version("2.2"),
    "ld_mode_bol": Version("2.2"),
    "passband": Version("2.2"),
    "l3": Version("2.2"),  # it was W/m3
}

# Parameters of the same tags but the qualifier.
_NEW_NAMES = {"compute_phases_t0": "phases_t0"}

# Values that are in another place since this version, by PHOEBE's migration.
_MOVED = {
    "log_history": Version("2.3"),  # commands are not kept in the Bundle any more
    "rpole": Version("2.1"),  # `requiv`
    "phshift": Version("2.1"),  # PHOEBE removes it
    "plotting_backend": Version("2.2"),
    "pot": Version("2.1"),  # of a star: `requiv`
    "times": Version("2.2"),  # of meshes and orbits: `compute_times`
    "pblum_ref": Version("2.2"),  # `pblum_mode`, `pblum_component`
    "ebv": Version("2.3"),  # from datasets to the system
    "Av": Version("2.3"),
    "Rv": Version("2.3"),
    "boosting_method": Version("2.5"),  # of a compute it had one choice; it is of datasets since
    "rv_offset": Version("2.5"),  # from datasets to a feature
    "log_S0": Version("2.4"),  # `sigma`, `rho` and `tau` of the feature
    "log_Q": Version("2.4"),
    "log_omega0": Version("2.4"),
    "log_sigma": Version("2.4"),
    "log_rho": Version("2.4"),
}


def as_in_file(bundle: Any, file: Any, version: Version) -> list[str]:
    """Set all values; returns what the user must know."""
    _refresh_choices(bundle)
    known: dict[Tags | None, Any] = {
        tags_of_parameter(each): each for each in bundle._params
    }
    problems, gone = [], set()
    for old in file._params:
        if old.qualifier in _NOT_VALUES or _before(version, _CONVERTED, old.qualifier):
            continue
        new = known.get(tags_of_parameter(old))
        if new is None:
            new = known.get(_renamed(old))
        if new is None:
            if not _before(version, _MOVED, old.qualifier):
                gone.add(old.qualifier)
            continue
        try:
            _set(new, old)
        except Exception as error:
            if not _before(version, _RENAMED_VALUES, old.qualifier):
                problems.append(f"{new.twig} is not as in the file: {error}.")
    if gone:
        problems.append(f"This PHOEBE has no {', '.join(sorted(gone))} where the file has.")
    return problems


def _renamed(old: Any) -> Tags | None:
    """The tags that a later PHOEBE has for it."""
    if old.qualifier == "times" and old.kind in ("mesh", "orb"):
        if not len(old.get_value()):
            return None
        return tags_of_parameter(old, qualifier="compute_times", component=None)
    qualifier = _NEW_NAMES.get(old.qualifier, old.qualifier)
    return tags_of_parameter(old, qualifier=qualifier)


def _before(version: Version, table: dict[str, Version], qualifier: str) -> bool:
    return qualifier in table and version < table[qualifier]


def _refresh_choices(bundle: Any) -> None:
    """Parameters whose choices are labels know those of what was set apart from the migration."""
    bundle._handle_distribution_selectparams()
    bundle._handle_computesamplefrom_selectparams()
    bundle._handle_solution_choiceparams()
    bundle._handle_solution_selectparams()


def _set(new: Any, old: Any) -> None:
    """Raises what PHOEBE raises where it refuses the value."""
    if hasattr(new, "set_default_unit") and hasattr(old, "default_unit"):
        new.set_default_unit(old.default_unit)
    value = old.get_quantity() if hasattr(old, "get_quantity") else old.get_value()
    if value is not None:
        new.set_value(
            value, ignore_readonly=True, force=True, run_checks=False, run_constraints=False
        )
    if type(new) is type(old):
        new._value = old._value  # exactly: no angle wrapped, no array written out
