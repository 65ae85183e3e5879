"""Train and evaluate one model.

    korser train wav2vec_leaf_mtl.yaml --data_folder=data/mini --n_epochs=10
    torchrun --nproc_per_node=4 -m korser.recipes.train wav2vec_leaf_mtl.yaml    # on four GPUs

Every setting of the file and of its base can be set on the command line, nested ones by dotted names
(--augment.time_masks=1); so can SpeechBrain's run options (--debug, --device=cpu, --precision=bf16, --compile, ...).
The run directory is named by the settings; an interrupted run resumes when the command is given again.
"""

import korser
from korser import cli


def main(arguments: list[str]) -> None:
    """Train the model of a settings file and print its results."""
    parser = cli.Parser("train", __doc__, settings_file="base.yaml")
    path, overrides, _ = cli.parse_settings(parser, arguments)
    from korser.runs.complete import find_complete_run
    from korser.runs.directory import RunDirectory, headline, run_folder

    directory = find_complete_run(path, overrides)  # by names and digests alone: results are shown again at once
    if directory is None:
        hparams = korser.load_hparams(path, overrides)
        with cli.distributed(hparams):
            directory = RunDirectory(run_folder(hparams))
            korser.train(hparams, directory.path)
    if cli.is_main_process():
        from korser.metrics.evaluate import summary_table

        split = "test" if "test" in directory.metrics() else "valid"
        print(summary_table(directory.metrics([split])[split], **headline(directory.info(), split)))
        print(f"\nEverything is in {directory}")


if __name__ == "__main__":
    cli.run(main)
