"""Whether a Parameter plays a role at present: its `visible_if` expression.

    expression  = alternative *( "||" alternative )     any of them holds
    alternative = condition *( "," condition )          all of them hold
    condition   = "false" | *( "[" tag "]" ) qualifier ":" value

A condition holds if the Parameter with that qualifier, and otherwise the same tags but for those in
brackets, has the value; also if there is not exactly one such Parameter.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import phoebe
from phoebe.parameters import parameters as phoebe_parameters

from .registry import original, patch
from .sources import sources
from .tags import FIELDS

_MODULE = "phoebe.parameters.parameters"
_TARGET = f"{_MODULE}:Parameter._is_visible"
_FIGURE_DIRECTIONS = ("x", "y", "z", "c", "fc", "ec")
_TRUE, _FALSE = ("true", "True"), ("false", "False")
BoolParameter = phoebe_parameters.BoolParameter


def written_in(tree: ast.AST) -> Iterator[ast.expr]:
    """Each value in Python source that is given to an argument or a variable `visible_if…`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "visible_if":
            yield node.value
        elif isinstance(node, ast.Assign):
            names = [each.id for each in node.targets if isinstance(each, ast.Name)]
            if any(name.startswith("visible_if") for name in names):
                yield node.value


def texts_of(value: ast.expr) -> list[str | None]:
    """The expressions that a value can be: a constant, or a text formatted with a direction; empty
    where it is something else."""
    if isinstance(value, ast.Constant) and (value.value is None or isinstance(value.value, str)):
        return [value.value]
    if isinstance(value, ast.IfExp):
        return texts_of(value.body) + texts_of(value.orelse)
    match value:
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format")):
            return [text.replace("{}", each) for each in _FIGURE_DIRECTIONS]
    return []


def sources_of_parameters() -> list[Path]:
    """The files in which PHOEBE defines Parameters."""
    return sorted((Path(phoebe.__file__).parent / "parameters").rglob("*.py"))


def conditions_of(visible_if: str) -> list[str]:
    """The conditions of an expression, as texts."""
    return visible_if.replace("||", ",").split(",")


@functools.cache
def _known() -> frozenset[str]:
    """Every condition that PHOEBE itself writes, read from its source."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in sources_of_parameters())
    values = (value for tree in trees for value in written_in(tree))
    texts = (text for value in values for text in texts_of(value) if text is not None)
    return frozenset(condition for text in texts for condition in conditions_of(text))


@functools.lru_cache(maxsize=4096)
def is_written_by_phoebe(visible_if: str | None) -> bool:
    """Whether each condition of an expression is one that PHOEBE itself writes."""
    return visible_if is None or all(each in _known() for each in conditions_of(visible_if))


def is_harmless(parameter: Any) -> bool:
    """Whether it is certain that asking for the Parameter's visibility raises nothing."""
    try:
        return is_written_by_phoebe(parameter._visible_if)
    except (TypeError, AttributeError):
        return False


@patch(
    _TARGET,
    reason="for each condition it made a dictionary of all tags and a new ParameterSet",
    equal_because="the same Parameter is found by the same tags, and its value compared the same "
    "way; conditions on features and atmospheres are left to PHOEBE",
    checked_with=("2.5.4",),
    guards=sources(
        _TARGET,
        f"{_MODULE}:Parameter.is_visible",
        f"{_MODULE}:Parameter.get_meta",
        f"{_MODULE}:ParameterSet.get",
        f"{_MODULE}:ParameterSet.filter_or_get",
    ),
)
def _is_visible(self: Any, visible_if: str | None = None) -> Any:
    if visible_if is None:
        visible_if = self._visible_if
    if visible_if is None or not self._bundle:
        return True
    alternatives = _parse(visible_if) if type(visible_if) is str else None
    if alternatives is None:
        return original(_TARGET)(self, visible_if)
    results = [[_holds(self, condition) for condition in each] for each in alternatives]
    if all(isinstance(result, bool | np.bool_) for each in results for result in each):
        return np.bool_(any(all(each) for each in results))
    return np.any([np.all(each) for each in results])


Condition = tuple[frozenset[str], str, str]


@functools.lru_cache(maxsize=4096)
def _parse(visible_if: str) -> list[list[Condition | None]] | None:
    """Alternatives of conditions (None: never); None where PHOEBE itself shall judge."""
    alternatives: list[list[Condition | None]] = []
    for alternative in visible_if.split("||"):
        conditions: list[Condition | None] = []
        for text in alternative.split(","):
            if text.lower() == "false":
                conditions.append(None)
                continue
            ignored = []
            while text.startswith("["):
                tag, bracket, text = text[1:].partition("]")
                if not bracket:
                    return None
                ignored.append(tag)
            qualifier, colon, value = text.partition(":")
            if not (colon and qualifier and value) or ":" in value:
                return None
            if qualifier.startswith(("ds_has_enabled_feature", "atm_in_computes")):
                return None
            conditions.append((frozenset(ignored), qualifier, value))
        alternatives.append(conditions)
    return alternatives


def _holds(parameter: Any, condition: Condition | None) -> Any:
    if condition is None:
        return False
    ignored, qualifier, value = condition
    if "hierarchy." in qualifier:
        return _hierarchy_holds(parameter, qualifier, value)
    holder = _holder(parameter, ignored, qualifier)
    if holder is None:
        return True
    wanted: Any = value
    if isinstance(holder, BoolParameter):
        wanted = True if value in _TRUE else False if value in _FALSE else value
    if not isinstance(wanted, str):
        return holder.get_value() == wanted
    if wanted[0] in "!~":
        present = holder.get_value()
        if isinstance(present, float):
            return present != float(wanted[1:])
        if isinstance(present, int):
            return present != int(float(wanted[1:]))
        return present != wanted[1:]
    if "|" in wanted:
        return holder.get_value() in wanted.split("|")
    if wanted == "<notempty>":
        return len(holder.get_value(expand=True)) > 0
    if wanted == "<plural>":
        return len(holder.get_value(expand=True)) > 1
    if wanted == "<empty>":
        return len(holder.get_value(expand=True)) == 0
    if wanted[0] == "<" and wanted[-1] == ">":
        return holder.get_value() == getattr(parameter, wanted[1:-1])
    return holder.get_value() == wanted


def _hierarchy_holds(parameter: Any, qualifier: str, value: str) -> Any:
    hierarchy = parameter._bundle.hierarchy
    if not hierarchy or not len(hierarchy.get_value()):
        return True
    method = qualifier.split(".")[1]
    wanted = True if value in _TRUE else False if value in _FALSE else value
    return getattr(hierarchy, method)(parameter.component) == wanted


def _holder(parameter: Any, ignored: frozenset[str], qualifier: str) -> Any:
    """The one Parameter with the same tags but that qualifier; None where there is not just one."""
    from .matching import match_tag

    bundle = parameter._bundle
    found = match_tag(bundle, bundle._params, "qualifier", qualifier)
    for field in FIELDS:
        if field == "qualifier" or field in ignored or not found:
            continue
        tag = getattr(parameter, field)
        if tag is not None:
            found = match_tag(bundle, found, field, tag)
    return found[0] if len(found) == 1 else None
