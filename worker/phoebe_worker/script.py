"""Writes a session's journal as a Python script that repeats it with PHOEBE alone.

Each command has a function that writes its statement (`commands/`). This module adds the versions,
an imported Bundle that the script begins with, and functions that scripts share with the server. It
raises where commands cannot be repeated. It does not run the script.
"""

from __future__ import annotations

import base64
import inspect
import re
import textwrap
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from . import portable, random_numbers
from .answer import describe
from .commands import COMMANDS, Command, Refused, parameters
from .templates import default_bundle

# Solvers that draw random numbers.
_RANDOM = ("emcee", "dynesty", "differential_evolution")
_SAMPLING_OPTIONS = {"sample_from", "sample_num"}

_VERSION = re.compile(r"[\w.+-]{1,50}")

# The maximum length of the tags of one parameter.
_TAGS_CHARACTERS_MAX = 2000

_OPENED_BUNDLE = f'''\
def opened_bundle(text: str) -> Any:
    """A Bundle from the text of a file as PHOEBE saves it, or as sessions keep it."""
    from phoebe.utils import parse_json

    parameters = json.loads(text, object_pairs_hook=parse_json)
    unfinished = [each for each in parameters if each["qualifier"] == {portable.UNFINISHED!r}]
    b = phoebe.Bundle.open([each for each in parameters if each not in unfinished])
    for constraints in [each["value"] for each in unfinished]:
        b._delayed_constraints += constraints["delayed"]
        b._failed_constraints += constraints["failed"]
    return b
'''

_UNPACKED = '''\
def unpacked(text: str) -> str:
    import base64
    import zlib

    return zlib.decompress(base64.b64decode(text)).decode()
'''


