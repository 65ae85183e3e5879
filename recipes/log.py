"""Send trained runs to MLflow, Weights & Biases or TensorBoard.

    korser log results --to mlflow
    korser log results/mel_stl-1a2b3c4d --to wandb --project=emotion --files

Sends settings, tags, the log with each epoch at its time, and the final metrics. A run that was tracked in training, or
sent before, is updated: sending twice does not make two runs. Nothing is sent to the network unless the tracker is set
up for it: MLflow writes <folder>/mlflow.db unless MLFLOW_TRACKING_URI is set; WANDB_MODE=offline writes <folder>/wandb.
"""

from korser import cli


def main(arguments: list[str]) -> None:
    """Send runs and print where each can be seen."""
    parser = cli.Parser("log", __doc__)
    parser.add_argument("folders", nargs="+", metavar="RUN_DIR", help="run directories, or folders of them")
    parser.add_argument("--to", choices=("mlflow", "wandb", "tensorboard"), required=True)
    parser.add_argument(
        "--project",
        "--experiment",
        metavar="NAME",
        help="project of W&B, experiment of MLflow; default: WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME, else of MLflow "
        "the name of the comparison or search, else korser",
    )
    parser.add_argument(
        "--files", action="store_true", help="also settings, metrics, predictions of each utterance and figures"
    )
    options = parser.parse_args(arguments)
    from korser.tracking.send import send_runs

    for run, tracker in send_runs(options.folders, options.to, project=options.project, files=options.files):
        print(f"{run.path.name}: {'updated' if tracker.known else 'new'}, {tracker.where}")


if __name__ == "__main__":
    cli.run(main)
