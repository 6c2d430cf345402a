"""Places meshes in orbit at every frame without computing unused columns.

PHOEBE makes a mesh from another by evaluating every column of the first, even those that cannot be
set, and copies with `deepcopy` in between. Here the arrays are passed on directly. Every mesh has
columns of its own, and copies remain independent, because features may alter them.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np

from ..accelerate.registry import original, patch

_MODULE = "phoebe.backend.mesh"
_COPY = f"{_MODULE}:ProtoMesh.copy"
_FROM_PROTO = f"{_MODULE}:ScaledProtoMesh.from_proto"
_FROM_SCALED = f"{_MODULE}:Mesh.from_scaledproto"
_ROCHE = f"{_MODULE}:ScaledProtoMesh._copy_roche_values"
_AVERAGES = f"{_MODULE}:ComputedColumn.averages"
_VELOCITY = f"{_MODULE}:transform_velocity_array"
_GET_ITEM = f"{_MODULE}:ProtoMesh.__getitem__"
_SET_ITEM = f"{_MODULE}:ProtoMesh.__setitem__"
_EULER = f"{_MODULE}:euler_trans_matrix"
_AREAS = f"{_MODULE}:ProtoMesh.areas_si"
_PLAIN = frozenset({type(None), bool, int, float, str, np.float64})


@patch(
    _COPY,
    reason="deepcopy takes a millisecond for a few arrays",
    equal_because="each array and column is copied; PHOEBE copies anything unusual",
    checked_with=("2.5.4",),
    guards={_COPY: "2a15561e583c9de68790becd0d6d52b3701393c7dff0af363dfda698c8e51f2b"},
)
def copy_mesh(self: Any) -> Any:
    """ProtoMesh.copy: a deep copy by attribute; PHOEBE's own for unusual attributes."""
    new: Any = object.__new__(type(self))
    attributes = vars(new)
    column_class = _column_class()
    for name, value in vars(self).items():
        kind = type(value)
        if kind in _PLAIN:
            attributes[name] = value
        elif kind is np.ndarray:
            attributes[name] = value.copy(order="K")
        elif kind is column_class and value._mesh is self:
            attributes[name] = _column(new, value, copied=True)
        elif kind in (list, tuple) and all(type(each) in _PLAIN for each in value):
            attributes[name] = copy.copy(value)
        elif value == {}:
            attributes[name] = {}
        else:
            return original(_COPY)(self)
    return new


@patch(
    _FROM_PROTO,
    reason="columns were computed only to be dropped",
    equal_because="the same arrays, each mesh with columns of its own",
    checked_with=("2.5.4",),
    guards={_FROM_PROTO: "25667d7916060e97569e669ceb319c9b4c42979a285e81be2f7a1b1ec00dfe65"},
)
def scaled_from_proto(cls: type, proto_mesh: Any, scale: float) -> Any:
    """ScaledProtoMesh.from_proto."""
    mesh = _mesh_from(cls, proto_mesh)
    mesh._copy_roche_values()
    mesh._scale_mesh(scale=scale)
    return mesh


@patch(
    _FROM_SCALED,
    reason="columns were computed only to be dropped",
    equal_because="the same arrays, each mesh with columns of its own",
    checked_with=("2.5.4",),
    guards={_FROM_SCALED: "9a9db8d8f61ebb9dc82a689a170d3899f31b8233d820ba7e320da58e3047f134"},
)
def mesh_from_scaledproto(
    cls: type,
    scaledproto_mesh: Any,
    pos: Any,
    vel: Any,
    euler: Any,
    euler_vel: Any,
    rotation_vel: Any = (0, 0, 0),
    component_com_x: float | None = None,
) -> Any:
    """Mesh.from_scaledproto."""
    mesh = _mesh_from(cls, scaledproto_mesh)
    mesh._place_in_orbit(pos, vel, euler, euler_vel, rotation_vel, component_com_x)
    return mesh


