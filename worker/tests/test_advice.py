"""Compares the table of advice with every message in PHOEBE's source that gives advice."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import phoebe
import pytest
from harness import Connection

from phoebe_worker.advice import ADVICE, advice_on, fits
from phoebe_worker.answer import Answer

SOURCE = Path(phoebe.__file__).parent

# Libraries within PHOEBE whose errors are about calls that only PHOEBE itself makes.
PASSED_OVER = ("crimpl", "autofig", "nparray")

# Patterns of messages that give advice for a Python prompt.
TELLS = re.compile(
    r"\b(phoebe|b)\.\w+\(|pip install|[Ii]nstall|restart|[Uu]pdating\b|be updated|[Dd]ownload"
    r"|Call \w+|call \.?\w+\(|[Ii]nternet|[Ee]nvironment variable|[Dd]owngrade|does not support"
    r"|online passbands|executable|crimpl|remote server|import_from|requires scipy"
    r"|no match for passband|dependency not"
)

# Matching messages that need no advice, with the reason.
FINE = {
    "pdf logpdf cdf logcdf ppf sf logsf isf moment entropy median mean var std interval": (
        "what a distribution lacks",
        r"^\{\} does not support \w+(\.  Original error: \{\})?$",
    ),
    "kinds": ("what a backend lacks", r"does not support (component|dataset) with kind \{\}$"),
    "systems": (
        "what a backend lacks: another compute can be chosen",
        r"does not support (single|contact|multiple|misalignment|orbital|apsidal|irradiation)",
    ),
    "interpolation": (
        "what an atmosphere lacks: another can be chosen",
        r"but atm@\{\}@\{\}='\{\}' does not support",
    ),
    "internal": (
        "about PHOEBE's own code",
        r"_get_system_ps does not support|Eclipse parameters not computed|Polyfit cannot compute"
        r"|must provide value for x or call .sample|Must past values or call .sample",
    ),
    "no instruction": (
        "what PHOEBE does by itself",
        r"will update to the current face-values|will create 'crimpl' subdirectory",
    ),
}


def messages() -> Iterator[str]:
    """The texts that PHOEBE raises or puts into reports of checks; `{}` for what it fills in."""
    for file in sorted(SOURCE.rglob("*.py")):
        if any(part in PASSED_OVER for part in file.relative_to(SOURCE).parts):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                yield from map(text_of, node.exc.args)
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "add_item"
            ):
                yield from map(text_of, node.args)


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
        )
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "format"
    ):
        return text_of(node.func.value)
    return ""


TELLING = sorted({text for text in messages() if TELLS.search(text)})


def test_every_message_that_tells_what_to_do_is_known() -> None:
    assert len(TELLING) > 60, "PHOEBE's source was not found"
    fine = [re.compile(pattern) for _, pattern in FINE.values()]
    unknown = [
        text
        for text in TELLING
        if not advice_on(text) and not any(pattern.search(text) for pattern in fine)
    ]
    assert unknown == [], "give advice on these in phoebe_worker/advice.py, or say here why not"


@pytest.mark.parametrize("text", [text for texts in ADVICE.values() for text in texts])
def test_the_table_holds_nothing_that_phoebe_does_not_say(text: str) -> None:
    # Two messages are composed of an error and a name.
    assembled = {
        "value for passband@": "value for {} must be one of {}, not '{}'",
        "could not set value for passband=": "could not set value for {}={} with error: '{}'. {}",
    }
    said = [each for each in messages() if fits(assembled.get(text, text), each)]
    assert said or text in assembled, "PHOEBE does not say that any more"


def test_other_errors_get_no_advice(connection: Connection) -> None:
    answer = connection.send("get_value", twig="nosuch@thing")
    assert answer.keys() == {"success", "error", "traceback"}


def test_advice_comes_beside_the_error() -> None:
    said = "jktebop executable not found.  Install manually and try again."
    answer = orjson.loads(Answer.raised(ImportError(said)).body)
    assert answer["error"] == said
    assert "ask the operator" in answer["advice"]
