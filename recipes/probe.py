"""Probe frozen encoders: which layer tells the emotion, and what does pretraining add?

    python recipes/probe.py hparams/probe.yaml --sources='[nano-random, facebook/wav2vec2-base, /my/checkpoint]' \\
        --corpus=ravdess --data_folder=/data/ravdess --split.test_speakers='[13,14,15,16,17,18]'

For each encoder and layer the features' mean and standard deviation over an utterance go into a logistic regression,
which is tested on speakers it has not seen. `hparams/probe.yaml` says on what and how; each key of it can be set on the
command line. Tables and predictions go to <output_folder>/probe/<corpus>. The same command again computes only what is
missing.
"""

import re

from korser import cli
from korser.config.overrides import parse_overrides
from korser.probing import load_settings, run_probe


def main(arguments):
    path, overrides = cli.first(arguments, "the probe's YAML")
    settings = load_settings(path, parse_overrides(overrides))
    text = run_probe(settings)
    text = re.sub(r"\\([\\`*_|<>\[\]])", r"\1", text)  # Markdown's escapes are for pages, not for terminals
    print(text.replace("&lt;", "<"))
    print(f"\nEverything is in {settings.output_folder}/probe")


if __name__ == "__main__":
    cli.run(main)
