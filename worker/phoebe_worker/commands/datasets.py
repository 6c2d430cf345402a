"""Adding, removing and listing datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .registry import Session, command
from .statements import keywords, method


@command("add_dataset", kind="change", script=method("add_dataset", "kind"))
def add_dataset(session: Session, /, kind: str, **options: Any) -> dict[str, Any]:
    session.bundle.add_dataset(kind, **options)
    return {}


def _remove_script(arguments: Mapping[str, Any]) -> str:
    dataset = arguments.get("dataset")
    return (
        f"if {dataset!r} in b.datasets:\n"
        f"    b.remove_dataset({', '.join(keywords(arguments))})\n"
        f"b.remove_parameters_all(dataset={dataset!r}, context='ui', "
        "check_visible=False, check_default=False)"
    )


@command("remove_dataset", kind="change", script=_remove_script)
def remove_dataset(session: Session, /, dataset: str, **options: Any) -> dict[str, Any]:
    """Remove a dataset with its models and the client's parameters. Ignores unknown datasets."""
    bundle = session.bundle
    if dataset in bundle.datasets:
        bundle.remove_dataset(dataset, **options)
    bundle.remove_parameters_all(
        dataset=dataset, context="ui", check_visible=False, check_default=False
    )
    return {}


@command("get_datasets", kind="read")
def get_datasets(session: Session, /) -> dict[str, dict[str, dict[str, str]]]:
    bundle = session.bundle
    kinds = {
        name: bundle.filter(dataset=name, context="dataset", check_visible=False).kind
        for name in bundle.datasets
    }
    return {"datasets": {name: {"kind": kind} for name, kind in kinds.items()}}
