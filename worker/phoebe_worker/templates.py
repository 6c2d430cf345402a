"""PHOEBE made ready once: imported, offline and quiet, with a default Bundle of each morphology.

Done by the zygote before the first fork, or by a spawned worker for itself. Nothing here knows of
sockets or sessions.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import platform
import re
import traceback
from dataclasses import dataclass
from typing import Any

from . import passband_files

MORPHOLOGIES: dict[str, dict[str, Any]] = {
    "detached": {},
    "semi-detached": {"semidetached": "primary"},
    "contact": {"contact_binary": True},
}


def morphology_named(name: Any) -> str:
    """The key of MORPHOLOGIES that a client means; case does not matter, nor do other separators.

    Raises ValueError.
    """
    key = re.sub(r"[\s_-]+", "-", str(name).strip().lower())
    if not isinstance(name, str) or key not in MORPHOLOGIES:
        raise ValueError(f"Unknown morphology: {name}")
    return key


@dataclass(frozen=True, slots=True)
class Templates:
    """Default Bundles, pickled: a fresh one is a few ms away, and no user can alter the original.

    `first` is a detached one ready to use. Each process may take it once: forks share its memory.
    """

    pickled: dict[str, bytes]
    first: Any

    @property
    def digest(self) -> str:
        """SHA-256 of the pickled Bundle that `first` is, in hexadecimal."""
        return hashlib.sha256(self.pickled["detached"]).hexdigest()

    def fresh(self, morphology: str = "detached") -> Any:
        """A new Bundle; `morphology` is a key of MORPHOLOGIES."""
        return pickle.loads(self.pickled[morphology])


def prepare() -> Templates:
    """Import PHOEBE, build the default Bundles, and load what a first compute would load."""
    passband_files.guard()
    import phoebe
    from astropy.io import fits

    # backend enters its patches
    from . import accelerate, backend, patches, progress, sandbox  # noqa: F401
    from .parallel import frames, pool  # noqa: F401 - so do these

    # Mapped passbands would keep files open, and a worker closes all descriptors that it inherits.
    fits.conf.use_memmap = False
    patches.list_passbands_in_stable_order()
    patches.list_servers_without_a_program()
    patches.say_that_jktebop_is_absent()
    if accelerate.enabled():
        accelerate.install()
    # A progress bar starts a thread and writes to the log; runners report progress instead.
    phoebe.progressbars_off()
    bundles = {name: default_bundle(**options) for name, options in MORPHOLOGIES.items()}
    pickled = {name: pickle.dumps(bundle, 5) for name, bundle in bundles.items()}
    _warm_up(pickle.loads(pickled["detached"]))
    progress.names_of_tqdm()
    sandbox.interpreter_paths()
    return Templates(pickled, first=bundles["detached"])


def info(prepared: Templates) -> dict[str, Any]:
    """Versions, passbands and the first Bundle's digest, for the server's INFO."""
    import numpy
    import phoebe

    from . import optional_packages

    return {
        "python": platform.python_version(),
        "phoebe": phoebe.__version__,
        "numpy": numpy.__version__,
        "optional_packages": optional_packages.versions(),
        "passbands": passband_files.names(),
        "template": prepared.digest,
    }


def default_bundle(**options: Any) -> Any:
    """PHOEBE's default binary, but the masses are set, not sma and q; and a solver to fit with."""
    import phoebe

    bundle = phoebe.default_binary(**options)
    bundle.add_solver("differential_corrections", solver="dc")
    bundle.flip_constraint("mass@primary", solve_for="sma@binary")
    bundle.flip_constraint("mass@secondary", solve_for="q")
    return bundle


def _warm_up(bundle: Any) -> None:
    """Throw-away commands: passbands are read, late imports done, and caches filled for all forks.

    Also the source that tracebacks quote: each worker would read it anew at its first error.
    """
    bundle.add_dataset("lc", compute_phases=[0.0, 0.25], passband="Johnson:V", dataset="warm_lc")
    bundle.add_dataset("rv", compute_phases=[0.25], dataset="warm_rv")
    bundle.set_value_all("ntriangles", 100)
    bundle.set_value("period@binary", 2.0)
    bundle.run_compute()
    bundle.remove_dataset("warm_rv")
    json.dumps(bundle.to_json(incl_uniqueid=True))
    try:
        bundle.get_value("nosuch@thing")
    except ValueError as error:
        traceback.format_exception(error)
