"""Open a local page to try trained models: record or upload speech, and compare runs side by side.

    korser demo RUN_DIR [RUN_DIR ...] [--port=7860]

Shows the predictions of every task, their course along the recording, the log-mel spectrogram and the features of the
frontend. Only this machine reaches the page; no recording is kept. Ctrl-C ends it.
"""

import logging

from korser import cli


def main(arguments: list[str]) -> None:
    """Load the runs and serve the page."""
    parser = cli.Parser("demo", __doc__)
    parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", help="complete runs, or folders of korser export")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="default: 7860; 0: any free one")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1, this machine only")
    parser.add_trust_option()
    options = parser.parse_args(arguments)
    if not 0 <= options.port < cli.MAX_PORT:
        parser.error(f"--port={options.port}: expected an integer >= 0 and < {cli.MAX_PORT}")
    from korser.demo.page import load_models, open_socket, require_gradio, serve

    require_gradio()
    with open_socket(options.host, options.port) as listening:
        host, port = listening.getsockname()[:2]
        if options.host not in ("127.0.0.1", "::1", "localhost"):
            logging.warning("--host=%s: whoever reaches this machine can use the page, without a password", host)
        models = load_models(options.run_dirs, trust=options.trust)
        print(f"http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C ends it)", flush=True)
        serve(models, listening)


if __name__ == "__main__":
    cli.run(main)
