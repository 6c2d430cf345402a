"""Imports and prepares PHOEBE, and builds a default Bundle of each morphology.

The zygote does this before the first fork; a spawned worker does it for itself. This module does
not know sockets or sessions.
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
    """The key of MORPHOLOGIES for a client's text, in any case and with any separators.

    Raises ValueError.
    """
    key = re.sub(r"[\s_-]+", "-", str(name).strip().lower())
    if not isinstance(name, str) or key not in MORPHOLOGIES:
        raise ValueError(f"Unknown morphology: {name}")
    return key


@dataclass(frozen=True, slots=True)
class Templates:
    """Default Bundles, pickled: to unpickle one takes a few ms, and no user can alter the original.

    `first` is a detached binary, ready to use. Each process may use it once. Forks share it.
    """

    pickled: dict[str, bytes]
    first: Any

    @property
    def digest(self) -> str:
        """SHA-256 of the pickled form of `first`, in hexadecimal."""
        return hashlib.sha256(self.pickled["detached"]).hexdigest()

    def fresh(self, morphology: str = "detached") -> Any:
        """A new Bundle; `morphology` is a key of MORPHOLOGIES."""
        return pickle.loads(self.pickled[morphology])


def prepare() -> Templates:
    """Import PHOEBE, build the default Bundles, and load the data of a first compute."""
    passband_files.guard()
    import phoebe
    from astropy.io import fits

    from . import accelerate, backend, patches, progress, sandbox  # noqa: F401 - has patches
    from .parallel import frames, pool  # noqa: F401 - have patches

    # Mapped passbands would keep descriptors open, and a worker closes those that it inherits.
    fits.conf.use_memmap = False
    patches.list_passbands_in_stable_order()
    patches.list_servers_without_a_program()
    patches.report_missing_jktebop()
    if accelerate.enabled():
        accelerate.install()
    # A progress bar would start a thread and write to the log; runners report progress instead.
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
    """Run commands that read passbands, complete late imports, and fill caches for all forks.

    One of them fails, so that the source lines of tracebacks are cached too.
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
