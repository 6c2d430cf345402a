"""What is changed in PHOEBE, each with its reason. No number that it computes is altered here."""

from __future__ import annotations

DEFAULT_PASSBAND = "Johnson:V"


def list_passbands_in_stable_order() -> None:
    """PHOEBE lists a dataset's passbands in the order of a set, which differs from run to run.

    Clients show these choices and the errors that list them: PHOEBE's default passband first, the
    others by name.
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
    """Before a compute PHOEBE asks a shell which remote machines it is configured for.

    A contained worker may start no program, accelerated or not, whatever PHOEBE's version.
    """
    from phoebe.dependencies import crimpl

    from .accelerate import servers

    crimpl.list_servers = servers.list_servers
