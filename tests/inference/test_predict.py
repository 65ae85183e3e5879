"""Prediction of waveforms: long recordings are divided, others are not."""

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from torch import nn

from korser.data.audio import read_audio
from korser.data.bad_recordings import LengthLimits
from korser.inference.load import PIECE_SECONDS, piece_length
from korser.inference.predict import TrainedModel
from korser.nn.tasks import Task
from korser.runs.directory import RunDirectory
from korser.utils.errors import UserError
from korser.utils.files import write_csv


class Loudness(nn.Module):
    """Logits that depend on the whole input; ``seen`` lists the lengths of the inputs."""

    seen = ()

    def features(self, x, lengths):
        return x[..., None], lengths

    def backbone(self, x, lengths):
        return x.mean(1)

    def forward(self, x, lengths):
        self.seen = (*self.seen, x.shape[1])
        return {"emotion": torch.stack([x.mean(1), -x.square().mean(1)], 1)}, None


class Exits(Loudness):
    """Ends the program in whatever is called."""

    def features(self, x, lengths):
        raise SystemExit("no data")

    forward = features


def trained_model(tmp_path, piece_length=1000, model=None):
    model = Loudness() if model is None else model
    return TrainedModel(
        model=model,
        tasks=[Task("emotion", classes=("joy", "anger"))],
        min_length=10,
        piece_length=piece_length,
        directory=RunDirectory(tmp_path),
        info={},
        warnings=[],
        parts={"frontend": model},
    )


def softmax(waveform):
    logits, _ = Loudness()(waveform[None], None)
    return logits["emotion"][0].softmax(-1).numpy()


def test_a_long_waveform_is_predicted_in_equal_pieces_whose_probabilities_are_averaged(tmp_path):
    x, trained, seconds = torch.randn(2501), trained_model(tmp_path), []
    p = trained.probabilities(x, seconds.append)["emotion"]
    np.testing.assert_allclose(p, np.mean([softmax(piece) for piece in x.tensor_split(3)], 0), atol=1e-6)
    assert trained.model.seen == (834, 834, 833) and sum(seconds) == pytest.approx(2501 / 16000)


def test_a_waveform_of_normal_length_is_predicted_as_a_whole(tmp_path):
    x, trained = torch.randn(1000), trained_model(tmp_path)
    np.testing.assert_array_equal(trained.probabilities(x)["emotion"], softmax(x))
    assert trained.model.seen == (1000,)


@pytest.mark.parametrize(
    "longest, seconds", [(12.5, PIECE_SECONDS), (45.0, 45.0), (None, PIECE_SECONDS), (np.inf, PIECE_SECONDS)]
)
def test_pieces_are_as_long_as_the_utterances_of_the_run(tmp_path, longest, seconds):
    if longest is not None:
        manifest = pd.DataFrame({"id": ["a", "b"], "digest": "", "split": "test", "duration": [longest, 1.0]})
        write_csv(tmp_path / "manifest.csv", manifest)
    assert piece_length(RunDirectory(tmp_path), LengthLimits(400)) == seconds * 16000
    assert piece_length(RunDirectory(tmp_path), LengthLimits(400, 8000)) == 8000


def test_features_and_embedding_of_a_long_file(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.linspace(-0.5, 0.5, 2501), 16000, subtype="FLOAT")
    trained = trained_model(tmp_path)
    x = read_audio(tmp_path / "a.wav")
    np.testing.assert_array_equal(trained.features(tmp_path / "a.wav"), x[:, None])
    embeddings = trained.embed(tmp_path / "a.wav")
    assert embeddings.index.tolist() == [str(tmp_path / "a.wav")]
    assert embeddings.iloc[0, 0] == pytest.approx(np.mean([piece.mean() for piece in x.tensor_split(3)]), abs=1e-6)
    with pytest.raises(UserError, match="expected one audio file"):
        trained.features(tmp_path)
    for call in trained.embed, trained.predict_files:
        with pytest.raises(UserError, match="expected at least one audio file or folder"):
            call([])


@pytest.mark.parametrize("name", ["predict_files", "embed", "features"])
def test_what_the_users_code_raises_names_it(tmp_path, name):
    soundfile.write(tmp_path / "a.wav", np.linspace(-0.5, 0.5, 2501), 16000)
    traceback = tmp_path / "evaluations" / "traceback.txt"
    said = r"^frontend: [\w.]+\.Exits: .*test_predict.py:\d+, in features: SystemExit: no data"
    with pytest.raises(UserError, match=rf"{said} .traceback: {traceback}.$"):
        getattr(trained_model(tmp_path, model=Exits()), name)(tmp_path / "a.wav")
    assert "raise SystemExit" in traceback.read_text()
    shutil.rmtree(tmp_path / "evaluations")
    (tmp_path / "evaluations").touch()  # where nothing can be written
    with pytest.raises(UserError, match=f"{said}$"):
        getattr(trained_model(tmp_path, model=Exits()), name)(tmp_path / "a.wav")