@patch(
    _GET_ITEM,
    reason="columns were computed an additional time to see that they exist",
    equal_because="an attribute exists where it can be read",
    checked_with=("2.5.4",),
    guards={_GET_ITEM: "fbe24412105c7e61c960aa606e0ac7565ff5d6f5d8c6b39801f53c7ca266f0fd"},
)
def get_item(self: Any, key: Any) -> Any:
    """ProtoMesh.__getitem__, without an additional computation to see that a column exists."""
    if isinstance(key, str):
        try:
            return getattr(self, key)
        except AttributeError:
            observables = vars(self).get("_observables", {})
            if key in observables:
                return observables[key]
            raise KeyError(f"{key} is not a valid key") from None
    if isinstance(key, np.ndarray):
        raise KeyError("use mesh.take(bool_per_triangle, bool_per_vertex) to split mesh")
    return None


@patch(
    _SET_ITEM,
    reason="attributes were looked up three times",
    equal_because="the same attribute is set; PHOEBE sets new ones",
    checked_with=("2.5.4",),
    guards={_SET_ITEM: "d28201f792408fa41d4ce8ba6de0ca99a7dc6f5c947bf92dcf0b6626da76b917"},
)
def set_item(self: Any, key: str, value: Any) -> None:
    """ProtoMesh.__setitem__ of existing attributes; PHOEBE's own for new ones."""
    attributes = vars(self)
    name = f"_{key}"
    if name not in attributes:
        original(_SET_ITEM)(self, key, value)
    elif _is_column(attributes[name]) and not _is_column(value):
        attributes[name].set_for_computations(value)
    else:
        attributes[name] = value


@patch(
    _EULER,
    reason="the same matrix is computed about ten times for each star and frame",
    equal_because="a function of three numbers",
    checked_with=("2.5.4",),
    guards={_EULER: "9bb2051b0f40305d7abc798cd0ffaae654cb22455495567ec76ece01f84da9f9"},
)
def euler_trans_matrix(etheta: Any, elongan: Any, eincl: Any) -> Any:
    """euler_trans_matrix, cached."""
    try:
        return _euler_trans_matrix(etheta, elongan, eincl)
    except TypeError:  # unhashable: angles of many times at once
        return original(_EULER)(etheta, elongan, eincl)


@functools.lru_cache(maxsize=16)
def _euler_trans_matrix(etheta: float, elongan: float, eincl: float) -> Any:
    matrix = original(_EULER)(etheta, elongan, eincl)
    matrix.setflags(write=False)
    return matrix


@patch(
    _AREAS,
    reason="two Quantities were made for one product",
    equal_because="the factor is the one of the conversion",
    checked_with=("2.5.4",),
    guards={_AREAS: "9fdb5adb8f9d18c63cf74a8cc0d169405ed66edf17d58da5be325c55a7517876"},
)
def areas_si(self: Any) -> Any:
    """ProtoMesh.areas_si: the factor of a Quantity's conversion, without the Quantity."""
    return None if self._areas is None else _square_metres() * self._areas


@functools.cache
def _square_metres() -> float:
    """A square solar radius."""
    from phoebe import u

    return (1.0 * u.solRad**2).to(u.m**2).value


@patch(
    _ROCHE,
    reason="velocities at rest were averaged at every frame",
    equal_because="the average of zeros is zero",
    checked_with=("2.5.4",),
    guards={_ROCHE: "11a5afa2a7135a27a097653000c41155a389d31faf4fd91c6e83328c8ba8c790"},
)
def copy_roche_values(self: Any) -> None:
    """ScaledProtoMesh._copy_roche_values, without the average of a star's zero velocities."""
    self._roche_vertices = self._vertices.copy()
    self._roche_centers = self._centers.copy()
    self._roche_tnormals = self._tnormals.copy()
    at_rest = self._compute_at_vertices and not self._velocities._vertices.any()
    self._roche_cvelocities = (
        np.zeros(self._triangles.shape) if at_rest else self._velocities.centers.copy()
    )


