"""Commands for constraints, which compute a parameter from others."""

from __future__ import annotations

from typing import Any

from .registry import Session, command
from .statements import method


@command("get_constraint", kind="read")
def get_constraint(session: Session, /, **filters: Any) -> Any:
    """The constraint that sets the parameter of these filters, with its expression."""
    return session.bundle.get_constraint(**filters).to_dict()


@command("flip_constraint", kind="change", script=method("flip_constraint", "twig"))
def flip_constraint(session: Session, /, solve_for: str, **filters: Any) -> dict[str, Any]:
    """Let a constraint set `solve_for` instead, so that its former parameter can be set."""
    session.bundle.flip_constraint(solve_for=solve_for, **filters)
    return {}
