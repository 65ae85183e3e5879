"""Corpora in their real layout, without audio: adapters read none."""


def make_tree(folder, files):
    """Write files by their relative paths: bytes, text in UTF-8, or nothing (None); return the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else (content or "").encode())
    return folder
