"""Commands for features, compute options, solvers and solutions.

Each calls PHOEBE's method of the same name.
"""

from __future__ import annotations

from typing import Any

from .registry import Session, command
from .statements import method


@command("add_feature", kind="change", script=method("add_feature", "kind"))
def add_feature(session: Session, /, kind: str, **options: Any) -> dict[str, Any]:
    """A spot, or another feature of a star or a dataset."""
    session.bundle.add_feature(kind, **options)
    return {}


@command("remove_feature", kind="change", script=method("remove_feature", "feature"))
def remove_feature(session: Session, /, feature: str, **options: Any) -> dict[str, Any]:
    session.bundle.remove_feature(feature, **options)
    return {}


@command("add_compute", kind="change", script=method("add_compute", "kind"))
def add_compute(session: Session, /, kind: str = "phoebe", **options: Any) -> dict[str, Any]:
    session.bundle.add_compute(kind, **options)
    return {}


@command("remove_compute", kind="change", script=method("remove_compute", "compute"))
def remove_compute(session: Session, /, compute: str, **options: Any) -> dict[str, Any]:
    session.bundle.remove_compute(compute, **options)
    return {}


@command("add_solver", kind="change", script=method("add_solver", "kind"))
def add_solver(session: Session, /, kind: str, **options: Any) -> dict[str, Any]:
    session.bundle.add_solver(kind, **options)
    return {}


@command("remove_solver", kind="change", script=method("remove_solver", "solver"))
def remove_solver(session: Session, /, solver: str, **options: Any) -> dict[str, Any]:
    session.bundle.remove_solver(solver, **options)
    return {}


@command("adopt_solution", kind="change", script=method("adopt_solution", "solution"))
def adopt_solution(session: Session, /, **options: Any) -> dict[str, Any]:
    """Adopt the fitted values or distributions; returns the adopted values by twig."""
    adopted = session.bundle.adopt_solution(**options)
    return {"adopted": {parameter.twig: parameter.get_value() for parameter in adopted.to_list()}}
