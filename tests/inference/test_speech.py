"""Speech in recordings: silero-vad as it is installed, block by block, without an effect on torch."""

import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import SHARED

from korser.data.audio import list_audio, read_audio
from korser.inference.recordings import Division, predict_recordings
from korser.inference.speech import find_speech
from korser.utils.errors import UserError

silero_vad = pytest.importorskip("silero_vad")


def test_times_and_lengths_of_what_the_model_finds(tmp_path, monkeypatch):
    def loud(chunk, rate):
        assert chunk.shape == (512,) and rate == 16000 and torch.get_num_threads() == 1
        return chunk.abs().max()

    monkeypatch.setattr(silero_vad, "load_silero_vad", lambda: loud)
    x = np.zeros(16000 * 41)
    for start, end in ((0, 0.5), (2, 2.1), (10, 30), (31, 40.9)):
        x[round(16000 * start) : round(16000 * end)] = 0.9
    x[20 * 16000 : round(20.09 * 16000)] = 0.0
    soundfile.write(tmp_path / "a.wav", x, 16000)
    threads, seconds = torch.get_num_threads(), []
    found = find_speech(str(tmp_path / "a.wav"), 0.025, 15.0, seconds.append)
    times = [time for segment in found for time in (segment.start, segment.end)]
    assert times == pytest.approx([0, 0.5, 10, 24.9, 24.9, 30, 31, 40.9], abs=0.15), "0.1 s is too short"
    assert torch.get_num_threads() == threads and seconds == [32.0, 9.0]
    assert all(segment.end - segment.start <= 15 for segment in found)


def test_no_speech_is_a_warning_and_an_empty_table(tmp_path, caplog):
    from test_predict import trained_model

    soundfile.write(tmp_path / "a.wav", np.full(32000, 0.01), 16000)
    (found,) = predict_recordings(trained_model(tmp_path), str(tmp_path / "a.wav"), Division(segments="vad"))
    assert not len(found.table) and "emotion_prob_joy" in found.table
    assert "a.wav: no speech was found" in caplog.text


@pytest.mark.skipif(not (SHARED / "ravdess").is_dir(), reason="needs the shared RAVDESS copy")
def test_speech_is_found(tmp_path):
    x = read_audio(list_audio(SHARED / "ravdess" / "Actor_01")[0])
    soundfile.write(tmp_path / "a.wav", torch.cat([torch.zeros(32000), x, torch.zeros(32000)]).numpy(), 16000)
    found = find_speech(str(tmp_path / "a.wav"), 0.025, 30.0)
    assert found and 2 <= found[0].start and found[-1].end <= 2.1 + len(x) / 16000


def test_without_silero_vad_the_extra_is_named(tmp_path, monkeypatch):
    from test_predict import trained_model

    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(UserError, match=r"^--segments=vad needs silero-vad: pip install 'korser\[vad\]'$"):
        predict_recordings(trained_model(tmp_path), "absent.wav", Division(segments="vad"))
