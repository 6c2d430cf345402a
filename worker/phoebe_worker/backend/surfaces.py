"""Caches the potentials and meshes of Roche surfaces.

PHOEBE builds every star twice for one compute, for the passband luminosities and for the frames.
Potential and mesh are functions of a few numbers. Callers get a copy of the mesh.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from ..accelerate.registry import original, patch

_MODULE = "phoebe.backend.universe"
_MESH_ARGS = f"{_MODULE}:Star_roche.instantaneous_mesh_args"
_DETACHED_MESH = f"{_MODULE}:Star_roche._build_mesh"
_CONTACT_MESH = f"{_MODULE}:Star_roche_envelope_half._build_mesh"
_CACHE_MAX = 6

_mesh_args: OrderedDict[Any, Any] = OrderedDict()
_meshes: OrderedDict[Any, Any] = OrderedDict()


@patch(
    _MESH_ARGS,
    reason="the potential at a volume takes tens of ms, and each star is built twice",
    equal_because="a function of a few numbers, cached by their exact bits",
    checked_with=("2.5.4",),
    guards={_MESH_ARGS: "ea289ff3d6f239fcd037592974d83f24f7c434d06e21a09b472412b20f04bfad"},
)
def instantaneous_mesh_args(self: Any) -> Any:
    """Star_roche.instantaneous_mesh_args."""
    if "mesh_args" not in self.inst_vals:
        volume = self.get_target_volume(scaled=False)
        key = _exactly(self.q, self.F, self.instantaneous_d, volume, self.polar_direction_xyz)
        if key in _mesh_args:
            *numbers, direction, potential = _mesh_args[key]
            self.inst_vals["mesh_args"] = *numbers, direction.copy(), potential
        else:
            _store(_mesh_args, key, original(_MESH_ARGS)(self))
    return self.inst_vals["mesh_args"]


@patch(
    _DETACHED_MESH,
    reason="each star is meshed twice for one compute",
    equal_because="a function of a few numbers, cached by their exact bits; arrays are copied",
    checked_with=("2.5.4",),
    guards={_DETACHED_MESH: "5bd66e8d36fcd325030c33505357c0466fa1471b52a451cebe5dd36f0ea8a732"},
)
def build_detached_mesh(self: Any, mesh_method: str, **kwargs: Any) -> Any:
    """Star_roche._build_mesh."""
    return _build_mesh(_DETACHED_MESH, self, mesh_method, kwargs)


@patch(
    _CONTACT_MESH,
    reason="each envelope is meshed twice for one compute",
    equal_because="a function of a few numbers, cached by their exact bits; arrays are copied",
    checked_with=("2.5.4",),
    guards={_CONTACT_MESH: "f0f872370d7197e7292afb7ebe5f82c143b4a6c0fbded956b9beb7015d273ec6"},
)
def build_contact_mesh(self: Any, mesh_method: str, **kwargs: Any) -> Any:
    """Star_roche_envelope_half._build_mesh."""
    return _build_mesh(_CONTACT_MESH, self, mesh_method, kwargs)


def _build_mesh(target: str, star: Any, mesh_method: str, kwargs: dict[str, Any]) -> Any:
    build = original(target)
    if mesh_method != "marching" or kwargs:
        return build(star, mesh_method, **kwargs)
    settings = star.ntriangles, star.mesh_init_phi, star.sma
    key = target, _exactly(*star.instantaneous_mesh_args), _exactly(*settings)
    if key not in _meshes:
        _store(_meshes, key, build(star, mesh_method))
    columns, scale = _meshes[key]
    return {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in columns.items()
    }, scale


def _exactly(*numbers: Any) -> bytes:
    return b"".join(np.asarray(number, dtype=np.float64).tobytes() for number in numbers)


def _store(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    if len(memory) > _CACHE_MAX:
        memory.popitem(last=False)
