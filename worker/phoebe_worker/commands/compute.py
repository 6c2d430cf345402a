"""Long commands: forward models and solvers, and the format of their results."""

from __future__ import annotations

from typing import Any

from . import models
from .registry import Session, command
from .statements import method


@command("run_compute", kind="long", script=method("run_compute"))
def run_compute(session: Session, /, **options: Any) -> dict[str, Any]:
    """PHOEBE's run_compute; returns the new model by dataset."""
    new = session.bundle.run_compute(**options)
    label = new.model if new is not None else options.get("model", "latest")
    return {"model": models.answer(session.bundle, label)}


@command("run_solver", kind="long", script=method("run_solver"))
def run_solver(session: Session, /, **options: Any) -> dict[str, Any]:
    """PHOEBE's run_solver; returns the fitted twigs, with initial and fitted values."""
    new = session.bundle.run_solver(**options)
    label = new.solution if new is not None else options.get("solution", "latest")
    solution = session.bundle.filter(context="solution", solution=label, check_visible=False)
    fields = {
        "fit_parameters": "fitted_twigs",
        "initial_values": "initial_values",
        "fitted_values": "fitted_values",
    }
    return {
        "solution": {
            name: solution.get_value(qualifier=qualifier, check_visible=False)
            for name, qualifier in fields.items()
            if qualifier in solution.qualifiers
        }
    }
