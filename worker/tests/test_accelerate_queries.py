"""Stock and accelerated PHOEBE give equal results for over two thousand generated queries."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest
from accelerate_bundles import BUILDERS, accelerated, built, outcome, parameters, state

QUERIES_PER_BUNDLE = 225
Query = tuple[str, tuple[Any, ...], dict[str, Any]]
FIELDS = parameters._meta_fields_twig
PREFIXES = ["value", "quantity", "unit", "default_unit", "description", "choices", "result"]


@pytest.fixture(scope="module", params=BUILDERS)
def pickled(request: pytest.FixtureRequest) -> bytes:
    return built(request.param, False)


@pytest.mark.parametrize("name", BUILDERS)
def test_building_makes_the_same_bundle(name: str) -> None:
    with accelerated(False):
        stock, fast = (state(pickle.loads(built(name, on)), ids=False) for on in (False, True))
    assert len(fast) == len(stock)
    for fast_each, stock_each in zip(fast, stock, strict=True):
        assert fast_each == stock_each


def test_queries(pickled: bytes) -> None:
    stock_bundle, fast_bundle = pickle.loads(pickled), pickle.loads(pickled)
    queries = list(generate(stock_bundle, random.Random(len(stock_bundle._params))))
    with accelerated(False):
        stock = [outcome(lambda q=q: ask(stock_bundle, q)) for q in queries]
    with accelerated(True):
        fast = [outcome(lambda q=q: ask(fast_bundle, q)) for q in queries]
    for query, stock_each, fast_each in zip(queries, stock, fast, strict=True):
        assert fast_each == stock_each, query
    assert len({str(each) for each in stock}) > QUERIES_PER_BUNDLE / 5, "the queries say too little"


def test_names_and_visibility(pickled: bytes) -> None:
    def tell(bundle: Any) -> list[Any]:
        random_ = random.Random(3)
        chosen = random_.sample(bundle._params, 20)
        read: list[Callable[[Any], Any]] = [
            lambda p: p.twig,
            lambda p: p.uniquetwig,
            lambda p: p.is_visible,
            lambda p: p.uniquetags,
            lambda p: p.get_uniquetwig(bundle.filter(context=p.context, check_visible=False)),
            lambda p: p.to_json(),
        ]
        told = [outcome(lambda p=p, each=each: each(p)) for p in chosen for each in read]
        tags = [outcome(lambda f=f: getattr(bundle, f"{f}s")) for f in FIELDS]
        return [*told, *tags, outcome(lambda: bundle.to_json(incl_uniqueid=True))]

    with accelerated(False):
        stock = tell(pickle.loads(pickled))
    with accelerated(True):
        fast = tell(pickle.loads(pickled))
    assert fast == stock


def test_a_set_of_everything_shares_the_list_as_in_phoebe(pickled: bytes) -> None:
    bundle = pickle.loads(pickled)
    none_checked = {"check_visible": False, "check_default": False}
    for on in (False, True):
        with accelerated(on):
            assert bundle.filter(**none_checked)._params is bundle._params
            assert bundle.filter(context="component", **none_checked)._params is not bundle._params
            assert bundle.filter(check_visible=False)._params is not bundle._params


def ask(bundle: Any, query: Query) -> Any:
    method, args, kwargs = query
    target = bundle
    if method.startswith("chain."):
        method = method.removeprefix("chain.")
        target = bundle.filter(args[0], check_visible=False)
        args = args[1:]
    kwargs = {k: list(v) if isinstance(v, list) else v for k, v in kwargs.items()}
    return getattr(target, method)(*args, **kwargs)


def generate(bundle: Any, random_: random.Random) -> Any:
    """Queries by tags that the Bundle has, and by similar tags."""
    for _ in range(QUERIES_PER_BUNDLE):
        parameter = random_.choice(bundle._params)
        yield make_query(parameter, bundle, random_)


def make_query(parameter: Any, bundle: Any, random_: random.Random) -> Query:
    tags = {f: getattr(parameter, f) for f in FIELDS if getattr(parameter, f) is not None}
    method = random_.choice(
        ["filter", "filter", "filter_or_get", "get_parameter", "get_value", "get_value",
         "get_quantity", "exclude", "get_description", "get_default_unit", "__getitem__"]
    )
    kwargs: dict[str, Any] = {}
    twig: str | None = None
    how = random_.random()
    if method == "__getitem__" or how < 0.5:
        twig = make_twig(tags, random_)
    if method == "__getitem__":
        return method, (twig,), {}
    if how >= 0.35:
        for field in random_.sample(sorted(tags), random_.randint(1, min(4, len(tags)))):
            kwargs[field] = vary(field, tags[field], bundle, random_)
    if random_.random() < 0.06:
        kwargs = {"uniqueid": random_.choice([parameter.uniqueid, [parameter.uniqueid], "nosuch"])}
    if random_.random() < 0.03:
        kwargs["value"] = random_.choice([True, 1.0, "linear", ["abc", "auto"]])
        kwargs.setdefault("context", tags["context"])
    if random_.random() < 0.7:
        kwargs["check_visible"] = False
    if random_.random() < 0.3:
        kwargs["check_default"] = False
    for flag in ("check_advanced", "check_single"):
        if random_.random() < 0.1:
            kwargs[flag] = True
    if method == "filter_or_get" and random_.random() < 0.3:
        kwargs["force_ps"] = True
    if method == "get_value" and random_.random() < 0.15:
        kwargs[random_.choice(["unit", "default"])] = random_.choice(["solar", "si", "km", 3])
    if random_.random() < 0.15:
        return f"chain.{method}", (make_twig(tags, random_), *([twig] if twig else [])), kwargs
    return method, (twig,) if twig is not None else (), kwargs


def make_twig(tags: dict[str, str], random_: random.Random) -> str:
    pieces = random_.sample(sorted(tags.values()), random_.randint(1, min(4, len(tags))))
    if random_.random() < 0.5 and tags.get("qualifier") not in (None, *pieces):
        pieces.insert(0, tags["qualifier"])
    kind = random_.random()
    if kind < 0.06:
        pieces[0] = pieces[0][:2] + "*"
    elif kind < 0.09:
        pieces.append("*" + pieces[-1][-3:] + "*")
    elif kind < 0.12:
        pieces.append("nosuch")
    elif kind < 0.16:
        pieces[0] += random_.choice(["[0]", "[1]", "[x]", "[", "[0"])
    elif kind < 0.22:
        pieces.insert(0, random_.choice(PREFIXES))
    elif kind < 0.24:
        pieces.append(pieces[0])
    elif kind < 0.25:
        pieces.append("")
    return "@".join(pieces)


def vary(field: str, tag: str, bundle: Any, random_: random.Random) -> Any:
    """Mostly the tag itself; or a list, a wildcard, another case, None, a wrong type."""
    kind = random_.random()
    others = getattr(bundle, f"{field}s") or [tag]
    if kind < 0.6:
        return float(tag) if field == "time" and kind < 0.3 else tag
    if kind < 0.72:
        return [tag, random_.choice(others)]
    if kind < 0.78:
        return tag[:2] + "*"
    if kind < 0.82:
        return [tag[:1] + "*", random_.choice(others)]
    if kind < 0.86:
        return tag.upper()
    if kind < 0.89:
        return None
    if kind < 0.91:
        return random_.choice(["_default", "nosuch", "", "?" * len(tag)])
    if kind < 0.93:
        return []
    if kind < 0.95:
        return [tag, None] if field != "kind" else [tag]
    if kind < 0.96:
        return (tag,)
    return random_.choice(others)
