import os

import pandas as pd

import korser.data  # noqa: F401


def test_text_is_that_of_python():
    assert pd.get_option("mode.string_storage") == "python"
    name = os.fsdecode(b"\xb0\xa1.wav")
    assert pd.DataFrame({"path": [name]})["path"][0] == name
