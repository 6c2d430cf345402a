"""Commands that read, set and attach parameters.

Filters are PHOEBE's own: `twig`, `uniqueid`, or any tags (`qualifier`, `component`, `context`, …),
plus the keyword options of the PHOEBE method of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import passband_files
from .arguments import Refused
from .registry import Session, command
from .statements import keywords, method

# Classes of parameters that PHOEBE changes by a specific method, with the command for it. To set
# their value would omit the other effects of the method.
COMMAND_BY_CLASS = {
    "HierarchyParameter": "set_hierarchy",
    "ConstraintParameter": "flip_constraint",
}


@command("ping", kind="read")
def ping(session: Session, /) -> dict[str, str]:
    return {"status": "ready"}


@command("get_parameter", kind="read")
def get_parameter(session: Session, /, **filters: Any) -> Any:
    parameter = session.bundle.get_parameter(**filters)
    fields = parameter.to_dict()
    if parameter.qualifier == "passband" and "choices" in fields:
        # PHOEBE's choices are those at the time when the dataset was added.
        fields["choices"] = passband_files.choices()
    return fields


@command("get_value", kind="read")
def get_value(session: Session, /, **filters: Any) -> Any:
    return session.bundle.get_value(**filters)


@command("set_value", kind="change", script=method("set_value", "twig"))
def set_value(session: Session, /, value: Any, **filters: Any) -> dict[str, Any]:
    found = session.bundle.filter(**filters).to_list()
    if len(found) == 1:  # otherwise PHOEBE raises an error
        _refuse_dependents(found)
    session.bundle.set_value(value=value, **filters)
    return {}


@command("set_value_all", kind="change", script=method("set_value_all", "twig"))
def set_value_all(session: Session, /, value: Any, **filters: Any) -> dict[str, Any]:
    """Set the same value for every matching parameter."""
    _refuse_dependents(session.bundle.filter(**filters).to_list())
    session.bundle.set_value_all(value=value, **filters)
    return {}


def _refuse_dependents(parameters: list[Any]) -> None:
    for parameter in parameters:
        instead = COMMAND_BY_CLASS.get(type(parameter).__name__)
        if instead is not None:
            raise Refused(
                f"{parameter.twig} has no value to set: other parameters depend on it, which "
                f'would not follow. Send the command "{instead}" instead, or leave it out with a '
                "filter such as context."
            )


@command("get_uniqueid", kind="read", older_names=("update_uniqueid",))
def get_uniqueid(session: Session, /, **filters: Any) -> Any:
    """The unique id of a parameter; null if it does not exist."""
    if not session.bundle.filter(**filters).to_list():
        return None
    return session.bundle.get_parameter(**filters).uniqueid


@command("is_parameter_constrained", kind="read")
def is_parameter_constrained(session: Session, /, **filters: Any) -> bool:
    """Whether a constraint sets this parameter."""
    parameter = session.bundle.get_parameter(**filters)
    return bool(getattr(parameter, "constrained_by", None))


def _attach_script(arguments: Mapping[str, Any]) -> str:
    new = [f"    new_parameter({', '.join(keywords(each))}),\n" for each in arguments["parameters"]]
    return f"b._attach_params([\n{''.join(new)}])"


@command("attach_parameters", kind="change", script=_attach_script, older_names=("attach_params",))
def attach_parameters(
    session: Session, /, parameters: list[dict[str, Any]]
) -> dict[str, list[str]]:
    """Add parameters of the client, all or none. The default of `context` is `ui`."""
    if not isinstance(parameters, list) or not all(isinstance(p, dict) for p in parameters):
        raise TypeError("parameters must be a list of objects")
    new = [new_parameter(**description) for description in parameters]
    session.bundle._attach_params(new)
    return {"unique_ids": [parameter.uniqueid for parameter in new]}


def new_parameter(*, ptype: str, qualifier: str, **options: Any) -> Any:
    """A parameter of a client's own; scripts have this function too."""
    from phoebe.parameters import parameters as phoebe_parameters

    classes = {
        "choice": phoebe_parameters.ChoiceParameter,
        "int": phoebe_parameters.IntParameter,
        "float": phoebe_parameters.FloatParameter,
        "bool": phoebe_parameters.BoolParameter,
        "string": phoebe_parameters.StringParameter,
    }
    if ptype not in classes:
        raise ValueError(f"Unsupported parameter type: {ptype}")
    options.setdefault("context", "ui")
    options.setdefault("description", "")
    return classes[ptype](qualifier=qualifier, **options)
