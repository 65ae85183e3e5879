from conftest import ROOT

from korser.corpora import corpus_names, find_adapter


def test_the_list_of_corpora(call):
    code, out, err = call("corpora")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()[2:]}
    assert {name for name in corpus_names() if hasattr(find_adapter(name), "ABOUT")} == lines.keys() - {"Any"}
    assert "40" in lines["kemdy19"] and "emotion 7, gender 2" in lines["kemdy19"] and "Korean" in lines["kemdy19"]
    assert "valence, arousal 1-5" in lines["kemdy19"] and "ETRI agreement" in lines["kemdy19"]
    assert "unknown" in lines["aihub_263"] and "csv" in lines["Any"]


def test_one_corpus(call):
    code, out, _ = call("corpora", "kemdy19")
    assert code == 0 and out.strip() == find_adapter("kemdy19").__doc__.strip()
    assert call("corpora", "kemdy18")[::2] == (2, call("corpora", "kemdy18")[2])
    assert "unknown corpus 'kemdy18'" in call("corpora", "kemdy18")[2]


def test_the_page_has_the_list(call):
    table = call("corpora", "--markdown")[1].split("\n\n")[0]
    page = (ROOT / "docs" / "corpora.md").read_text(encoding="utf-8")
    assert table in page, "replace the table in docs/corpora.md by what `korser corpora --markdown` prints"
