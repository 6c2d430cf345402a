"""Whole Bundles: fresh ones, morphologies, and the exchange of Bundles as PHOEBE's own JSON."""

from __future__ import annotations

from typing import Any

from .. import portable
from .registry import Session, command


@command("new_bundle", kind="change")
def new_bundle(session: Session, /) -> dict[str, Any]:
    session.bundle = session.templates.fresh()
    return {}


@command("set_morphology", kind="change", older_names=("change_morphology",))
def set_morphology(session: Session, /, morphology: str) -> dict[str, Any]:
    """Begin anew with the default Bundle of a morphology: detached, semi-detached or contact."""
    session.bundle = session.templates.fresh(morphology)
    return {}


@command("get_bundle", kind="read", older_names=("save_bundle",))
def get_bundle(session: Session, /) -> dict[str, str]:
    bundle = session.bundle
    bundle.run_delayed_constraints()
    bundle.run_failed_constraints()
    return {"bundle": portable.write(bundle).decode()}


@command("load_bundle", kind="change")
def load_bundle(session: Session, /, bundle: str) -> dict[str, Any]:
    """Replace the Bundle by one in PHOEBE's JSON, as text."""
    if not isinstance(bundle, str):
        raise TypeError("bundle must be the JSON text that save_bundle or PHOEBE's save gives")
    session.bundle = portable.read(bundle.encode(), from_newer=False)
    return {}
