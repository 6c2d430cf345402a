"""Commands of the test zygote for the steps of `kinds` that clients have no command for."""

from __future__ import annotations

from typing import Any

import kinds

from phoebe_worker.commands import Session, command


@command("test_method", kind="long")
def test_method(session: Session, /, method: str, options: dict[str, Any]) -> dict[str, Any]:
    bundle = kinds.apply_method(session.bundle, method, options)
    if bundle is not None:
        session.bundle = bundle
    return {}
