"""`wavelldm web`: the browser app, served to this machine."""

import argparse

from .options import command, show, whole

EXAMPLES = """  wavelldm web                   opens the page in the browser
  wavelldm web --port 0          on any port that is free
  wavelldm web --no-open         prints the address alone"""
PORT = 8642


def add(commands: argparse._SubParsersAction) -> None:
    sub = command(
        commands,
        "web",
        run_web,
        "clean recordings and the microphone in the browser",
        "Serve the browser app to this machine and open it. The network runs in the browser; sound does not leave it. "
        "The page can be installed as an app and then works without this command. Ctrl-C ends the server.",
        EXAMPLES,
    )
    sub.add_argument(
        "--port", type=whole(0, 65_535), default=PORT, help=f"where to serve (default: {PORT}; 0: any that is free)"
    )
    sub.add_argument("--no-open", action="store_true", help="do not open a browser")


def run_web(args: argparse.Namespace) -> None:
    import sys
    import webbrowser

    from ..app.web_server import Server

    with Server(args.port) as server:
        show(args, {"address": server.address}, f"{server.address}  (Ctrl-C ends it)")
        sys.stdout.flush()
        if not args.no_open:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the usual way to end it
            pass
