"""PHOEBE's own answers, sooner: replacements for PHOEBE functions that are slow for no reason.

Each replacement is one entry of the table in `registry`: what it replaces, why, what makes its
answers equal, and for which source code it was written. Where PHOEBE's code differs from that
source, the replacement stays off and PHOEBE runs as it is. Nothing here changes what PHOEBE
answers; the tests hold both side by side. `PHOEBE_SERVER_ACCELERATE=0` turns everything off.
"""

from . import constraints, matching, parameter_sets, roche, twigs, uniqueids, visibility
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
    "uniqueids",
    "visibility",
]
