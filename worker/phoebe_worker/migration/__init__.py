"""Bundles that another version of PHOEBE wrote: what PHOEBE's own migration does, and the rest.

PHOEBE (2.5) migrates a file when it opens it. It builds datasets, computes and stars anew from
values by qualifier alone, so that the value of one star or dataset becomes that of another. It
fails for distributions of constrained parameters and for some constraints that were flipped. So
here it migrates the parameters without constraints and distributions; then

1. constraints solve for what they solve for in the file (`constraints`),
2. parameters keep the unique ids that they have in the file, and what PHOEBE dropped is attached
   again, distributions too (`identities`),
3. every parameter has the file's value again (`values`), and all constraints are run.

Nothing here reads bytes or JSON text; `portable` does.
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
    """A Bundle, and what its user must know of how it was opened."""

    bundle: Any
    notices: list[str] = field(default_factory=list)

    def told(self) -> dict[str, str]:
        """What a command that replaces the Bundle answers."""
        return {"notice": " ".join(self.notices)} if self.notices else {}


def opened(parameters: list[Fields], *, from_newer: bool) -> Opened:
    """The Bundle of these parameters, whatever PHOEBE wrote them; raises what PHOEBE raises.

    `from_newer`: also one of a newer PHOEBE, for which PHOEBE promises nothing.
    """
    written = versions.written_by(parameters)
    parameters = versions.marked(parameters, written)
    if written.is_of_this_phoebe:
        bundle = stock.migrated(parameters, from_newer=from_newer)
        return Opened(bundle, written.notices)
    return _migrated(parameters, written)


def _migrated(parameters: list[Fields], written: versions.Written) -> Opened:
    import phoebe

    notices = list(written.notices)
    apart = stock.not_migrated(written.version)
    given = [each for each in parameters if each.get("context") not in apart]
    # PHOEBE's migration changes what it is given.
    bundle = stock.migrated(stock.without_new_figures(copy.deepcopy(given)), from_newer=False)
    stock.set_figure_settings(bundle)
    notices += constraints.as_in_file(bundle, parameters)
    fields = identities.as_in_file(parameters_of(bundle), parameters, apart)
    migrated = phoebe.Bundle(copy.deepcopy(fields))
    notices += values.as_in_file(migrated, phoebe.Bundle(copy.deepcopy(given)), written.version)
    migrated._delayed_constraints = []
    stock.run_constraints(migrated)
    return Opened(migrated, notices)
