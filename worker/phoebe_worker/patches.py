"""Changes of PHOEBE, each with its reason. None of them alters a computed number."""

from __future__ import annotations

import os

DEFAULT_PASSBAND = "Johnson:V"


def list_passbands_in_stable_order() -> None:
    """List PHOEBE's default passband first and the others by name.

    PHOEBE lists a dataset's passbands in the order of a set, which differs from run to run. Clients
    show these choices, and errors that list them.
    """
    from phoebe.atmospheres import passbands
    from phoebe.parameters import parameters

    stock = passbands.list_passbands

    def list_passbands(*args, **kwargs):  # type: ignore[no-untyped-def]
        listed = stock(*args, **kwargs)
        if isinstance(listed, list):
            listed.sort(key=lambda name: (name != DEFAULT_PASSBAND, name))
        return listed

    passbands.list_passbands = list_passbands
    parameters.list_passbands = list_passbands


def list_servers_without_a_program() -> None:
    """Read the list of remote machines from its folder.

    Before a compute PHOEBE runs `ls ~/.crimpl/servers/` in a shell, but a worker in the sandbox
    may start no program. Hidden files and names with blanks are treated as `ls` and `split` do.
    """
    from phoebe.dependencies import crimpl

    def list_servers() -> list[str]:
        directory = os.path.expanduser("~/.crimpl/servers/")
        try:
            names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
        except OSError:
            return []
        return [os.path.basename(word)[:-5] for word in "\n".join(names).split()]

    crimpl.list_servers = list_servers


def report_missing_jktebop() -> None:
    """Report that jktebop is not installed.

    PHOEBE's backend jktebop looks for the program with a shell. A worker in the sandbox may start
    no program.
    """
    from phoebe.backend.backends import JktebopBackend

    stock = JktebopBackend.run_checks

    def run_checks(*args, **kwargs):  # type: ignore[no-untyped-def]
        try:
            return stock(*args, **kwargs)
        except (PermissionError, FileNotFoundError):
            message = "jktebop executable not found: sessions start no programs. Use phoebe."
            raise ImportError(message) from None

    JktebopBackend.run_checks = run_checks
