"""Values of arguments against the annotations of constructors."""

import pytest
from conftest import HPARAMS

from korser.config.arguments import find_invalid_arguments
from korser.config.hparams import load_hparams
from korser.config.nodes import compose
from korser.utils.errors import UserError

MODULE = """
from __future__ import annotations
from typing import TYPE_CHECKING, Any, Literal, Optional, Union
if TYPE_CHECKING:
    from nowhere import Thing

class Part:
    def __init__(self, n: int = 1, rate: float = 0.0, name: str = "a", flag: bool = False, maybe: Optional[int] = 2,
                 either: int | str = 1, slip: int = 0.5, none: int = None, kind: Literal["a", "b"] = "a",
                 what: Any = None, thing: Thing = None, sizes: Union[int, tuple[int, int]] = 1):
        pass
"""


@pytest.fixture
def faults(tmp_path, monkeypatch):
    (tmp_path / "annotated_part.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def find(arguments, tag="!new:annotated_part.Part"):
        root = compose(f"part: {tag} {arguments}", "my.yaml")
        return find_invalid_arguments(root, root)

    return find


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{n: abc}", "part.n=abc: expected an integer (argument of annotated_part.Part)"),
        ("{n: 1.5}", "part.n=1.5: expected an integer"),
        ("{n: true}", "part.n=true: expected an integer"),
        ("{n: [1]}", "part.n=[1]: expected an integer"),
        ("{rate: fast}", "part.rate=fast: expected a number"),
        ("{name: 3}", "part.name=3: expected text"),
        ("{flag: 1}", "part.flag=1: expected true or false"),
        ("{maybe: x}", "part.maybe=x: expected an integer or null"),
        ("{either: 0.5}", "part.either=0.5: expected an integer or text"),
        ("{kind: c}", "part.kind=c: expected a or b"),
        ("[1, x]", "part[1]=x: expected a number"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_its_key(faults, arguments, said):
    for tag in "!new:annotated_part.Part", "!name:annotated_part.Part":
        (fault,) = faults(arguments, tag)
        assert fault.startswith(said)


@pytest.mark.parametrize(
    "arguments",
    [
        "{n: 3, rate: 1, name: b, flag: true, maybe: null, either: c}",
        "{rate: 1e-3, slip: 0.1, none: null, kind: b}",
        "{what: x, thing: y, sizes: [1, 2]}",
        "{n: !ref <part>, unknown: 1}",
    ],
)
def test_values_that_are_accepted(faults, arguments):
    assert faults(arguments) == []


def test_references_are_checked_and_nothing_is_built(tmp_path):
    (tmp_path / "my.yaml").write_text("base: mel_stl.yaml\n_bands: many\nfrontend.n_mels: !ref <_bands>\n")
    with pytest.raises(UserError) as error:
        load_hparams(tmp_path / "my.yaml")
    assert str(error.value) == (
        f"{tmp_path / 'my.yaml'}: frontend.n_mels=many (!ref <_bands>): expected an integer (argument of "
        "korser.plugins.frontends.mel.Mel)"
    )
    assert load_hparams(HPARAMS / "mel_stl.yaml", {"frontend.n_mels": 40})["frontend"].output_size == 40