@patch(
    _AVERAGES,
    reason="columns of zeros were averaged at every frame",
    equal_because="the average of zeros is zero",
    checked_with=("2.5.4",),
    guards={_AVERAGES: "016c34460be2871cf11dac2c988c6156fdd83c993124f8db0f003957a89a3365"},
)
def averages(self: Any) -> Any:
    """ComputedColumn.averages, without averaging zeros."""
    if not self.mesh._compute_at_vertices:
        return None
    vertices = self._vertices
    if _is_array(vertices) and vertices.ndim == 1 and not vertices.any():
        return np.zeros(len(self.mesh.triangles))
    return np.mean(self.vertices_per_triangle, axis=1)


@patch(
    _VELOCITY,
    reason="numpy.cross prepares for every shape",
    equal_because="the same products and differences, element by element",
    checked_with=("2.5.4",),
    guards={_VELOCITY: "d3fcfe21cfb11234ee6d108b89e82b9d27019d44699c447ca6d20a8cc7b2abaf"},
)
def transform_velocity_array(
    array: Any, pos_array: Any, vel: Any, euler: Any, rotation_vel: Any = (0, 0, 0)
) -> Any:
    """transform_velocity_array, with the cross product of one vector with many written out."""
    if _is_column(array):
        array = array.for_computations
    a, b = np.asarray(rotation_vel), np.asarray(pos_array)
    velocities = np.empty(b.shape)
    velocities[:, 0] = a[1] * b[:, 2] - a[2] * b[:, 1]
    velocities[:, 1] = a[2] * b[:, 0] - a[0] * b[:, 2]
    velocities[:, 2] = a[0] * b[:, 1] - a[1] * b[:, 0]
    return np.dot(np.asarray(array) + velocities, euler_trans_matrix(*euler).T) + np.asarray(vel)


def _mesh_from(cls: Any, source: Any) -> Any:
    """A mesh of another class with the arrays of `source`, in columns of its own."""
    new: Any = object.__new__(cls)
    attributes, settable = vars(new), vars(source)
    from_class: Any = type(source)
    plan = _plan(cls, from_class)
    attributes.update(plan.constants)
    attributes["_compute_at_vertices"] = source._compute_at_vertices
    for name, value in plan.others.items():
        attributes[name] = _column(new, value) if _is_column(value) else value.copy()
    for name in plan.arrays:
        attributes[name] = settable[name]
    for name in plan.columns:
        attributes[name] = _column(new, settable[name])
    return new


class _Plan:
    """The attributes that a mesh of class `cls` takes from one of class `source`, and its own."""

    def __init__(self, cls: type, source: type) -> None:
        empty, example = vars(cls()), source()
        taken = {f"_{key}" for key in example._keys} & vars(example).keys() & empty.keys()
        self.columns = [name for name in taken if _is_column(empty[name])]
        self.arrays = [name for name in taken if not _is_column(empty[name])]
        own = {name: value for name, value in empty.items() if name not in taken}
        self.constants = {n: value for n, value in own.items() if type(value) in _PLAIN}
        self.others = {n: value for n, value in own.items() if n not in self.constants}


_plan = functools.cache(_Plan)


@functools.cache
def _column_class() -> type:
    from phoebe.backend.mesh import ComputedColumn

    return ComputedColumn


def _is_column(value: Any) -> bool:
    return type(value) is _column_class()


def _column(mesh: Any, column: Any, *, copied: bool = False) -> Any:
    """The same column as part of another mesh."""
    new: Any = object.__new__(_column_class())
    vertices, centers = column._vertices, column._centers
    new._mesh = mesh
    new._vertices = vertices.copy(order="K") if copied and _is_array(vertices) else vertices
    new._centers = centers.copy(order="K") if copied and _is_array(centers) else centers
    new._compute_at_vertices = column._compute_at_vertices
    return new


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)
