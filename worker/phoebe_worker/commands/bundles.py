"""Commands for complete Bundles: default ones, and Bundles in PHOEBE's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import portable
from ..templates import MORPHOLOGIES, morphology_named
from .registry import Session, command
from .statements import keywords


@command("new_bundle", kind="change", atomic=True, resets=True,
         script=lambda _: "b = default_bundle()")  # fmt: skip
def new_bundle(session: Session, /) -> dict[str, Any]:
    session.bundle = session.templates.fresh()
    return {}


def _morphology_script(arguments: Mapping[str, Any]) -> str:
    options = MORPHOLOGIES[morphology_named(arguments["morphology"])]
    return f"b = default_bundle({', '.join(keywords(options))})"


@command("set_morphology", kind="change", atomic=True, resets=True, script=_morphology_script,
         older_names=("change_morphology",))  # fmt: skip
def set_morphology(session: Session, /, morphology: str) -> dict[str, Any]:
    """Replace the Bundle by the default one of a morphology: detached, semi-detached or contact."""
    session.bundle = session.templates.fresh(morphology_named(morphology))
    return {}


@command("get_bundle", kind="read", older_names=("save_bundle",))
def get_bundle(session: Session, /) -> dict[str, str]:
    bundle = session.bundle
    bundle.run_delayed_constraints()
    bundle.run_failed_constraints()
    return {"bundle": portable.write(bundle).decode()}


def _load_script(arguments: Mapping[str, Any]) -> str:
    return f"b = opened_bundle({arguments['bundle']!r})"


@command("load_bundle", kind="change", atomic=True, resets=True, imports=True, script=_load_script)
def load_bundle(session: Session, /, bundle: str) -> dict[str, Any]:
    """Replace the Bundle by one in PHOEBE's JSON, as text."""
    if not isinstance(bundle, str):
        raise TypeError("bundle must be the JSON text that save_bundle or PHOEBE's save gives")
    opened = portable.read(bundle.encode(), from_newer=False)
    session.bundle = opened.bundle
    return opened.result()
