"""Every `visible_if` expression of the installed PHOEBE, judged by stock and accelerated PHOEBE."""

from __future__ import annotations

import ast
import pickle
import random

import pytest
from accelerate_bundles import BUILDERS, accelerated, built, outcome

from phoebe_worker.accelerate import visibility

# Values in PHOEBE's source that stand for expressions written elsewhere.
PASSED_ON = {
    "kwargs.get('visible_if', None)",
    "self.visible_if",
    "visible_if_lim",
    "visible_if_lim + ',' + visible_if",
    "visible_if_unit",
    "visible_if_unit + ',' + visible_if",
    "']'.join(visible_if[1:].split(']')[1:])",
}
# Conditions that are left to PHOEBE.
LEFT_TO_PHOEBE = ("ds_has_enabled_feature", "atm_in_computes")
# Conditions of the Bundles' own Parameters.
OF_CLIENTS = {"backend:B", "nonsense"}

TREES = [ast.parse(path.read_text()) for path in visibility.sources_of_parameters()]
VALUES = [value for tree in TREES for value in visibility.written_in(tree)]
EXPRESSIONS = sorted({text for each in VALUES for text in visibility.texts_of(each) if text})


def test_every_expression_in_the_source_is_read() -> None:
    unread = {ast.unparse(each) for each in VALUES if not visibility.texts_of(each)}
    assert unread <= PASSED_ON
    assert len(EXPRESSIONS) > 100


@pytest.mark.parametrize("name", BUILDERS)
def test_every_expression_of_a_bundle_is_in_the_source(name: str) -> None:
    bundle = pickle.loads(built(name, False))
    used = {parameter._visible_if for parameter in bundle._params}
    # PHOEBE writes `false`, and reads a stored one back as `False`.
    unknown = {each for each in used if not visibility.is_written_by_phoebe(each)}
    assert unknown - {"False"} <= OF_CLIENTS


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_is_parsed(expression: str) -> None:
    left = any(condition in expression for condition in LEFT_TO_PHOEBE)
    assert (visibility._parse(expression) is None) == left


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "broken"])
def test_every_expression_is_judged_as_in_phoebe(name: str) -> None:
    chosen = random.Random(name)
    asked = []
    bundle = pickle.loads(built(name, False))
    for expression in EXPRESSIONS:
        own = [p for p in bundle._params if p._visible_if == expression]
        asked += [(expression, p.uniqueid) for p in own[:4]]
        asked += [(expression, p.uniqueid) for p in chosen.sample(bundle._params, 8)]

    def judged(on: bool) -> list[object]:
        with accelerated(on):
            bundle = pickle.loads(built(name, False))
            found = {p.uniqueid: p for p in bundle._params}
            return [outcome(lambda e=e, p=p: bool(found[p]._is_visible(e))) for e, p in asked]

    stock, fast = judged(False), judged(True)
    for each, stock_each, fast_each in zip(asked, stock, fast, strict=True):
        assert fast_each == stock_each, each
    assert {("bool", True), ("bool", False)} <= set(map(tuple, stock))
