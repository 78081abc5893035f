"""For any text, decoding returns a tree or raises one of the known errors."""

from __future__ import annotations

import dataclasses
import json
import random
import typing
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import pytest

from population.base import codec
from population.base.types import Ref, Saved
from tests.test_codec import Inner, Outer

BODIES: list[Any] = [
    3,
    -1,
    1.5,
    True,
    None,
    "ab",
    "nan",
    [],
    {},
    [1],
    ["g", 1],
    ["g", "1"],
    ["g", True],
    ["g", 1, 1],
    [1, "g"],
    [[1, 2]],
    [[[1], 2]],
    [[{"a": 1}, 2]],
    [[1, 2, 3]],
    ["ab"],
    {"a": 1},
    {"ab": 1},
    {"!ref": 3},
    {"!tuple": [[1]]},
    {"!dict": [[1, {"!x": 1}]]},
    {"ref": 1, "weights": 2},
]
TAGS = ["!ref", "!tuple", "!dict", "!float", "!held", "!data", "!saved", "!path", "!x"]
FITTING: dict[str, Callable[[Any], bool]] = {
    "!ref": lambda body: body == ["g", 1],
    "!held": lambda body: body == ["g", 1],
    "!tuple": lambda body: type(body) is list,
    "!float": lambda body: body == "nan",
    "!saved": lambda body: type(body) is str,
    "!path": lambda body: type(body) is str,
    "!dict": lambda body: body == [] or body == [[1, 2]],
}
LITERALS = [
    "NaN",
    "-Infinity",
    "Infinity",
    "1e999",
    "-1e999",
    "1" * 5000,
    "-0",
    "1E400",
]
LITERALS += ["[" * 3000, "[" * 3000 + "]" * 3000, '{"a":' * 2000, "\ufeff1", "", " "]
LITERALS += ['{"!tuple":[' * 400 + "]}" * 400, '{"!float":"' + "n" * 9000 + '"}']


@pytest.mark.parametrize("tag", TAGS)
def test_a_body_of_another_kind_is_refused(tag: str) -> None:
    """`{"!saved": 3}` is damage, not a path."""
    for body in BODIES:
        if tag in FITTING and FITTING[tag](body):
            continue
        text = json.dumps([{tag: body}])
        with pytest.raises(ValueError, match=r"Not written by|is stored here"):
            codec.decode(text)


@pytest.mark.parametrize("text", ["NaN", "[1,-Infinity]", '{"a":1e999}', "-1e400"])
def test_numbers_that_json_does_not_have_are_refused(text: str) -> None:
    """NaN and infinities have a tag; without one another program wrote them."""
    with pytest.raises(ValueError, match="Not written by this codec"):
        codec.decode(text)


def mutated(value: Any, choose: random.Random) -> Any:
    """A parsed text with one part replaced by something else."""
    if choose.random() < 0.15:
        return choose.choice([*BODIES, {choose.choice(TAGS): choose.choice(BODIES)}])
    if type(value) is dict:
        found = {key: mutated(child, choose) for key, child in value.items()}
        if len(found) == 1 and choose.random() < 0.3:
            return {choose.choice(TAGS): body for body in found.values()}
        return found
    return [mutated(x, choose) for x in value] if type(value) is list else value


def texts(choose: random.Random) -> list[str]:
    """Encoded trees with changes of their structure or their characters."""
    inner = Inner(Ref("g", 1), (1.0, float("nan")))
    outer = Outer(inner, [inner], {1: inner}, {"!x": [None, inner]}, (inner, 1), ())
    trees = [
        {"lr": 0.1, "layers": [1, 2, 3], 1: (True, None)},
        [Saved("g/1"), Ref("g", 3), float("inf"), {(1, "a"): {2: [()]}}],
        dataclasses.replace(outer, mapping={"a": inner}),
    ]
    text = codec.encode(choose.choice(trees), records=True)
    if choose.random() < 0.5:
        text = json.dumps(mutated(json.loads(text), choose))
    for _ in range(choose.randrange(3)):
        at = choose.randrange(len(text) + 1)
        end = at + choose.randrange(4)
        put = choose.choice([*LITERALS, *'{}[]":,!-.e0\\', '{"!', "\\ud800", "\x00"])
        text = text[:at] + put + text[end:]
    return [text, codec.HELD + text, choose.choice(LITERALS)]


def test_a_damaged_text_never_raises_anything_else() -> None:
    """10,000 texts, with and without a type: the journal explains these errors."""
    choose, others = random.Random(0), []
    for _ in range(3400):
        for text in texts(choose):
            for like in (None, Outer):
                try:
                    codec.decode(text, like)
                except (ValueError, TypeError, LookupError):
                    pass
                except Exception as error:
                    others.append((text[:100], repr(error)[:100]))
    assert others == []


LIKES = [list, dict[str, int], "int", int | None, list[Any], Iterable[int], tuple[()]]
LIKES += [Collection[str] | None, typing.List, typing.Dict, Sequence[Any]]  # noqa: UP006


@pytest.mark.parametrize("like", LIKES, ids=str)
def test_a_type_that_does_not_fit_is_no_other_error(like: Any) -> None:
    """With a bare or another annotation, plain data come back unchanged."""
    for tree in ([1, [2]], {"a": {"b": 1}}, (1, (2,)), {1: 2}):
        assert codec.decode(codec.encode(tree), like) == tree
