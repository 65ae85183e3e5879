"""The report, and the page as a browser sees it."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import soundfile
from made_runs import predict, utterances, write_run

from korser import UserError
from korser.comparison.compare import compare
from korser.data.audio import audio_digest, read_audio
from korser.nn.tasks import Task
from korser.reporting import confidently_wrong, write_report
from korser.runs.load import load_runs
from korser.utils.files import read_csv, write_csv

ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "Linux",
    "device": "cpu",
    "threads": 1,
    "command": ["train.py", "mel.yaml"],
    "versions": {"torch": "2.9.0", "korser": None},
    "korser_source": "0123456789abcdef",
}
ENTRY = {"value": 0.5, "low": 0.4, "high": 0.6}
METRICS = {"test": {"emotion": {"n": 60, "n_speakers": 3, "classes": [], "accuracy": ENTRY, "uar": ENTRY}}}


def made_table(folder):
    """Utterances of speakers with Korean names; those of the first have a file."""
    table = utterances().assign(duration=0.5)
    table["speaker"] = "화자" + table["speaker"]
    table["text"] = "오늘 <b>비</b>가\n온다"
    table["path"] = [str(folder / f"{i}.flac") for i in table["id"]]
    folder.mkdir(parents=True)
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000)
    for path in table["path"][table["speaker"] == "화자s0"]:
        soundfile.write(path, noise, 16000)
    return table


def made_run(folder, model, **options):
    options = {"table": utterances().assign(duration=0.5), "environment": ENVIRONMENT, **options}
    path = write_run(folder, model, **options)
    (path / "metrics.json").write_text(json.dumps(METRICS), encoding="utf-8")
    files = options["table"]["path"]
    digests = [audio_digest(read_audio(file)) if os.path.isfile(file) else "0" * 32 for file in files]
    write_csv(path / "manifest.csv", options["table"].assign(digest=digests))
    settings = (path / "hparams.yaml").read_text(encoding="utf-8")
    data_folder = f"data_folder: {folder / 'audio'}"
    (path / "hparams.yaml").write_text(re.sub("data_folder: .*", data_folder, settings), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs of two models with everything that a report can show, and figures."""
    folder, out = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("figures")
    table = made_table(folder / "audio")
    for model in ("mel_stl", "mel_mtl"):
        for seed in (1, 2):
            marks = {"synthetic": True, "pretrained": False, "corpus": "감정<b>말</b>"}
            path = made_run(folder, model, seed=seed, table=table, right=0.3, **marks)
            degraded = predict(table, ["emotion"], 0.2, np.random.default_rng(seed))
            (path / "robustness").mkdir()
            degraded.to_csv(path / "robustness" / "telephone.csv", index=False, encoding="utf-8-sig")
            condition = {"name": "telephone", "kind": "telephone", "value": None, "unit": "", "made_from": ""}
            (path / "robustness" / "conditions.json").write_text(json.dumps([condition]))
    write_search(folder / "search" / "mel_stl")
    matplotlib.image.imsave(out / "bars.png", np.ones((300, 600, 3)), dpi=300)
    figure = {"name": "bars", "title": "기쁨 & <anger>", "caption": "Bars.", "png": "bars.png", "pdf": "bars.pdf"}
    matplotlib.image.imsave(out / "wide.png", np.ones((300, 2148, 3)), dpi=300)  # over two columns of a paper
    others = [{**figure, "name": name, "png": png} for name, png in (("more", "bars.png"), ("wide", "wide.png"))]
    (out / "figures.json").write_text(json.dumps([figure, *others]), encoding="utf-8")
    return folder, write_report(folder, out)


def write_search(folder):
    folder.mkdir(parents=True)
    best = {"lr": 0.01}
    second = {"settings": {"lr": 0.001}, "valid_uar": 0.5, "run_dir": "runs/b", "difference": 0.1, "low": -0.1}
    second |= {"high": 0.3, "n_speakers": 3, "verdict": "inconclusive", "note": ""}
    about = {"model": "mel_stl", "corpus": "감정", "synthetic": True, "objective": "validation UAR of emotion"}
    about |= {
        "metric": "uar",
        "best": best,
        "valid_uar": 0.6,
        "low": 0.5,
        "high": 0.7,
        "run_dir": "runs/1",
        "runner_up": second,
    }
    about |= {
        "n_complete": 2,
        "n_trials": 2,
        "speakers": [],
        "space": ["lr"],
        "complete": False,
        "pretrained": None,
        "data": {"data_folder": "data/made-up", "split": {"protocol": "random_stratified"}},
    }
    (folder / "search.json").write_text(json.dumps(about), encoding="utf-8")
    rows = [
        (0, "complete", 0.001, 0.5, 0.4, 0.6, "runs/0", ""),
        (1, "complete", 0.01, 0.6, 0.5, 0.7, "runs/1", ""),
        (2, "failed", 0.1, None, None, None, "runs/2", "loss is <nan>"),
    ]
    columns = ["trial", "state", "lr", "valid_uar", "low", "high", "run_dir", "message"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "trials.csv", index=False, encoding="utf-8-sig")


