"""Write a trained model into a folder that others load without korser, or as an ONNX graph.

    korser export RUN_DIR --out FOLDER [--encoder=reference] [--push USER/NAME]
    korser export RUN_DIR --out FOLDER --onnx

The folder has the weights as safetensors, the computation as ONNX, a model card, and what transformers needs to load
it. It is loaded by korser.load(FOLDER) and, without korser, by
transformers.pipeline("audio-classification", model=FOLDER, trust_remote_code=True).
"""

from korser import cli


def main(arguments: list[str]) -> None:
    """Export a run and print where it is."""
    parser = cli.Parser("export", __doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="directory of a complete run")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="folder to write, which must not exist")
    parser.add_argument(
        "--encoder",
        choices=("include", "reference"),
        default="include",
        help="reference: without the weights of frozen encoders, which korser.load then loads from their source",
    )
    parser.add_argument("--onnx", action="store_true", help="write only model.onnx, with its weights")
    parser.add_argument("--push", metavar="USER/NAME", help="upload the folder to the Hugging Face hub")
    parser.add_trust_option()
    options = parser.parse_args(arguments)
    if options.onnx and (options.push or options.encoder != "include"):
        parser.error("--onnx writes one file with all weights: leave out --push and --encoder")
    from korser.export.folder import check_destination, export_folder, export_graph, push
    from korser.inference.load import load_trained_model

    check_destination(options.out, options.push)
    trained = load_trained_model(options.run_dir, trust=options.trust)
    if options.onnx:
        difference = export_graph(trained, options.out)
    else:
        difference = export_folder(trained, options.out, encoder=options.encoder, name=options.push)
    print(options.out)
    if difference is not None:
        print(f"onnxruntime and torch differ by at most {difference:.1e}")
    if options.push:
        print(push(options.out, options.push))


if __name__ == "__main__":
    cli.run(main)
