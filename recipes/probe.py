r"""Probe frozen encoders: find the layer that predicts the emotion best, and what pretraining adds.

    korser probe probe.yaml --sources='[nano-random, facebook/wav2vec2-base, /my/checkpoint]' \
        --corpus=ravdess --data_folder=/data/ravdess --split.test_speakers='[13,14,15,16,17,18]'

Mean and standard deviation over time of each layer's features are the input of a logistic regression, which is tested
on unseen speakers. Every key of the file can be set on the command line. Tables and predictions are written to
<output_folder>/probe/<corpus>. The same command again computes only what is missing.
"""

from korser import cli


def main(arguments: list[str]) -> None:
    """Probe the encoders of a settings file and print the results."""
    parser = cli.Parser("probe", __doc__, settings_file="probe.yaml")
    path, overrides, _ = cli.parse_settings(parser, arguments)
    from korser.probing import load_settings, run_probe

    settings = load_settings(path, overrides)
    print(run_probe(settings))
    print(f"\nEverything is in {settings.output_folder}/probe")


if __name__ == "__main__":
    cli.run(main)
