"""Advice for errors of PHOEBE that suggest something that users of a server cannot do.

PHOEBE's errors suggest to call a function or to install a package. The table below has each such
text with what a user can do instead. The answer gives the advice in a field of its own and does
not change PHOEBE's text. A test compares the table with PHOEBE's source.
"""

from __future__ import annotations

_PASSBANDS = (
    "The passbands of this server are files that its operator installs with "
    "`phoebe-server passbands install`; sessions can use a new one at once. "
    "`GET /system/passbands` lists them."
)
_PACKAGES = (
    "A session installs and restarts nothing: ask the operator of this server for the package, in "
    "the Python that its sessions run in."
)
_COMMANDS = (
    "Over HTTP a call of PHOEBE's is the command of the same name: `set_value` is "
    '{"command": "set_value", "twig": …, "value": …}.'
)
_FILES = (
    "The file is read by the PHOEBE of this server: upload it with PUT /v1/sessions/ID/bundle, "
    "which migrates it; a newer PHOEBE is its operator's to install."
)
_MACHINE = "Sessions compute on this server only: leave `use_server` at none."
_PROMPT = "There is no command for that: sessions offer the commands that docs/commands.md lists."

# Fragments of PHOEBE's messages as they stand in its source, by what to do instead.
ADVICE: dict[str, tuple[str, ...]] = {
    _PASSBANDS: (
        "value for passband@",
        "could not set value for passband=",
        "not installed locally and online passbands is disabled",
        "passband does not meet content=",
        "(available for download)",
        "unable to download {} passband",
        "in list_installed_passbands()",
        "with extinction needs to be updated for fixed UV extinction coefficients",
        "is missing the following tables",
        "Attempt to download {} passband failed",
        "tables failed.  Check internet connection",
        "passband ({}) does not support",
        "does not support ld_coeffs_source",
        "no match for passband=",
    ),
    _PACKAGES: (
        "phoebeBackend for phoebe legacy not found",
        "jktebop executable not found",
        "could not import ellc",
        "ellc is required for parameter refinement",
        "ellc needs to be installed",
        "astropy must be installed",
        "corner must be installed",
        "scikit-learn needs to be installed",
        "install scikit-learn",
        "scikit-learn dependency not installed",
        "celerite2 dependency not installed",
        "weights for Samples requires scipy",
        "install numpy-stl package",
        "cannot automatically install",
        "emcee is not installed",
        "dynesty is not installed",
        "could not import emcee",
        "could not import dynesty",
        "emcee backend requires",
        "astropy.timeseries not installed",
        "must either have sympy installed",
        "Please install mpi4py",
        "dependencies to support client mode not met",
    ),
    _COMMANDS: (
        "Try b.set_value(",
        "Call add_solver first",
    ),
    _FILES: (
        "from a newer version of PHOEBE",
        "from an older version of PHOEBE",
        "Either downgrade PHOEBE or re-create this system",
    ),
    _MACHINE: (
        "configured crimpl server",
        "is a crimpl {} server",
        "files retrieved from remote server",
    ),
    _PROMPT: (
        "Call run_failed_constraints to see the tracebacks",
        "Call compute_l3s(",
        "PHOEBE_ENABLE_PLOTTING environment variable",
        "JobParameter is a read-only parameter",
    ),
}


def advice_on(error: str) -> str:
    """The advice for an error; empty if users can follow the error itself."""
    given = [advice for advice, texts in ADVICE.items() if any(fits(text, error) for text in texts)]
    return " ".join(given)


def fits(text: str, error: str) -> bool:
    """Whether the error contains the fragment, in which `{}` matches any text."""
    place = 0
    for part in text.split("{}"):
        place = error.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True