# -- the page as text --------------------------------------------------------------------------------------------------
class Page(HTMLParser):
    """Tags with their attributes, and tables as lists of rows of text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.tables, self.inside = [], {}, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)
        if tag == "table":
            self.caption, self.rows = "", []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag in ("small", "br") and self.rows_open():
            self.rows[-1][-1] += " "

    def rows_open(self):
        return "table" in self.inside and ("td" in self.inside or "th" in self.inside)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass
        if tag == "table":
            rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]
            self.tables[" ".join(self.caption.split())] = rows

    def handle_data(self, data):
        if "caption" in self.inside:
            self.caption += data
        elif self.rows_open():
            self.rows[-1][-1] += data

    def table(self, start):
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))


def test_tables_have_the_results_of_the_comparison(made):
    folder, path = made
    comparison, page = compare(load_runs(folder)), Page(path)
    results = page.table("Results")
    assert results[0][:3] == ["model", "emotion accuracy", "emotion UAR"]
    row = comparison.table.set_index("model").loc["mel_stl"]
    shown = next(r for r in results if r[0].startswith("mel_stl"))
    assert f"{row['emotion_uar']:.3f}"[1:] in shown[2] and f"{row['emotion_uar_low']:.3f}"[1:] in shown[2]
    costs = next(r for r in page.table("Size, cost") if r[0].startswith("mel_stl"))
    assert costs[1:6] == ["94.4 M", "120 k", "6.9 G", "115 s cpu", "1 GB process"]
    assert [r[0] for r in page.table("By speaker")[1:]] == [f"화자s{i}" for i in range(6)]
    assert [r[0] for r in page.table("Degraded audio")] == ["condition", "clean", "telephone"]
    assert page.table("All 3 trials")[2][:4] == ["1", "complete", "0.01", ".600 [.500, .700]"]
    assert [r[1] for r in page.table("Runs")[1:]] == ["mel_mtl", "mel_mtl", "mel_stl", "mel_stl"]
    assert ["torch", "2.9.0"] in page.table("Machines")
    text = path.read_text(encoding="utf-8")
    assert all(answer.result in text for answer in comparison.answers)


def test_settings_that_differ_between_models_come_first(tmp_path):
    made_run(tmp_path, "mel_stl", lr=0.001)
    made_run(tmp_path, "leaf_stl", lr=0.01)
    page = Page(write_report(tmp_path, tmp_path, audio=False))
    assert ["lr", "0.01", "0.001"] in page.table("Settings that differ")
    assert ["opt_class.weight_decay", "0.05"] in page.table("Settings that are the same")
    captions = list(page.tables)
    assert captions.index("Settings that differ between models") < captions.index(
        "Settings that are the same for all models"
    )


def test_marks_are_at_the_top_and_in_every_table_of_results(made, tmp_path):
    _, path = made
    text, page = path.read_text(encoding="utf-8"), Page(path)
    assert text.index("SYNTHETIC speech:") < text.index("NOT PRETRAINED:") < text.index('id="results"')
    for caption in page.tables:
        if not caption.startswith(("Settings ", "Machines")):
            assert "synthetic speech" in caption, caption
    assert all(row[0].endswith("not pretrained") for row in page.table("Results")[1:])
    made_run(tmp_path, "mel_stl", protocol="random_stratified")
    page = Page(write_report(tmp_path, tmp_path, audio=False))
    assert any("random split" in caption for caption in page.tables if "Results" in caption)


def test_settings_searched_on_test_speakers_are_marked(tmp_path):
    path = made_run(tmp_path, "mel_stl", table=made_table(tmp_path / "audio"))
    run = {"run": path.name, "searched_on_tested_speakers": ["화자s1"], "failed": None}
    lost = {"run": "mel_stl-lost", "searched_on_tested_speakers": [], "failed": "out of memory"}
    (tmp_path / "comparison.json").write_text(json.dumps({"settings": {"questions": None}, "runs": [run, lost]}))
    page = write_report(tmp_path, tmp_path, audio=False)
    assert "searched on test speakers" in Page(page).table("Results")[1][0]
    assert "Failed runs are not included: mel_stl-lost." in page.read_text(encoding="utf-8")


def test_answers_have_the_class_of_their_verdict(tmp_path):
    table = utterances(n_speakers=9).assign(duration=0.5)
    for model, right in (("leaf_stl", 0.1), ("leaf_mtl", 0.95), ("mel_stl", 0.5), ("mel_mtl", 0.5)):
        for seed in (1, 2):
            made_run(tmp_path, model, seed=seed, right=right, table=table)
    text = write_report(tmp_path, tmp_path, audio=False).read_text(encoding="utf-8")
    answers = re.findall(r'<li class="(\w+)"><b>(.*?)</b> (\w+ vs \w+): emotion UAR difference .*: <b>(.*?)</b>', text)
    question = "Does multitask beat single-task?"
    assert answers == [
        ("yes", question, "leaf_mtl vs leaf_stl", "yes"),
        ("inconclusive", question, "mel_mtl vs mel_stl", "inconclusive"),
    ]


def test_models_tested_on_a_part_are_marked_in_the_tables_of_groups_and_degradations(tmp_path):
    table = utterances().assign(duration=0.5)
    table.loc[(table["emotion"] == "joy") & (table["gender"] == "male"), "emotion"] = "sadness"
    for fold in range(3):
        for model in ("leaf_stl", "mel_stl")[fold == 0 :]:
            path = made_run(tmp_path, model, fold=fold, table=table)
            (path / "robustness").mkdir()
            shutil.copy(path / "test.csv", path / "robustness" / "telephone.csv")
            condition = {"name": "telephone", "kind": "telephone", "value": None, "unit": "", "made_from": ""}
            (path / "robustness" / "conditions.json").write_text(json.dumps([condition]))
    path = write_report(tmp_path, tmp_path, audio=False)
    page, text = Page(path), path.read_text(encoding="utf-8")
    groups, speakers, degraded = (page.table(start) for start in ("By subgroup", "By speaker", "Degraded"))
    for header in (groups[0], speakers[0], degraded[0]):
        assert header[-2:] == ["leaf_stl\N{DOUBLE DAGGER}", "mel_stl"]
    assert [row[1] for row in groups if row[0].startswith("gender")] == ["27", "27"]  # of mel_stl: of all folds
    assert text.count("\N{DOUBLE DAGGER}: leaf_stl was tested on 36 of 54 utterances") >= 4  # of results, too
    assert re.search(r"UAR is the mean over the classes present in a group \([^)]*gender male[^)]*: no joy", text)
    assert "95 % interval of that change over speakers, paired by utterance." in text


def test_models_are_compared_by_the_metric_of_the_comparison_unless_another_is_asked_for(tmp_path):
    path = made_run(tmp_path, "mel_stl")
    run = {"run": path.name, "searched_on_tested_speakers": [], "failed": None}
    made = {"settings": {"questions": None, "metric": "accuracy"}, "runs": [run]}
    (tmp_path / "comparison.json").write_text(json.dumps(made))
    assert Page(write_report(tmp_path, tmp_path, audio=False)).table("By subgroup, emotion accuracy")
    assert Page(write_report(tmp_path, tmp_path, metric="uar", audio=False)).table("By subgroup, emotion UAR")


def test_report_of_a_search_without_runs(tmp_path):
    write_search(tmp_path / "search" / "mel_stl")
    path = write_report(tmp_path, tmp_path)
    assert list(Page(path).tables) == ["All 3 trials of mel_stl synthetic speech random split"]
    text = path.read_text(encoding="utf-8")
    assert "Runner-up: lr=0.001, .500; difference +.100" in text
    assert "no complete runs with test predictions yet" in text
    assert text.count('class="best"') == 1


def test_two_corpora_are_not_mixed(tmp_path):
    for corpus in ("one", "other"):
        made_run(tmp_path, "mel_stl", corpus=corpus)
        made_run(tmp_path, "mel_mtl", corpus=corpus)
    text = write_report(tmp_path, tmp_path, audio=False).read_text(encoding="utf-8")
    assert text.count("<h3>one, speaker_holdout</h3>") == text.count("<h3>other, speaker_holdout</h3>") > 3


def test_page_is_one_file_in_english_and_escaped(made):
    _, path = made
    text, page = path.read_text(encoding="utf-8"), Page(path)
    addresses = [a[k] for _, a in page.tags for k in ("src", "href", "data", "poster", "srcset") if k in a]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    anchors = {a["id"] for _, a in page.tags if "id" in a}
    assert all(address[1:] in anchors for address in addresses if address.startswith("#"))
    assert dict(page.tags)["html"]["lang"] == "en"
    assert "감정&lt;b&gt;말&lt;/b&gt;" in text and "<b>말</b>" not in text
    assert "loss is &lt;nan&gt;" in text and "기쁨 &amp; &lt;anger&gt;" in text
    assert path.parent == made[1].parent and [f.name for f in path.parent.glob("*.html")] == ["report.html"]


# -- confidently wrong -------------------------------------------------------------------------------------------------
def test_confidently_wrong_is_by_the_mean_over_seeds():
    def table(*probabilities):
        columns = {f"emotion_prob_{c}": [p[i] for p in probabilities] for i, c in enumerate("xy")}
        return pd.DataFrame({"id": ["a", "b", "c", "d"], "emotion": ["x", "x", "y", None], **columns})

    one = table((0.1, 0.9), (0.3, 0.7), (0.6, 0.4), (0.0, 1.0))
    two = table((0.8, 0.2), (0.3, 0.7), (0.8, 0.2), (0.0, 1.0))  # 'd' has no label
    tasks = {"emotion": Task("emotion", classes=("x", "y"))}
    model = SimpleNamespace(seeds=[1, 2], tables={1: one, 2: two}, table=one, tasks=tasks)
    wrong = confidently_wrong(model, "emotion")
    assert wrong["id"].tolist() == ["b", "c", "a"]  # tied ones in the order of their ids
    assert wrong["predicted"].tolist() == ["y", "x", "y"]
    np.testing.assert_allclose(wrong["probability"], [0.7, 0.7, 0.55])
    assert confidently_wrong(model, "emotion", 1)["id"].tolist() == ["b"]


@pytest.fixture
def one_model(tmp_path):
    """A run that takes every utterance of every speaker for another class; the first speaker's files are there."""
    table = made_table(tmp_path / "audio")
    made_run(tmp_path, "mel_stl", table=table, right=0.0)
    return tmp_path, len(table) // 6, len(table)


