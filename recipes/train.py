"""Train and evaluate one model.

    python recipes/train.py hparams/wav2vec_leaf_mtl.yaml [--key=value ...]

    torchrun --nproc_per_node=4 recipes/train.py hparams/wav2vec_leaf_mtl.yaml      # on four GPUs

Every setting of the YAML file and of its base can be set on the command line. The run directory is named by the
settings; the same command again goes on where it was stopped.
"""

import os

import speechbrain as sb

from korser import cli, load_hparams, train
from korser.config.overrides import parse_overrides
from korser.metrics.evaluate import summary_table
from korser.runs.directory import RunDirectory, headline, run_folder


def main(arguments):
    path, overrides = cli.first(arguments, "the model's YAML")
    hparams = load_hparams(path, parse_overrides(overrides))
    if "RANK" in os.environ:  # started by torchrun
        sb.utils.distributed.ddp_init_group({"distributed_backend": hparams["distributed_backend"]})
    run_dir = run_folder(hparams)
    metrics = train(hparams, run_dir)
    if sb.utils.distributed.if_main_process():
        part = "test" if "test" in metrics else "valid"
        print(summary_table(metrics[part], **headline(RunDirectory(run_dir).info(), part)))
        print(f"\nEverything is in {run_dir}")


if __name__ == "__main__":
    cli.run(main)
