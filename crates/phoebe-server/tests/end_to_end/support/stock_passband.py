"""The recipe of docs/passbands.md, word for word, in the folder that is given; and what PHOEBE
computes with its passband."""

import json
import os
import pathlib
import re
import sys

request = json.loads(sys.argv[1])
document = pathlib.Path("../../docs/passbands.md").read_text(encoding="utf-8")
os.chdir(request["folder"])
os.environ["HOME"] = request["folder"]  # where stock PHOEBE looks for passbands


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)


pathlib.Path("transmission.txt").write_text(blocks("text")[0])
(recipe,) = [code for code in blocks("python") if "passband.save(" in code]
exec(recipe)

import phoebe  # noqa: E402

phoebe.install_passband("dome_i.fits")
bundle = phoebe.default_binary()
bundle.flip_constraint("mass@primary", solve_for="sma@binary")
bundle.flip_constraint("mass@secondary", solve_for="q")
for command in json.loads(blocks("json")[0]):
    getattr(bundle, command.pop("command"))(**command)
fluxes = list(bundle.get_value("fluxes", dataset="lc01", context="model"))
print(json.dumps({"fluxes": fluxes, "commands": json.loads(blocks("json")[0])}))