def test_audio_files_that_exist_are_embedded(one_model):
    folder, n_files, n = one_model
    path = write_report(folder, folder, n_wrong=100)
    players = [a for tag, a in Page(path).tags if tag == "audio"]
    assert len(players) == n_files and all(a["src"].startswith("data:audio/flac;base64,") for a in players)
    assert f"{n - n_files} utterances are not embedded for the reason beside" in path.read_text(encoding="utf-8")
    assert sum("not embedded: No such file" in row[3] for row in Page(path).table("Confident errors")) == n - n_files
    assert len(Page(path).table("Confident errors")) == n + 1
    assert all("text 오늘 <b>비</b>가 온다" in row[0] for row in Page(path).table("Confident errors")[1:])


def test_audio_is_limited_left_out_or_missing(one_model):
    folder, n_files, _ = one_model
    one_file = 8000 * 2 / 2**20
    path = write_report(folder, folder, n_wrong=100, audio_megabytes=1.5 * one_file)
    assert sum(tag == "audio" for tag, _ in Page(path).tags) == 1
    assert f"{n_files - 1} more utterances exceed the limit" in path.read_text(encoding="utf-8")
    path = write_report(folder, folder, audio=False)
    assert not any(tag == "audio" for tag, _ in Page(path).tags)
    assert "Audio is not included, as requested" in path.read_text(encoding="utf-8")
    shutil.rmtree(folder / "audio")
    path = write_report(folder, folder)
    assert "Audio is not included, for the reason beside each utterance" in path.read_text(encoding="utf-8")


