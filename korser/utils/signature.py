"""Recognise what this user wrote on this machine, by digests with a secret key.

The key is made at the first use, in ``$XDG_STATE_HOME/korser/key`` (default: ``~/.local/state``), readable by the user
only. Without a folder to keep it in, nothing is signed and nothing is recognised.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from korser.utils.files import read_bytes

__all__ = ["is_signed", "sign"]

LENGTH = 32  # bytes of the key
OTHERS = 0o077  # permissions of other users


def sign(value: Any) -> str | None:
    """Return the signature of a value that JSON can hold; None if there is no key."""
    key = _key()
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return None if key is None else hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def is_signed(value: Any, signature: Any) -> bool:
    """Return whether a signature is that of a value, by the key of this user."""
    expected = sign(value)
    return expected is not None and isinstance(signature, str) and hmac.compare_digest(expected, signature)


def _key() -> bytes | None:
    try:
        state = Path(os.environ.get("XDG_STATE_HOME", ""))
        file = (state if state.is_absolute() else Path.home() / ".local" / "state") / "korser" / "key"
        if not file.exists():
            _make_key(file)
        status = os.lstat(file)
        key = read_bytes(file, LENGTH)
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return None
    own = stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & OTHERS
    return key if own and len(key) == LENGTH else None


def _make_key(file: Path) -> None:
    """Write a new key, unless another process is faster."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
            out.write(secrets.token_bytes(LENGTH))
        with suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
