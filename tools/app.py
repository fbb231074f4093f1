"""The app in the browser: two vocabularies side by side on any image, and the teacher's view of a box.

python tools/app.py CKPT [--examples FOLDER] [--port 7860]

Needs gradio (requirements/app.txt). Serves this machine alone unless --host or --share says otherwise.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from inference.inputs import find_images
from tools.demo.answers import Answers
from tools.demo.detector import DemoDetector
from util.errors import UserError, run_command
from util.optional import require

_MAX_EXAMPLES = 60  # gradio copies each of them
_MAX_UPLOAD = "50mb"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", help="of this project or the official release")
    parser.add_argument("--examples", type=Path, help="folder of images to choose from")
    parser.add_argument("--score", type=float, default=0.3, help="lowest score that is shown at first")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--annotations", type=Path, help="LVIS file with the class names of an official checkpoint"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to serve; 0.0.0.0 for the whole network")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument(
        "--share", action="store_true", help="also a public link, through gradio's servers: off by default"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Serves the page until it is stopped.

    Raises UserError where gradio is missing, the checkpoint or a folder is unfit, or the port is in use.
    """
    args = parse_arguments(arguments)
    if not 0 <= args.score <= 1:
        raise UserError(f"--score must be between 0 and 1, not {args.score}")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing is reported to anyone
    require("gradio", "app")
    from tools.demo.page import CSS, THEME, Page

    examples = find_images([args.examples])[:_MAX_EXAMPLES] if args.examples else []
    detector = DemoDetector(args.checkpoint, args.device, args.annotations)
    title = "RichSem: " + "/".join(Path(args.checkpoint).parts[-2:])
    page = Page(Answers(detector), title, args.score, examples)
    try:
        _, url, shared = page.blocks.queue().launch(
            server_name=args.host,
            server_port=args.port,
            share=args.share,
            theme=THEME,
            css=CSS,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            max_file_size=_MAX_UPLOAD,
            footer_links=[],
        )
    except OSError as error:
        if "empty port" not in str(error):
            raise
        raise UserError(f"port {args.port} is in use: choose another with --port") from None
    print(f"{url}   Ctrl-C stops it", flush=True)
    if shared:
        print(f"{shared}   for anyone with the link", flush=True)
    page.blocks.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