def private(path):
    """Make a file of every kind that must not reach the page; return ``{name in the table: reason}``."""
    data, home = path / "audio", path / "home"
    home.mkdir()
    (home / "key.pcm").write_bytes(b"PRIVATE KEY!")
    soundfile.write(home / "diary.wav", np.linspace(-0.5, 0.5, 800), 16000)
    soundfile.write(data / "other.wav", np.linspace(-0.5, 0.5, 800), 16000)
    (data / "link.pcm").symlink_to(home / "key.pcm")
    (data / "links").symlink_to(home)
    (data / "circle.wav").symlink_to(data / "circle.wav")
    (data / "device.wav").symlink_to("/dev/zero")
    (data / "notes.txt").write_text("PRIVATE KEY!")
    (data / "key.pcm").write_bytes(b"PRIVATE KEY!")
    (data / "broken.wav").write_text("PRIVATE KEY!")
    (data / "folder.wav").mkdir()
    os.mkfifo(data / "fifo.wav")
    os.truncate((data / "huge.wav").open("w").name, 2**40)
    outside = [home / "key.pcm", data / ".." / "home" / "diary.wav", data / "links" / "diary.wav", data / "link.pcm"]
    return {
        **dict.fromkeys(
            [*map(str, outside), str(data / "device.wav"), "/dev/full", "relative.wav"], "outside the data"
        ),
        str(data / "circle.wav"): "",
        str(data / "notes.txt"): "not an audio file",
        str(data / "key.pcm"): "other audio",
        str(data / "other.wav"): "other audio",
        str(data / "broken.wav"): "cannot be read",
        str(data / "folder.wav"): "directory",
        str(data / "fifo.wav"): "a FIFO",
        str(data / "huge.wav"): "expected at most",
    }


