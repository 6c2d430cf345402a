"""A session's journal of commands as a Python script that repeats it with PHOEBE alone.

Each command tells itself (`commands/`); here is what stands around: versions, what scripts share
with the server, and what cannot be repeated. Nothing of the script is run here.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from . import random_numbers
from .answer import describe
from .commands import COMMANDS, Refused, parameters
from .templates import default_bundle

# Solvers that draw random numbers.
_RANDOM = ("emcee", "dynesty", "differential_evolution")
_SAMPLING_OPTIONS = {"sample_from", "sample_num"}

_VERSION = re.compile(r"[\w.+-]{1,50}")

_OPENED_BUNDLE = '''\
def opened_bundle(text: str) -> Any:
    """A Bundle from the text of a file as PHOEBE saves it."""
    from phoebe.utils import parse_json

    return phoebe.Bundle.open(json.loads(text, object_pairs_hook=parse_json))
'''


# What statements call, by name. Read now: later this process may not read files.
_SHARED = {
    "default_bundle": inspect.getsource(default_bundle),
    "opened_bundle": _OPENED_BUNDLE,
    "new_parameter": inspect.getsource(parameters.new_parameter),
    "seed_random_numbers": inspect.getsource(random_numbers.seed_random_numbers),
}

_HEAD = '''\
"""A Bundle as a session of phoebe-server made it, step by step, with PHOEBE alone.

Written on {date} from {count} for
{versions}

Run it, or run it with the name of a file to save the Bundle to.
"""

import json
import sys
import warnings
from typing import Any

import phoebe

PHOEBE = {phoebe!r}
PASSBANDS = {passbands!r}  # name and time of making

if phoebe.__version__ != PHOEBE:
    warnings.warn(f"This is PHOEBE {{phoebe.__version__}}, the session had {{PHOEBE}}: "
                  "results may differ.")
for name, made in PASSBANDS.items():
    installed = phoebe.list_installed_passbands(full_dict=True).get(name, {{}})
    if installed.get("timestamp") != made:
        warnings.warn(f"Passband {{name}} is another than the session's ({{made}}): "
                      "results may differ.")

'''

_TAIL = '''
if __name__ == "__main__" and len(sys.argv) == 2:
    b.save(sys.argv[1])
'''


@dataclass(frozen=True, slots=True)
class Entry:
    """One command of the journal as its user sent it, and whether it succeeded."""

    name: str
    arguments: Mapping[str, Any]
    success: bool


def write(bundle: Any, body: bytes) -> bytes:
    """The script of the journal in `body`; `bundle` is what came of it. Raises ValueError."""
    entries, phoebe_version = _journal(body)
    statements = ["b = default_bundle()", *_statements(entries, bundle)]
    main = "\n".join(statements) + "\n"
    shared = [source for name, source in _SHARED.items() if f"{name}(" in main]
    head = _head(bundle, len(entries), phoebe_version)
    return "\n\n".join([head.rstrip("\n") + "\n", *shared, main + _TAIL]).encode()


def _journal(body: bytes) -> tuple[list[Entry], str]:
    """The journal's entries, and the version of PHOEBE that they ran with."""
    import phoebe

    try:
        journal = orjson.loads(body)
        entries = [_entry(each) for each in journal["entries"]]
        version = str(journal.get("phoebe") or phoebe.__version__)
        if not _VERSION.fullmatch(version):
            raise ValueError(f"{version!r} is no version")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"The journal of the session cannot be read: {describe(error)}") from error
    return entries, version


def _entry(value: dict[str, Any]) -> Entry:
    fields = dict(value["command"])
    return Entry(str(fields.pop("command")), fields, value["success"] is True)


def _statements(entries: list[Entry], bundle: Any) -> Iterator[str]:
    random = False
    loaded = ""
    for entry in entries:
        command = COMMANDS.get(entry.name)
        if command is None:
            yield _comment(entry, "is a command that this server does not know")
            continue
        if command.script is None or (command.kind == "long" and not entry.success):
            continue  # the Bundle stayed as it was
        try:
            fields, seed = command.split_seed(entry.arguments)
        except Refused as error:
            yield _comment(entry, f"failed: {describe(error)}")
            continue
        arguments, gone = _without_unique_id(fields, bundle, loaded)
        if gone:
            yield _comment(entry, "concerned a parameter that was removed later")
            continue
        if entry.name == "load_bundle":
            loaded = str(arguments.get("bundle"))
        random = random or _is_random(entry)
        if seed is not None:
            yield f"seed_random_numbers({seed})"
        elif command.kind == "long" and (random or _SAMPLING_OPTIONS & arguments.keys()):
            yield "# Random numbers are drawn here: results differ from the session's."
        try:
            statement = command.script(arguments)
        except Exception as error:
            yield _comment(entry, f"failed: {describe(error)}")
            continue
        yield statement if entry.success else _forgiving(statement)


def _comment(entry: Entry, what: str) -> str:
    arguments = repr(dict(entry.arguments))
    short = arguments if len(arguments) < 200 else arguments[:200] + " …"
    return f"# {entry.name!r} {' '.join(what.split())}: {short}"


def _forgiving(statement: str) -> str:
    """For a command that failed after it may have changed something."""
    return (
        "try:  # this failed in the session too\n"
        f"{textwrap.indent(statement, '    ')}\n"
        "except Exception as error:\n"
        '    print(f"As in the session, a step failed: {error}")'
    )


def _is_random(entry: Entry) -> bool:
    kind = str(entry.arguments.get("kind"))
    return entry.name == "add_solver" and kind.split(".")[-1] in _RANDOM


def _without_unique_id(
    arguments: Mapping[str, Any], bundle: Any, loaded: str
) -> tuple[Mapping[str, Any], bool]:
    """Unique ids differ from Bundle to Bundle, but for those of a file: tags in their place.

    Also tells whether there is no such parameter any more.
    """
    unique_id = arguments.get("uniqueid")
    if not isinstance(unique_id, str) or unique_id in loaded:
        return arguments, False
    found = [parameter for parameter in bundle._params if parameter.uniqueid == unique_id]
    if not found:
        return arguments, True
    tags = {name: value for name, value in found[0].meta.items() if value is not None}
    for derived in ("twig", "uniquetwig"):
        tags.pop(derived, None)
    others = {name: value for name, value in arguments.items() if name != "uniqueid"}
    return {**tags, "check_visible": False, "check_default": False, **others}, False


def _head(bundle: Any, count: int, phoebe_version: str) -> str:
    import phoebe

    used = {"Bolometric:900-40000"} | {
        parameter.get_value()
        for parameter in bundle._params
        if parameter.qualifier == "passband" and parameter.dataset != "_default"
    }
    installed = phoebe.list_installed_passbands(full_dict=True)
    made = {name: installed[name]["timestamp"] for name in sorted(used) if name in installed}
    versions = [f"    PHOEBE {phoebe_version}"]
    versions += [
        f"    passband {name}, version {phoebe.get_passband(name).version}, {made[name]}"
        for name in made
    ]
    return _HEAD.format(
        date=time.strftime("%Y-%m-%d"),
        count=f"{count} command{'' if count == 1 else 's'}",
        versions="\n".join(versions),
        phoebe=phoebe_version,
        passbands=made,
    )
