"""The optional packages of PHOEBE: which are installed, and which are excluded.

PHOEBE's import tries them. This module reports the result and imports nothing.
"""

from __future__ import annotations

import sys
from importlib import metadata

# The module and its package on PyPI. `requirements.in` says what each is for.
OPTIONAL = {
    "celerite2": "celerite2",
    "dynesty": "dynesty",
    "ellc": "ellc",
    "emcee": "emcee",
    "sklearn": "scikit-learn",
}

# Modules that PHOEBE tries to import and that the environment excludes, with the reason.
EXCLUDED = {
    "JSAnimation": "shows animations in notebooks; sessions show none",
    "cmasher": "colours of figures that no command draws",
    "commands": "a module of Python 2",
    "dill": "runs code in a distribution; functions as distributions need it",
    "mpi4py": "this server distributes the cores",
    "phoebeBackend": "PHOEBE 1, which is not on PyPI",
    "phoebe_legacy": "PHOEBE 1, which is not on PyPI",
    "pyfits": "replaced by astropy",
    "stl": "writes meshes to files, for which there is no command",
    "sympy": "PHOEBE 2.5 imports it and does not use it",
}


def versions() -> dict[str, str | None]:
    """Versions by package; None if PHOEBE could not import it."""
    return {
        package: metadata.version(package) if module in sys.modules else None
        for module, package in sorted(OPTIONAL.items())
    }
