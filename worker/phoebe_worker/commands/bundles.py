"""Whole Bundles: fresh ones, morphologies, and the exchange of Bundles as PHOEBE's own JSON."""

from __future__ import annotations

import json
from typing import Any

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
    return {"bundle": bundle_to_json(session.bundle)}


@command("load_bundle", kind="change")
def load_bundle(session: Session, /, bundle: str) -> dict[str, Any]:
    """Replace the Bundle by one in PHOEBE's JSON, as text."""
    if not isinstance(bundle, str):
        raise TypeError("bundle must be the JSON text that save_bundle or PHOEBE's save gives")
    session.bundle = bundle_from_json(bundle)
    return {}


def bundle_to_json(bundle: Any) -> str:
    """PHOEBE's own format, unique ids included, and with the parameters that clients attached.

    `Bundle.to_json` leaves out contexts that PHOEBE does not know, as `ui`.
    """
    from phoebe.parameters.parameters import _contexts

    bundle.run_delayed_constraints()
    bundle.run_failed_constraints()
    parameters = bundle.to_json(incl_uniqueid=True)
    attached = [p for p in bundle._params if p.context not in _contexts]
    return json.dumps(parameters + [p.to_json(incl_uniqueid=True) for p in attached])


def bundle_from_json(text: str) -> Any:
    """A Bundle from PHOEBE's own format; raises what PHOEBE raises."""
    import phoebe
    from phoebe.utils import parse_json

    parameters = json.loads(text, object_pairs_hook=parse_json)
    if not isinstance(parameters, list) or not parameters:
        raise ValueError("a bundle is a list of parameters, as save_bundle or PHOEBE's save gives")
    return phoebe.Bundle.open(parameters)
