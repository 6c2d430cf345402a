"""The packages that PHOEBE imports where they are installed: which are here, which were left out.

PHOEBE's import is what tries them; this module only tells how that went, and imports nothing.
"""

from __future__ import annotations

import sys
from importlib import metadata

# The module and its package on PyPI. `requirements.in` says what each is for.
WANTED = {
    "celerite2": "celerite2",
    "dynesty": "dynesty",
    "ellc": "ellc",
    "emcee": "emcee",
    "sklearn": "scikit-learn",
}

# What PHOEBE tries to import and the environment leaves out on purpose, and why.
LEFT_OUT = {
    "JSAnimation": "shows animations in notebooks; nothing is shown here",
    "cmasher": "colours of figures that no command draws",
    "commands": "Python 2's",
    "dill": "would run code that is hidden in a distribution; functions as distributions need it",
    "mpi4py": "cores are shared out by this server",
    "phoebeBackend": "PHOEBE 1, which is not on PyPI",
    "phoebe_legacy": "PHOEBE 1, which is not on PyPI",
    "pyfits": "astropy took its place",
    "stl": "writes meshes to files, for which there is no command",
    "sympy": "PHOEBE 2.5 imports it and does not use it",
}


def versions() -> dict[str, str | None]:
    """Versions by package, None where PHOEBE could not import it."""
    return {
        package: metadata.version(package) if module in sys.modules else None
        for module, package in sorted(WANTED.items())
    }
