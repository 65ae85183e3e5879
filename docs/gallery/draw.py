"""Draw the pictures of docs/gallery.md on the synthetic corpus mini; some five minutes on two cores.

python docs/gallery/draw.py FOLDER

FOLDER keeps runs and figures: an interrupted call resumes, and after a change of the figures nothing is trained again.
"""

import os
import sys
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from korser import SAMPLE_RATE, cli
from korser.corpora import LABELS, load_corpus
from korser.corpora.synthetic.mini import STRENGTHS
from korser.demo.analysis import analyse, read
from korser.inference.load import load_trained_model
from korser.inference.recordings import Division
from korser.runs.directory import RunDirectory

HERE = Path(__file__).resolve().parent
COLOURS = 32  # of a picture: a quarter of the size
SIZE = {"n_speakers": 24, "n_utterances": 576}
SHARED = {"corpus_options": SIZE, "split.valid": 4, "split.test": 8, "noprogressbar": "true"}
MODELS = "[mel_mtl.yaml, leaf_mtl.yaml, wav2vec_mtl.yaml, wav2vec_leaf_mtl.yaml]"

PICTURES = {  # module of the figure, with a suffix where it draws several: its file, the first that matches
    "losses": "figures/losses.png",
    "results": "figures/results-emotion.png",
    "ablation": "figures/ablation.png",
    "confusion": "figures/confusion-emotion.png",
    "scatter": "figures-numbers/scatter-*.png",
    "parameters": "figures/parameters-*leaf_mtl.png",
    "layers": "figures/layers.png",
    "embeddings": "figures/embeddings-wav2vec*.png",
    "cost": "figures/cost.png",
    "subgroups": "figures/subgroups.png",
    "subgroups-speakers": "figures/speakers.png",
    "calibration": "figures/calibration.png",
    "robustness": "figures/robustness.png",
    "search": "figures/search*.png",
    "probe": "figures/probe*.png",
    "cross_corpus": "figures-cross/cross-corpus-*.png",
    "recording": "predicted/recording.png",
    "features": "features.png",
    "explained": "explained/*.png",
    "explanations": "figures/explanations.png",
    "explanations-filters": "figures/filters-leaf_mtl.png",
}


def korser(*arguments: str, **settings: object) -> None:
    """Run a command of korser."""
    cli.main([*arguments, *(f"--{name}={value}" for name, value in settings.items())])


def overrides(**settings: object) -> dict[str, object]:
    """Return settings of all runs of a search or comparison."""
    return {f"overrides.{name}": value for name, value in {**SHARED, **settings}.items()}


def train() -> None:
    """Make every run, search and probe that is drawn."""
    space = "{lr: [0.001, 0.003, 0.01], batch_size: [16, 32]}"
    korser("search", "quick_search.yaml", models="[mel_stl.yaml]", space=space, **overrides(n_epochs=3))
    robustness = "[noise_20dB, noise_10dB, noise_0dB, telephone]"
    settings = {"search": "null", "seeds": "[1, 2]", "robustness": robustness}
    korser("compare", "quick_compare.yaml", models=MODELS, **settings, **overrides(n_epochs=6))
    korser("probe", "probe.yaml", corpus_options=SIZE, **{"split.test": 8, "noprogressbar": "true"})

    table = load_corpus("mini", "data/mini", corpus_options=SIZE).data[["id", "path", "speaker", *LABELS]]
    for gender, part in table.groupby("gender"):
        part[["id", "path", "speaker", "emotion"]].to_csv(f"{gender}.csv", index=False)
    cross = {"corpus": "{women: csv, men: csv}", "data_folder": "{women: female.csv, men: male.csv}", "label_map": "{}"}
    settings = {"models": "[mel_stl.yaml]", "seeds": "[1]", "folds": 3, "output_folder": "cross"}
    cross = {f"overrides.{name}": value for name, value in cross.items()}
    korser("compare", "cross_corpus.yaml", **settings, **cross, **{"overrides.n_epochs": 3})

    table["strength"] = table["intensity"].map(STRENGTHS)  # of the departure from neutral speech
    table[["id", "path", "speaker", "strength"]].to_csv("strength.csv", index=False)
    settings = SHARED | {"corpus": "csv", "data_folder": "strength.csv", "corpus_options": "{}"}
    settings |= {"tasks": "[!new:korser.Task {name: strength, kind: number}]", "output_folder": "numbers"}
    korser("train", "mel_stl.yaml", n_epochs=8, **settings)


def draw() -> None:
    """Draw the figures, and predictions along utterances of a test speaker as one recording."""
    korser("explain", "results", per_class=3)
    korser("plot", "results", out="figures", audio="false")
    korser("plot", "numbers", out="figures-numbers", audio="false")
    korser("plot", "cross", out="figures-cross", audio="false")
    run = sorted(Path("results").glob("wav2vec_mtl-*"))[0]
    tested = RunDirectory(run).manifest().query("split == 'test'")
    spoken = [soundfile.read(path)[0] for path in tested["path"][:: len(tested) // 10]]
    pause = np.zeros(SAMPLE_RATE // 2)
    soundfile.write("recording.wav", np.concatenate([part for x in spoken for part in (x, pause)]), SAMPLE_RATE)
    korser("predict", str(run), "recording.wav", window=1.5, hop=0.5, out="predicted")
    korser("explain", str(run), tested["path"].iloc[0], out="explained")
    path, model = tested["path"].iloc[0], load_trained_model(sorted(Path("results").glob("leaf_mtl-*"))[0])
    analyse(model, path, read(path, {"": model}), Division(1, 0.5)).features.savefig("features.png", dpi=200)


def copy() -> None:
    """Copy the pictures of the page, with fewer colours."""
    for name, pattern in PICTURES.items():
        found = sorted(Path().glob(pattern))
        if not found:
            sys.exit(f"{pattern}: no such figure; name the one to show in PICTURES")
        with Image.open(found[0]) as image:
            image.convert("RGB").quantize(COLOURS).save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    train()
    draw()
    copy()
