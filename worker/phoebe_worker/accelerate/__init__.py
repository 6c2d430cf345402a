"""Faster replacements for slow functions of PHOEBE, with equal results.

Each replacement is one entry of the table in `registry`: the function that it replaces, the reason,
why its results are equal, and the source code that it was written for. If PHOEBE's code differs
from that source, the replacement is not installed. Tests compare the results with those of stock
PHOEBE. `PHOEBE_SERVER_ACCELERATE=0` turns all replacements off.
"""

from . import constraints, matching, parameter_sets, roche, twigs, visibility
from .registry import PATCHES, Patch, enabled, install, uninstall

__all__ = [
    "PATCHES",
    "Patch",
    "constraints",
    "enabled",
    "install",
    "matching",
    "parameter_sets",
    "roche",
    "twigs",
    "uninstall",
    "visibility",
]
