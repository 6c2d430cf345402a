"""Commands for the hierarchy: the stars and orbits of the system, and the primary star."""

from __future__ import annotations

import pickle
from typing import Any

from .registry import Session, command
from .statements import method

_EXAMPLE = "orbit:binary(star:primary, star:secondary)"


@command("set_hierarchy", kind="change", atomic=True, script=method("set_hierarchy", "value"))
def set_hierarchy(session: Session, /, value: str) -> dict[str, Any]:
    """Change the hierarchy and the constraints that follow from it. Changes nothing on failure.

    `value` is PHOEBE's text, such as `orbit:binary(star:primary, star:secondary)`.
    """
    if not isinstance(value, str):
        raise TypeError(f"value must be text, such as {_EXAMPLE}")
    before = pickle.dumps(session.bundle, 5)
    try:
        session.bundle.set_hierarchy(value)
        _check(session.bundle)
    except BaseException as error:
        session.bundle = pickle.loads(before)
        if not isinstance(error, Exception):
            raise
        raise ValueError(
            f"{value!r} is no hierarchy of this system ({error}). An example is {_EXAMPLE}"
        ) from error
    return {}


def _check(bundle: Any) -> None:
    """Check that each component exists and occurs once: PHOEBE accepts any text."""
    components = bundle.hierarchy.get_components()
    if not bundle.hierarchy.get_stars():
        raise ValueError("it has no star")
    for component in components:
        if component not in bundle.components:
            raise ValueError(f"there is no component {component}")
        if components.count(component) > 1:
            raise ValueError(f"{component} is in it twice")
