import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from korser.utils.signature import is_signed, sign

VALUE = ["seed: 1\n", "mel", ["/home/감정"]]


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_only_the_same_user_and_the_same_value_are_recognised(state, monkeypatch):
    signature = sign(VALUE)
    assert is_signed(VALUE, signature) and sign(VALUE) == signature
    for other in ("", None, 3, signature[:-1], [signature]):
        assert not is_signed(VALUE, other)
    assert not is_signed([*VALUE, ""], signature)
    monkeypatch.setenv("XDG_STATE_HOME", str(state / "another user"))
    assert not is_signed(VALUE, signature)


def test_the_key_is_private(state):
    sign(VALUE)
    (file,) = (state / "korser").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(file.read_bytes()) == 32


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.chmod(0o644),
        lambda file: file.write_bytes(b""),
        lambda file: (file.unlink(), os.mkfifo(file, 0o600)),
        lambda file: (file.rename(file.with_name("other")), file.symlink_to("other")),
    ],
    ids=["readable by others", "empty", "FIFO", "link"],
)
def test_a_key_that_others_may_know_is_not_used(state, spoil):
    signature = sign(VALUE)
    spoil(state / "korser" / "key")
    assert sign(VALUE) is None and not is_signed(VALUE, signature) and not is_signed(VALUE, None)


def test_without_a_home_nothing_is_signed(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    assert sign(VALUE) is None and not is_signed(VALUE, None)


def test_processes_that_begin_together_share_one_key(state):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(sign, [VALUE] * 32))) == 1
    assert [path.name for path in (state / "korser").iterdir()] == ["key"]
