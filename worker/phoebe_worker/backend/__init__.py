"""The serial part of PHOEBE's own backend, made faster without another result.

Each patch replaces one function with one that computes the same numbers with less work: without
columns that nobody reads, without copies of copies, without asking twice. Where PHOEBE's code is
not the one that was read, the patch stays off (see `patches`).
"""

from .. import patches
from . import interpolation, meshes, surfaces, synthetics

PATCHES = (*interpolation.PATCHES, *meshes.PATCHES, *surfaces.PATCHES, *synthetics.PATCHES)


def install() -> None:
    """Put the patches in place."""
    patches.install(PATCHES)