def test_only_the_recordings_of_the_run_are_embedded(tmp_path):
    table = made_table(tmp_path / "audio")
    reasons = private(tmp_path)
    run = made_run(tmp_path, "mel_stl", table=table, right=0.0)
    predictions = read_csv(run / "test.csv")
    predictions.loc[predictions.index[-len(reasons) :], "path"] = list(reasons)
    write_csv(run / "test.csv", predictions)
    page = write_report(tmp_path, tmp_path / "out", n_wrong=100)
    shown = {row[0].split()[0]: row[3] for row in Page(page).table("Confident errors")[1:]}
    for name, reason in zip(table["id"][-len(reasons) :], reasons.values()):
        assert shown[name].startswith("not embedded: ") and reason in shown[name], name
    assert sum(tag == "audio" for tag, _ in Page(page).tags) == len(table) // 6


def test_a_recording_without_a_digest_is_not_embedded(one_model):
    folder, _, n = one_model
    next(folder.rglob("manifest.csv")).unlink()
    page = Page(write_report(folder, folder, n_wrong=100))
    assert sum("the run has no digest of it" in row[3] for row in page.table("Confident errors")[1:]) == n


# -- mistakes ----------------------------------------------------------------------------------------------------------
def test_mistakes_are_one_line(one_model):
    folder, _, _ = one_model
    figure = {"name": "a", "title": "A", "caption": "", "png": "a.png", "pdf": ""}
    (folder / "figures.json").write_text(json.dumps([figure]))
    with pytest.raises(UserError, match="a.png: cannot be read .* draw the figures again"):
        write_report(folder, folder)
    next(folder.rglob("test.csv")).unlink()
    with pytest.raises(UserError, match="no run has predictions of the test split"):
        write_report(folder, folder)


# -- spreadsheets ------------------------------------------------------------------------------------------------------
def test_csv_files_open_in_excel_with_hangul(made, tmp_path):
    folder, _ = made
    compare(load_runs(folder)).to_csv(tmp_path)
    files = sorted(tmp_path.glob("*.csv"))
    assert len(files) == 5
    for file in files:
        assert file.read_bytes().startswith(b"\xef\xbb\xbf"), file.name  # by which Excel knows UTF-8
    assert "화자s0" in pd.read_csv(tmp_path / "subgroups.csv", encoding="utf-8-sig")["group"].tolist()


