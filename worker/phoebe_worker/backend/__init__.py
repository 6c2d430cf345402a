"""The serial part of PHOEBE's own backend, made faster without another result.

Each patch, entered into the table of `accelerate`, replaces one function with one that computes the
same numbers with less work: without columns that nobody reads, without copies of copies, without
asking twice.
"""

from . import interpolation, meshes, surfaces, synthetics

__all__ = ["interpolation", "meshes", "surfaces", "synthetics"]
