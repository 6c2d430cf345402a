"""The list of PHOEBE's visibility conditions is complete, and evaluating them raises nothing."""

from __future__ import annotations

import ast
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate_bundles import BUILDERS, accelerated, built, outcome, phoebe

from phoebe_worker.accelerate.visibility import AXES, CONDITIONS, conditions_of

PARAMETERS_PER_BUNDLE = 5


def expressions_in_source() -> Iterator[ast.expr]:
    """The values of all arguments `visible_if` and of variables whose names begin so."""
    for path in Path(phoebe.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword | ast.Assign):
                name = node.arg if isinstance(node, ast.keyword) else ast.unparse(node.targets[0])
                if name is not None and name.startswith("visible_if"):
                    yield node.value


def test_the_list_has_every_condition_of_phoebes_source() -> None:
    found = set()
    for value in expressions_in_source():
        # Any other form, such as an f-string, needs a change of this test.
        assert isinstance(value, ast.Constant | ast.Call | ast.Name | ast.BinOp | ast.Attribute)
        texts = [each.value for each in ast.walk(value) if isinstance(each, ast.Constant)]
        for text in filter(lambda each: isinstance(each, str), texts):
            found |= {
                each for each in conditions_of(text) if ":" in each or each.lower() == "false"
            }
    assert {each.replace("{}", axis) for each in found for axis in AXES} == CONDITIONS


@pytest.mark.parametrize("name", BUILDERS)
def test_conditions_are_evaluated_as_by_stock_phoebe(name: str) -> None:
    def evaluate(bundle: Any) -> list[Any]:
        chosen = random.Random(5).sample(bundle._params, PARAMETERS_PER_BUNDLE)
        return [
            outcome(lambda p=parameter, c=condition: p._is_visible(c))
            for parameter in chosen
            for condition in sorted(CONDITIONS)
        ]

    answers = []
    for on in (False, True):
        bundle = pickle.loads(built(name, False))
        with accelerated(on):
            answers.append(evaluate(bundle))
    assert answers[1] == answers[0]


@pytest.mark.parametrize("name", sorted(BUILDERS.keys() - {"broken"}))
def test_the_visibility_of_every_parameter_can_be_evaluated(name: str) -> None:
    bundle = pickle.loads(built(name, False))
    with accelerated(False):
        for parameter in bundle._params:
            if parameter.context != "constraint":
                assert bool(parameter.is_visible) in (True, False), parameter.twig
