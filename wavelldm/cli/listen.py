"""`wavelldm listen`: make a listening test, serve it, read its ratings."""

import argparse
import json
import sys
from collections.abc import Callable

from ..errors import WavelldmError
from .options import EXIT, SEED, Manual, add_force, command, whole

LISTEN = """  wavelldm listen build acr ours=cleaned theirs=other --reference clean -o test
  wavelldm listen build mushra q1 q2 q4 --reference clean --clips 8 -o test
  wavelldm listen build ab cleaned other -o test
  wavelldm listen serve test                      then open the address that it prints
  wavelldm listen serve test --invite 20          a link for each of 20 listeners, and nobody else
  wavelldm listen report test -o report           MOS, intervals and pictures
  wavelldm listen report test sent/*.json         of the page on a web host, whose listeners send files"""


def add(commands: argparse._SubParsersAction) -> None:
    top = command(
        commands,
        "listen",
        lambda args: args.parser.error("say what to do: build, serve or report"),
        "listening tests: build, serve, report",
        "Ask people. build makes a test from folders of the same clips by different systems; serve shows it in a "
        "browser and keeps every rating; report says what the ratings tell and how sure it is. The folder public/ of "
        "a test can also be put on any web host: then listeners save a file and send it to you.",
        LISTEN,
    )
    parts = top.add_subparsers(title="what to do", metavar="build | serve | report", dest="what")
    build(parts)
    serve(parts)
    report(parts)


def part(parts: argparse._SubParsersAction, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    sub = parts.add_parser(name, help=text, description=text, formatter_class=Manual, epilog=EXIT, allow_abbrev=False)
    sub.set_defaults(run=run, parser=sub)
    sub.add_argument("--json", action="store_true", help="print the result as JSON, for a machine to read")
    sub.add_argument("--debug", action="store_true", help="show the whole traceback when something goes wrong")
    return sub


def build(parts: argparse._SubParsersAction) -> None:
    sub = part(parts, "build", run_build, "make a test from folders that hold the same clips")
    sub.add_argument(
        "kind",
        choices=["acr", "mushra", "ab", "abx"],
        help="acr: one at a time, 1 to 5 (MOS); mushra: all side by side, 0 to 100; ab: which is better; "
        "abx: which of two is X",
    )
    sub.add_argument("systems", nargs="+", metavar="[NAME=]FOLDER", help="what each system made of the clips")
    sub.add_argument("--reference", metavar="FOLDER", help="the clean clips (mushra: must be; acr: rated as a system)")
    sub.add_argument("--clips", type=whole(1), metavar="N", help="so many clips, chosen at random (default: all)")
    sub.add_argument("--title", default="", help="what listeners read at the top of the page")
    sub.add_argument("--no-checks", action="store_true", help="no attention checks (trials whose answer is known)")
    sub.add_argument("--seed", type=SEED, default=0, help="same seed, same clips (default: 0)")
    sub.add_argument("-o", "--output", required=True, metavar="TEST", help="the folder to make")


def serve(parts: argparse._SubParsersAction) -> None:
    sub = part(parts, "serve", run_serve, "show a test in the browser and keep the ratings")
    sub.add_argument("test", metavar="TEST", help="a folder that `listen build` made")
    sub.add_argument("--invite", type=whole(1, 1000), default=0, metavar="N", help="only N listeners, a link for each")
    sub.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this computer alone; 0.0.0.0: all")
    sub.add_argument("--port", type=whole(0, 65535), default=8000, help="0: any that is free (default: 8000)")


def report(parts: argparse._SubParsersAction) -> None:
    sub = part(parts, "report", run_report, "what the ratings tell, and how sure it is")
    sub.add_argument("test", metavar="TEST", help="a folder that `listen build` made")
    sub.add_argument("files", nargs="*", metavar="FILE", help="ratings that listeners saved and sent")
    sub.add_argument("-o", "--output", metavar="FOLDER", help="also write report.txt, report.png and ratings.csv there")
    sub.add_argument("--keep-all", action="store_true", help="keep listeners who fail the checks")
    add_force(sub, "what is in FOLDER")


def run_build(args: argparse.Namespace) -> int:
    from ..app.listen import build

    test = build(
        args.output,
        args.kind,
        args.systems,
        args.reference,
        args.clips,
        args.title,
        args.seed,
        checks=not args.no_checks,
    )
    counted = [trial for trial in test.trials if not trial.practice]
    facts = {
        "test": args.output,
        "kind": test.kind,
        "systems": list(test.systems),
        "trials": len(counted),
        "checks": sum(trial.check for trial in counted),
        "sr": test.sr,
    }
    text = f"{args.output}: {len(counted)} trials ({facts['checks']} of them checks) of {', '.join(test.systems)}, "
    text += f"{test.sr} Hz\nshow it: wavelldm listen serve {args.output}"
    print(json.dumps(facts, indent=2) if args.json else text)
    return 0


def run_serve(args: argparse.Namespace) -> int:
    from ..app.listen import open_test
    from ..app.listen_server import serve

    def say(text: str) -> None:
        print(text, file=sys.stderr if args.json else sys.stdout, flush=True)

    listeners, answers = serve(open_test(args.test), args.host, args.port, args.invite, say)
    facts = {"listeners": listeners, "answers": answers}
    print(json.dumps(facts) if args.json else f"stopped; {answers} answers of {listeners} listeners are stored")
    return 0


def run_report(args: argparse.Namespace) -> int:
    from ..app import listen_report
    from ..app.listen import open_test

    if args.force and not args.output:
        raise WavelldmError("--force overwrites what is in a folder; add -o FOLDER or leave --force out")
    test = open_test(args.test)
    found = listen_report.report(test, listen_report.gather(test, args.files), keep_all=args.keep_all)
    if args.output:
        listen_report.write(found, args.output, args.force)
    print(json.dumps(found.facts(), indent=2, allow_nan=False) if args.json else found.text())
    return 0
