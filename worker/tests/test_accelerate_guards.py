"""A patch is not installed for another source of PHOEBE; all patches can be uninstalled."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from typing import Any

import pytest
from accelerate_bundles import accelerated

from phoebe_worker import accelerate
from phoebe_worker.accelerate import registry

BY_TARGET = {patch.target: patch for patch in accelerate.PATCHES}


def present(target: str) -> Any:
    owner, name = registry._resolve(target)
    return inspect.getattr_static(owner, name)


@pytest.fixture(autouse=True)
def _uninstalled() -> Any:
    accelerate.uninstall()
    yield
    accelerate.uninstall()


def test_every_guard_holds_for_this_phoebe() -> None:
    assert [patch.target for patch in accelerate.PATCHES if patch.stale()] == []
    targets = {patch.target for patch in accelerate.PATCHES}
    assert len(targets) == len(accelerate.PATCHES)
    for patch in accelerate.PATCHES:
        assert patch.reason
        assert patch.equal_because
        assert patch.checked_with


@pytest.mark.parametrize("target", BY_TARGET)
def test_other_source_keeps_the_patch_off(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another source of its function, a patch stays off and logs one line."""
    stock = present(target)
    digest = registry.source_digest

    def other_source(name: str) -> str | None:
        return "another" if name == target else digest(name)

    monkeypatch.setattr(registry, "source_digest", other_source)
    lines: list[str] = []
    off = accelerate.install(lines.append)
    assert target in off
    assert present(target) is stock
    assert len(lines) == len(off)
    assert sum(f"acceleration of {target} is off" in line for line in lines) == 1
    assert any(patch.installed for patch in accelerate.PATCHES)


@pytest.mark.parametrize("target", BY_TARGET)
def test_a_missing_function_keeps_the_patch_off(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = BY_TARGET[target]
    monkeypatch.setattr(patch, "guards", {**patch.guards, "phoebe:no_such_function": "0"})
    lines: list[str] = []
    assert accelerate.install(lines.append) == [target]
    assert lines == [f"acceleration of {target} is off: PHOEBE's phoebe:no_such_function differs"]


def test_uninstalling_restores_phoebes_functions() -> None:
    stock = {target: present(target) for target in BY_TARGET}
    assert accelerate.install() == []
    for target, function in stock.items():
        assert present(target) is not function
        assert type(present(target)) is type(function)
    assert accelerate.install() == []
    accelerate.uninstall()
    assert {target: present(target) for target in BY_TARGET} == stock


def test_a_changed_function_of_phoebe_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another function in place of PHOEBE's, not only another hash."""
    from phoebe.parameters import ParameterSet

    def filter_or_get(self: Any, twig: Any = None, **kwargs: Any) -> str:
        return "another"

    monkeypatch.setattr(ParameterSet, "filter_or_get", filter_or_get)
    target = "phoebe.parameters.parameters:ParameterSet.filter_or_get"
    assert target in accelerate.install(lambda _: None)
    assert ParameterSet.filter_or_get is filter_or_get


@pytest.mark.parametrize("value", ["0", "false", "OFF", "no"])
def test_the_variable_that_turns_patches_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.SWITCH, value)
    assert not accelerate.enabled()
    monkeypatch.setenv(registry.SWITCH, "1")
    assert accelerate.enabled()
    monkeypatch.delenv(registry.SWITCH)
    assert accelerate.enabled()


@pytest.mark.parametrize(("value", "installed"), [("0", False), ("1", True)])
def test_workers_obey_the_switch(value: str, installed: bool) -> None:
    code = (
        "from phoebe_worker import templates; templates.prepare();"
        "from phoebe_worker import accelerate;"
        "print('installed', {patch.installed for patch in accelerate.PATCHES})"
    )
    environment = {**os.environ, registry.SWITCH: value, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"installed {{{installed}}}"


def test_originals_are_reached_with_and_without_patches() -> None:
    for target in BY_TARGET:
        with accelerated(False):
            stock = registry.original(target)
        with accelerated(True):
            assert registry.original(target) is stock