# The source of functions that statements call. The sandbox forbids to read it later.
_SHARED = {
    "default_bundle": inspect.getsource(default_bundle),
    "opened_bundle": _OPENED_BUNDLE,
    "unpacked": _UNPACKED,
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


# The origin of the Bundle that a script begins with.
_ORIGINS = {
    "uploaded": "The Bundle of a file that was uploaded to the session.",
    "loaded": "The Bundle that was loaded into the session.",
    "migrated": "The Bundle as an upgrade of PHOEBE made it of the session's.",
}


class NoScriptError(ValueError):
    """The session cannot be written as a script. The text gives the reason and the way out."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"No script makes this Bundle: {why}. Download the Bundle (GET …/bundle) and upload it "
            "again (PUT …/bundle): scripts begin with it from then on"
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One command of the journal, as the user sent it, and whether it succeeded."""

    name: str
    arguments: Mapping[str, Any]
    success: bool
    parameter: Mapping[str, Any] | None
    """The tags of the parameter that the command names by its unique id."""


@dataclass(frozen=True, slots=True)
class Journal:
    """The commands since the initial Bundle. `origin` is None for a fresh Bundle."""

    origin: str | None
    entries: list[Entry]
    phoebe: str


def base(bundle: Any) -> bytes:
    """The base for a script: the complete Bundle, compressed."""
    return zlib.compress(portable.write(bundle))


def named_parameter(bundle: Any, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """The tags of the parameter that a command names by its unique id.

    Unique ids differ from Bundle to Bundle. None if the command names no parameter by its unique
    id, or if other parameters have the same tags.
    """
    try:
        unique_id = arguments.get("uniqueid")
        return None if unique_id is None else _tags_of(bundle, unique_id)
    except BaseException:  # code of the Bundle may run here
        return None


def write(bundle: Any, body: bytes, initial: bytes) -> bytes:
    """The script of the journal in `body`, whose result is `bundle`; `initial` is a `base`.

    Raises ValueError if the session cannot be written as a script.
    """
    journal = _from_last_reset(_journal(body))
    statements = [*_initial_statements(journal, initial), *_statements(journal, initial, bundle)]
    main = "\n".join(statements) + "\n"
    shared = [source for name, source in _SHARED.items() if f"{name}(" in main]
    head = _head(bundle, len(journal.entries), journal.phoebe)
    return "\n\n".join([head.rstrip("\n") + "\n", *shared, main + _TAIL]).encode()


def _journal(body: bytes) -> Journal:
    import phoebe

    try:
        journal = orjson.loads(body)
        entries = [_entry(each) for each in journal["entries"]]
        version = str(journal.get("phoebe") or phoebe.__version__)
        if not _VERSION.fullmatch(version):
            raise ValueError(f"{version!r} is no version")
        origin = journal.get("base")
        if origin is not None and origin not in _ORIGINS:
            raise ValueError(f"{origin!r} is no origin of a Bundle")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"The journal of the session cannot be read: {describe(error)}") from error
    return Journal(origin, entries, version)


def _entry(value: dict[str, Any]) -> Entry:
    fields = dict(value["command"])
    name = str(fields.pop("command"))
    return Entry(name, fields, value["success"] is True, value.get("parameter"))


def _from_last_reset(journal: Journal) -> Journal:
    """Remove the commands before the last one that resets the Bundle: they have no effect."""
    for place in reversed(range(len(journal.entries))):
        entry = journal.entries[place]
        if _resets_bundle(entry):
            return Journal(None, journal.entries[place:], journal.phoebe)
    return journal


def _resets_bundle(entry: Entry) -> bool:
    command = COMMANDS.get(entry.name)
    return entry.success and command is not None and command.resets


def _initial_statements(journal: Journal, initial: bytes) -> Iterator[str]:
    if journal.origin is None:
        if not journal.entries or not _resets_bundle(journal.entries[0]):
            yield "b = default_bundle()"
        return
    lines = "\n".join(textwrap.wrap(base64.b64encode(initial).decode(), 96))
    yield f'# {_ORIGINS[journal.origin]}\nb = opened_bundle(unpacked("""\n{lines}\n"""))'


def _statements(journal: Journal, initial: bytes, bundle: Any) -> Iterator[str]:
    random = False
    loaded = _text_of(initial) if journal.origin else ""
    for entry in journal.entries:
        command = COMMANDS.get(entry.name)
        if command is None:
            raise NoScriptError(f"this server does not know its command {entry.name!r}")
        if command.script is None or (command.kind == "long" and not entry.success):
            continue  # the Bundle did not change
        try:
            fields, seed = command.split_seed(entry.arguments)
        except Refused as error:
            if entry.success:
                raise NoScriptError(f"{entry.name}: {describe(error)}") from error
            yield _comment(entry, f"failed: {describe(error)}")
            continue
        entry = replace(entry, arguments=fields)
        if entry.name == "load_bundle":
            loaded = str(entry.arguments.get("bundle"))
        random = random or _is_random(entry)
        if seed is not None:
            yield f"seed_random_numbers({seed})"
        elif command.kind == "long" and (random or _SAMPLING_OPTIONS & fields.keys()):
            yield "# Random numbers are drawn here: results differ from the session's."
        yield _statement(entry, command, bundle, loaded)


def _statement(entry: Entry, command: Command, bundle: Any, loaded: str) -> str:
    assert command.script is not None
    try:
        statement = command.script(_without_unique_id(entry, bundle, loaded))
    except Exception as error:
        if entry.success:
            raise NoScriptError(f"{entry.name}: {describe(error)}") from error
        return _comment(entry, f"failed: {describe(error)}")
    return statement if entry.success else _ignoring_failure(statement)


def _text_of(initial: bytes) -> str:
    try:
        return zlib.decompress(initial).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise NoScriptError(f"the Bundle that it begins with is damaged: {error}") from error


def _comment(entry: Entry, what: str) -> str:
    arguments = repr(dict(entry.arguments))
    short = arguments if len(arguments) < 200 else arguments[:200] + " …"
    return f"# {entry.name!r} {' '.join(what.split())}: {short}"


def _ignoring_failure(statement: str) -> str:
    """The statement of a command that failed, but may have changed the Bundle."""
    return (
        "try:  # this failed in the session too\n"
        f"{textwrap.indent(statement, '    ')}\n"
        "except Exception as error:\n"
        '    print(f"As in the session, a step failed: {error}")'
    )


def _is_random(entry: Entry) -> bool:
    kind = str(entry.arguments.get("kind"))
    return entry.name == "add_solver" and kind.split(".")[-1] in _RANDOM


def _without_unique_id(entry: Entry, bundle: Any, loaded: str) -> Mapping[str, Any]:
    """The arguments, with tags in place of a unique id.

    Unique ids differ from Bundle to Bundle, except those of a loaded file. Raises ValueError if
    the tags are not known.
    """
    unique_id = entry.arguments.get("uniqueid")
    if not isinstance(unique_id, str) or unique_id in loaded:
        return entry.arguments
    # Journals of earlier servers have no tags.
    tags = entry.parameter or _tags_of(bundle, unique_id)
    if not tags:
        raise ValueError(
            f"it is not known which parameter had the unique id {unique_id[:100]}: it was removed, "
            "or others have the same tags"
        )
    others = {name: value for name, value in entry.arguments.items() if name != "uniqueid"}
    return {**tags, "check_visible": False, "check_default": False, **others}


def _tags_of(bundle: Any, unique_id: Any) -> dict[str, Any] | None:
    found = [parameter for parameter in bundle._params if parameter.uniqueid == unique_id]
    if len(found) != 1:
        return None
    tags = {name: value for name, value in found[0].meta.items() if value is not None}
    for derived in ("twig", "uniquetwig", "uniqueid"):
        tags.pop(derived, None)
    same = bundle.filter(**tags, check_visible=False, check_default=False).to_list()
    fits = len(same) == 1 and len(orjson.dumps(tags)) <= _TAGS_CHARACTERS_MAX
    return tags if fits else None


def _printable(value: Any) -> str:
    """A text of a passband file, without characters that could add code to the script."""
    return "".join(each if each.isalnum() or each in " :._+-" else "?" for each in str(value))[:100]


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
        f"    passband {_printable(name)}, "
        f"version {_printable(phoebe.get_passband(name).version)}, {_printable(made[name])}"
        for name in made
    ]
    return _HEAD.format(
        date=time.strftime("%Y-%m-%d"),
        count=f"{count} command{'' if count == 1 else 's'}",
        versions="\n".join(versions),
        phoebe=phoebe_version,
        passbands=made,
    )
