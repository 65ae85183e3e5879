"""Settings files that would take forever, or all memory, are refused quickly."""

import re

import pytest

from korser.config.nodes import compose, plain_value, value_node
from korser.utils.errors import UserError

LETTERS = "abcdefghijklmnopqrst"
BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 8)}]\n" for before, after in zip(LETTERS, LETTERS[1:])
)
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))
HARMFUL = {
    "aliases": (BOMB, "20000 values"),
    "a chain of aliases": (CHAIN, "50 levels"),
    "contains itself": ("a: &a [*a]", "does not contain itself"),
    "as a key": ("? &a [*a]\n: 1", "does not contain itself"),
    "in a merge": ("a: &a {<<: *a}", "does not contain itself"),
    "deep": ("a: " + "[" * 100_000, "50 levels"),
    "deep blocks": ("".join(" " * i + "a:\n" for i in range(1000)), "50 levels"),
    "wide": ("a: [" + "1," * 200_000 + "]", "20000 values"),
    "control characters": ("a: \0", "unacceptable character"),
}


MISTAKES = {
    "a: !new:b.C\n\td: 1": "indent and separate by spaces, not tabs",
    "a:\t1": "indent and separate by spaces, not tabs",
    "a: !new:b.C\n    d: 1\n   e: 1": "indent all keys of a block alike",
    "a: 1\nb !new:c.D\n": "write 'key: value', with a blank after the colon",
    "a: 1\nb:!new:c.D\n": "write 'key: value', with a blank after the colon",
    "a: !new:로그.Log": "an import path has ASCII letters, digits, '_', '-' and '.' only: rename",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_frequent_mistakes_are_told_what_to_change(text):
    with pytest.raises(UserError, match=r"^x.yaml is not valid YAML: .* in line \d.*: " + re.escape(MISTAKES[text])):
        compose(text, "x.yaml")


@pytest.mark.parametrize("text, expected", HARMFUL.values(), ids=HARMFUL)
def test_harmful_yaml_is_one_line(text, expected):
    with pytest.raises(UserError) as error:
        compose(text, "x.yaml")
    assert str(error.value).startswith("x.yaml is not valid YAML") and expected in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    for read in (plain_value, lambda text: value_node("lr", text)):
        with pytest.raises(UserError, match=expected):
            read(text)


def test_what_is_allowed_is_read():
    depth = "a: " + "[" * 49 + "]" * 49
    assert compose(depth, "x.yaml") is not None
    root = compose("a: &a {b: [1, 2]}\nc: [*a, *a]", "x.yaml")
    assert root.value[1][1].value[0] is root.value[1][1].value[1]
    assert plain_value("{a: [1, null]}") == {"a": [1, None]} and plain_value("") is None
    with pytest.raises(UserError, match="is not valid YAML: could not determine a constructor"):
        plain_value("!!python/object/apply:os.system [id]")
