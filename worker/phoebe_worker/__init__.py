"""The Python side of phoebe-server: a zygote, the workers forked from it, and their commands.

`docs/protocol.md` describes how the server talks to these processes. A new worker command is one
function in `commands/`, registered with the decorator `@command`.
"""

__version__ = "0.1.0"