# -- in a browser ------------------------------------------------------------------------------------------------------
WATCH = """<script>
window.failures = [];
addEventListener("error", e => failures.push(e.target.src ? e.target.src.slice(0, 80) : e.message), true);
addEventListener("securitypolicyviolation", e => failures.push("policy: " + e.blockedURI));
</script>"""
REPORT = """<script>
addEventListener("load", async () => {
  const all = selector => [...document.querySelectorAll(selector)];
  await Promise.all(all("audio").map(a => a.readyState || new Promise(done => {
    a.addEventListener("loadedmetadata", done); a.addEventListener("error", done);
  })));
  const column = name => {
    const table = all("table").find(t => t.caption.textContent.startsWith("Runs"));
    const head = [...table.rows[0].cells].find(c => c.textContent.startsWith(name));
    head.firstChild.click();
    return [...table.tBodies[0].rows].map(r => r.cells[head.cellIndex].firstChild.textContent);
  };
  const seeds = [column("seed"), column("seed")];
  const select = document.querySelector("select");
  select.value = "mel_stl";
  select.dispatchEvent(new Event("change"));
  document.documentElement.dataset.found = JSON.stringify({
    failures,
    images: all("img").map(i => [i.complete, i.naturalWidth, i.width]),
    figures: all("figure").map(f => f.getBoundingClientRect()).map(r => [r.left, r.top, r.width]),
    audio: all("audio").map(a => a.duration),
    tables: all("table").map(t => [t.caption.textContent.trim(), t.tBodies[0].rows.length]),
    seeds,
    chosen: all(".wrong tbody tr").filter(r => !r.hidden).map(r => JSON.parse(r.dataset.models)),
    resources: performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
    wide: [document.documentElement.scrollWidth, innerWidth],
  });
});
</script>"""


def browse(path, folder, width=1400):
    """Open a page from disk in Chromium and give back what it says of itself, and its console."""
    browser = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    if browser is None:
        reason = "no Chromium: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("KORSER_CI") else pytest.skip(reason)
    text = path.read_text(encoding="utf-8")
    text = text.replace('<meta charset="utf-8">', f'<meta charset="utf-8">{WATCH}', 1)
    copy = folder / "watched.html"
    copy.write_text(text.replace("</body>", f"{REPORT}</body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--no-first-run", f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900"]
    command += ["--virtual-time-budget=10000", "--enable-logging=stderr", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
    root = next(attributes for tag, attributes in parse(done.stdout) if tag == "html")
    assert "data-found" in root, done.stderr
    return json.loads(root["data-found"]), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def parse(text):
    class Tags(HTMLParser):
        found = []

        def handle_starttag(self, tag, attributes):
            self.found.append((tag, dict(attributes)))

    parser = Tags()
    parser.feed(text)
    return parser.found


@pytest.mark.parametrize("width", [1200, 500])  # 500: the least of Chromium
def test_page_opens_in_a_browser(made, tmp_path, width):
    _, path = made
    found, console = browse(path, tmp_path, width)
    assert found["failures"] == [] and console == [] and found["resources"] == []
    assert [image[:2] for image in found["images"]] == [[True, 600], [True, 600], [True, 2148]]
    (left, top, _), (beside, same, _), (_, below, across) = found["figures"]
    if width == 1200:  # two in a row
        assert beside > left and same == top < below and found["images"][2][2] > 850
    else:
        assert beside == left and top < same < below and across <= width
        assert found["images"][2][2] > 600  # it scrolls, so that its text is legible
    assert found["audio"] and np.allclose(found["audio"], 0.5)
    tables = dict(found["tables"])
    expected = {"Results": 2, "Size, cost": 2, "All pairs": 1, "By speaker": 6, "Runs": 4, "All 3 trials": 3}
    for start, rows in expected.items():
        assert next(n for caption, n in tables.items() if caption.startswith(start)) == rows, start
    assert found["seeds"] == [["2", "2", "1", "1"], ["1", "1", "2", "2"]]
    assert found["chosen"] and all("mel_stl" in models for models in found["chosen"])
    assert found["wide"][0] <= width  # only tables scroll sideways, not the page


def test_browser_finds_what_is_broken(tmp_path):
    """The check itself can fail: a picture that is none, one from elsewhere, a script with a fault."""
    page = tmp_path / "report.html"
    page.write_text(
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"></head><body><img src="data:image/png;base64,AAAA">'
        '<img src="missing.png"><script>nothing.there()</script><select></select>'
        "<table><caption>Runs</caption><thead><tr><th><button>seed</button></th></tr></thead><tbody></tbody></table></body></html>",
        encoding="utf-8",
    )
    found, console = browse(page, tmp_path)
    assert len(found["failures"]) == 3 and console
    assert [natural for _, natural, _ in found["images"]] == [0, 0]
