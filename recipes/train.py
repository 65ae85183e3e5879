"""Train and evaluate one model.

    korser train wav2vec_leaf_mtl.yaml --data_folder=data/mini --n_epochs=10
    torchrun --nproc_per_node=4 -m korser.recipes.train wav2vec_leaf_mtl.yaml    # on four GPUs

Every setting of the file and of its base can be set on the command line, nested ones by dotted names
(--backbone.dropout=0.3); so can SpeechBrain's run options (--debug, --device=cpu, --precision=bf16, --compile, ...).
The run directory is named by the settings; an interrupted run resumes when the command is given again.
"""

import korser
from korser import cli


def main(arguments: list[str]) -> None:
    """Train the model of a settings file and print its results."""
    parser = cli.Parser("train", __doc__, usage="FILE.yaml [--key=value ...]")
    path, overrides, _ = cli.parse_settings(parser, arguments)
    hparams = korser.load_hparams(path, overrides)
    from korser.metrics.evaluate import summary_table
    from korser.runs.directory import RunDirectory, headline, run_folder

    is_main_process = cli.init_distributed(hparams)
    run_dir = run_folder(hparams)
    metrics = korser.train(hparams, run_dir)
    if is_main_process:
        split = "test" if "test" in metrics else "valid"
        print(summary_table(metrics[split], **headline(RunDirectory(run_dir).info(), split)))
        print(f"\nEverything is in {run_dir}")


if __name__ == "__main__":
    cli.run(main)
