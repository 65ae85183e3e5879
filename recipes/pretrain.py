"""Pretrain a wav2vec 2.0 on your own speech, from scratch or from a checkpoint.

    korser pretrain pretrain_wav2vec.yaml --data_folder=my/speech
    torchrun --nproc_per_node=4 -m korser.recipes.pretrain pretrain_wav2vec.yaml ...    # on four GPUs

Every key of the file can be set on the command line: --source=facebook/wav2vec2-base starts from a checkpoint,
--corpus=csv reads a corpus with its speakers, --sources='[{data_folder: a}, {data_folder: b, weight: 2}]' several. An
interrupted run resumes when the command is given again. The result is a Hugging Face folder, for
korser train ... --wav2vec_source=FOLDER.
"""

from korser import cli


def main(arguments: list[str]) -> None:
    """Pretrain by a settings file."""
    parser = cli.Parser("pretrain", __doc__, settings_file="pretrain_wav2vec.yaml")
    path, overrides, _ = cli.parse_settings(parser, arguments)
    from korser.pretraining import load_settings, pretrain, pretrain_folder

    settings = load_settings(path, overrides)
    with cli.distributed(settings):
        run_dir = pretrain_folder(settings)
        pretrain(settings, run_dir)
    if cli.is_main_process():
        print(f"The checkpoint is {run_dir / 'checkpoint'}")


if __name__ == "__main__":
    cli.run(main)
