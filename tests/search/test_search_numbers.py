"""A search of a model whose main task is a number."""

import pytest
from helpers import write_rated_corpus
from made_up_search import HereWorkers, settings_of

from korser.reporting.figures.draw import draw_all
from korser.reporting.page import write_report
from korser.search import search
from korser.utils.files import read_csv, read_json


@pytest.mark.slow
def test_ccc_is_maximised(tmp_path):
    data = write_rated_corpus(tmp_path)
    options = {"corpus": "csv", "data_folder": str(data), "n_epochs": "2", "n_buckets": "2"}
    folders = {"output_folder": str(tmp_path / "out"), "cache_folder": str(tmp_path / "cache")}
    shared = {f"overrides.{key}": value for key, value in options.items()}
    model = {"model": str(data / "my_ratings.yaml"), "space": "{lr: [0.0001, 0.01]}"}
    search(settings_of({**model, **folders, **shared}), HereWorkers())
    folder = tmp_path / "out/search/my_ratings"
    found = read_json(folder / "search.json")
    assert found["metric"] == "ccc" and found["objective"] == "validation CCC of arousal"
    assert found["best"] == {"lr": 0.01} and found["valid_ccc"] > found["runner_up"]["valid_ccc"]
    trials = read_csv(folder / "trials.csv")
    assert trials["valid_ccc"].max() == found["valid_ccc"]
    log = read_csv(folder / found["run_dir"] / "log.csv")
    assert log["epoch"][log["valid_arousal_ccc"].idxmax()] == trials["best_epoch"][trials["valid_ccc"].idxmax()]
    figures = tmp_path / "figures"
    assert [figure.name for figure in draw_all(folder, figures)] == ["search-my_ratings"]
    assert "validation CCC" in write_report(folder, figures).read_text(encoding="utf-8")
