"""Pretrain a wav2vec 2.0 on your own speech, from scratch or from a checkpoint.

    python recipes/pretrain.py hparams/pretrain_wav2vec.yaml --data_folder=my/speech [--key=value ...]

    torchrun --nproc_per_node=4 recipes/pretrain.py hparams/pretrain_wav2vec.yaml ...      # on four GPUs

`--source=facebook/wav2vec2-base` goes on from a checkpoint, `--corpus=csv` reads a corpus with its speakers,
`--sources='[{data_folder: a}, {data_folder: b, corpus: ravdess, weight: 2}]'` several. The same command again goes on
where it was stopped. What comes out is a Hugging Face folder: `recipes/train.py ... --wav2vec_source=<it>`.
"""

import os

import speechbrain as sb

from korser import cli
from korser.config.overrides import parse_overrides
from korser.pretraining import load_settings, pretrain, pretrain_folder


def main(arguments):
    path, overrides = cli.first(arguments, "the YAML")
    hparams = load_settings(path, parse_overrides(overrides))
    if "RANK" in os.environ:  # started by torchrun
        sb.utils.distributed.ddp_init_group({"distributed_backend": hparams["distributed_backend"]})
    run_dir = pretrain_folder(hparams)
    pretrain(hparams, run_dir)
    if sb.utils.distributed.if_main_process():
        print(f"The checkpoint is {run_dir / 'checkpoint'}")


if __name__ == "__main__":
    cli.run(main)
