"""`wavelldm app`: the models in a browser."""

import argparse

from .options import command, whole

APP = """  wavelldm app                        then open the address that it prints
  wavelldm app --port 8080"""


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "app",
        run_app,
        "the models in a browser",
        "A page with tabs: denoise, restore, codec, refine, compare, text to audio. It runs on this computer, for this "
        "computer alone unless --host says otherwise, and asks for nothing outside.",
        APP,
    )
    sub.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this computer alone; 0.0.0.0: all")
    sub.add_argument("--port", type=whole(1, 65535), default=7860, help="default: 7860")


def run_app(args: argparse.Namespace) -> int:
    from ..app.page import launch

    try:
        launch(args.host, args.port)
    except KeyboardInterrupt:
        pass
    return 0
