"""Migrates Bundles of another PHOEBE: PHOEBE's own migration, with corrections.

PHOEBE (2.5) migrates a file when it opens it. It rebuilds datasets, computes and stars from values
by qualifier alone, so that the value of one star or dataset becomes that of another. It fails for
distributions of constrained parameters and for some flipped constraints. Therefore PHOEBE migrates
only the parameters without constraints and distributions (`stock`). Then

1. constraints are made to solve for the same parameters as in the file (`constraints`),
2. parameters get the unique ids of the file, and the parameters that PHOEBE dropped are attached
   again, including distributions (`identities`),
3. every parameter gets its value in the file (`values`), and all constraints are run.

`portable` reads the bytes and the JSON text.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from ..parameter_json import parameters_of
from . import constraints, identities, stock, values, versions
from .identities import Fields


@dataclass(slots=True)
class Opened:
    """A Bundle, and the notices for its user about the migration."""

    bundle: Any
    notices: list[str] = field(default_factory=list)

    def result(self) -> dict[str, str]:
        """The result of a command that replaces the Bundle."""
        return {"notice": " ".join(self.notices)} if self.notices else {}


def open_parameters(parameters: list[Fields], *, from_newer: bool) -> Opened:
    """The Bundle of parameters that any PHOEBE wrote. Raises PHOEBE's exceptions.

    `from_newer` permits parameters of a newer PHOEBE, which PHOEBE does not support.
    """
    written = versions.find_version(parameters)
    parameters = versions.with_version(parameters, written)
    if written.is_current:
        bundle = stock.migrate(parameters, from_newer=from_newer)
        return Opened(bundle, written.notices)
    return _migrated(parameters, written)


def _migrated(parameters: list[Fields], written: versions.WriterVersion) -> Opened:
    import phoebe

    notices = list(written.notices)
    kept_contexts = stock.contexts_to_keep(written.version)
    given = [each for each in parameters if each.get("context") not in kept_contexts]
    # PHOEBE's migration changes its argument.
    bundle = stock.migrate(stock.without_new_figures(copy.deepcopy(given)), from_newer=False)
    stock.set_figure_settings(bundle)
    notices += constraints.restore_constraints(bundle, parameters)
    fields = identities.restore_identities(parameters_of(bundle), parameters, kept_contexts)
    migrated = phoebe.Bundle(copy.deepcopy(fields))
    notices += values.restore_values(migrated, phoebe.Bundle(copy.deepcopy(given)), written.version)
    migrated._delayed_constraints = []
    stock.run_constraints(migrated)
    return Opened(migrated, notices)
