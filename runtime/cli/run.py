"""sfpp-run: segment an image, a folder, a video or a camera's frames, or find people's keypoints in them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sfpp.runtime.cli.console import COMMAND, command_parser, positive_int, run_command, unit_interval
from sfpp.runtime.errors import UsageError
from sfpp.runtime.motion.options import MIX, KeyEvery, key_every_from
from sfpp.runtime.video.sources.address import is_uri, without_credentials

# What names files or folders, and never an address.
_FILES = ("model", "contract", "detector", "boxes", "masks", "json", "snapshot", "keypoints_json", "token_file")

_EPILOG = """\
examples, segmentation:
  sfpp-run model.onnx demo                        the clip that ships with sfpp, to highway-sfpp.mp4
  sfpp-run model.onnx street.mp4                  to street-sfpp.mp4 in the current folder
  sfpp-run model.onnx street.mp4 out/street.mkv   to this file
  sfpp-run model.onnx photo.jpg                   to photo-sfpp.png, and the share of each class
  sfpp-run model.onnx images/ overlays/           a folder of images, one picture each
  sfpp-run model.onnx *.mp4                       each to a NAME-sfpp.mp4 of its own
  sfpp-run model.onnx *.mp4 -o overlays/          the same in a folder; or -o 'overlays/{source}.mkv'
  sfpp-run model.onnx street.mp4 --masks labels/  only the labels: PNGs whose pixels are class numbers

examples, video in motion:
  sfpp-run model.onnx street.mp4 --key-every 4    a quarter of the network's runs, and steadier labels
  sfpp-run model.onnx street.mp4 --smooth         every frame, steadier
  sfpp-run model.onnx 0 --view 8080 --still       no network while nothing moves before a fixed camera

examples, cameras and streams:
  sfpp-run model.onnx 0 -o camera.mp4             a webcam, until Ctrl-C
  sfpp-run model.onnx rtsp://camera/street --view 8080        look at it in a browser
  sfpp-run model.onnx test:// --view 8080                     try that without a camera
  sfpp-run model.onnx rtsp://a/1 rtsp://b/2 --view 0.0.0.0:8080 --json all.jsonl
  sfpp-run model.onnx camera://0 -o rtsp://server/out -o day-{source}.mp4

examples, human pose:
  sfpp-run pose.onnx jump.mp4 --detector yolox.onnx --detect-every 5
  sfpp-run pose.onnx jump.mp4 --boxes people.json --flip-test
  sfpp-run pose.onnx jump.mp4 --keypoints-json jump.jsonl  only the keypoints: one line a person
  sfpp-run pose.onnx athlete.jpg --person full-frame       a picture cut to one person

examples, the model:
  sfpp-run model.onnx street.mp4 --backend openvino --precision fp32
  sfpp-run model.onnx street.mp4 --backend onnxruntime-cuda    an NVIDIA GPU, with onnxruntime-gpu installed
  sfpp-run model.engine street.mp4                             an engine that sfpp-engine built for this GPU
  sfpp-run model.onnx --self-test                 after an update: does it still answer as when it was exported?
  sfpp-run model.onnx 0 --self-test               ask that first, and run only if it does

Ctrl-C ends the run after the current frame; what was written until then is complete and can be played.
exit codes: 0 done, 1 failed (a self-test too), 2 wrong usage, 130 stopped by Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(COMMAND, parsed(argv), _run)


def _run(arguments: argparse.Namespace) -> int:
    # Here, and not at the top: --help must not wait for OpenCV, the inference library and the video library.
    from sfpp.runtime.cli.running import run

    return run(arguments)


def run_parser() -> argparse.ArgumentParser:
    """Return the parser of `sfpp-run`."""
    parser = command_parser(
        COMMAND,
        description="Segment images, videos, cameras and streams with an exported model, or find people's\n"
        "keypoints in them: the model says which.",
        epilog=_EPILOG,
    )
    parser.add_argument("model", metavar="MODEL", help="the .onnx file that sfpp-export wrote, or an engine of it")
    parser.add_argument(
        "places",
        metavar="SOURCE",
        nargs="*",
        help="an image, a folder or glob of images, a video, a webcam's number, the word demo, or an address (see "
        "below); several run one after the other, or live ones in turns; --self-test needs none. A last one that does "
        "not exist yet is OUTPUT: what exists is never written over unless -o names it",
    )
    _add_output_options(parser)
    _add_frame_options(parser)
    _add_live_options(parser)
    _add_motion_options(parser)
    _add_model_options(parser)
    _add_segmentation_options(parser)
    _add_people_options(parser)
    _add_pose_options(parser)
    return parser


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a command line; wrong usage is told on stderr and exits with 2."""
    parser = run_parser()
    # Options may stand between MODEL and INPUT, which plain parsing of optional arguments does not allow.
    arguments = parser.parse_intermixed_args(argv)
    _check_texts(parser, arguments)
    arguments.sources, arguments.output = _sources_and_output(parser, arguments)
    if not arguments.sources and not arguments.self_test:
        parser.error("the following arguments are required: SOURCE (or --self-test, which needs none)")
    return arguments


def _check_texts(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse names that are empty, addresses where only a file can be meant, and a token without a page."""
    files = {name: getattr(arguments, name) for name in _FILES}
    for text in (*arguments.places, *arguments.outputs, *files.values()):
        if not text and text is not None:
            parser.error("an empty name was given, expected a file or an address; is a variable of the shell not set?")
    for name, text in files.items():
        if text is not None and is_uri(text):
            option = "MODEL, which comes first," if name == "model" else f"--{name.replace('_', '-')}"
            parser.error(
                f"{option} takes the name of a file, and {without_credentials(text)} is an address; "
                "addresses are for SOURCE and -o"
            )
    for option in ("token", "token_file"):
        if getattr(arguments, option) is not None and arguments.view is None:
            name = option.replace("_", "-")
            parser.error(f"--{name} is for the page in the browser; give --view too, or leave it out")


def _sources_and_output(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> tuple[list[str], str | None]:
    """Tell sources from an output among what stands behind MODEL: only the last can be one, if it is nothing yet."""
    from sfpp.runtime.video.sinks.push import is_receiver

    places = list(arguments.places)
    if arguments.outputs or arguments.view is not None or len(places) < 2:
        return places, None
    told = any(each is not None for each in (arguments.json, arguments.masks, arguments.keypoints_json))
    if is_receiver(places[-1]):
        if told and len(places) > 2:
            return places, None
        # What is meant for a server would else go to a camera.
        shown = without_credentials(places[-1])
        which = "a second" if len(places) == 2 else "another"
        parser.error(f"{shown} may be {which} source or the output; say -o {shown} for an output, else --view or -o")
    return (places[:-1], places[-1]) if _is_new(places[-1]) else (places, None)


def _is_new(place: str) -> bool:
    """Whether a place is written to although no -o says so: it is nothing that could be read, or overwritten."""
    from sfpp.runtime.video.sinks.opening import SINK_SCHEMES, output_from
    from sfpp.runtime.video.sources.opening import SCHEMES, names_input

    if not is_uri(place):
        return not names_input(place)
    scheme = place.partition("://")[0].lower()
    if scheme not in SINK_SCHEMES:
        return scheme not in SCHEMES  # it is told that there is no such scheme
    try:
        written = output_from(place).place
    except UsageError:  # such as raw:// with the options of a source
        return scheme not in SCHEMES
    return not isinstance(written, Path) or not written.is_file()


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where the frames go, with the classes' colors or the skeletons over them")
    group.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        dest="outputs",
        metavar="OUTPUT",
        help=".mp4, .mov or .mkv for a video (H.264), .png or .jpg for a picture, a name without suffix or with a "
        "final / for a folder, window:// for a window, raw://- for standard output, rtsp://, rtmp://, srt:// or "
        "udp:// to push it; may be given several times. For several sources a folder, in which each gets an output, or "
        "a name with {source}, which stands for each one's name (default: named after SOURCE; the next free name)",
    )
    group.add_argument("--no-audio", action="store_true", help="leave a video's sound out of the video that is written")
    group.add_argument(
        "--view",
        type=_page_address,
        metavar="[HOST:]PORT",
        help="show it on a page in the browser; on another host than this machine's own, a token is demanded",
    )
    tokens = group.add_mutually_exclusive_group()
    tokens.add_argument(
        "--token-file",
        metavar="FILE",
        help="the file with the token that --view demands, 16 characters or more; a warning is printed if other users "
        "may read it (default: the variable SFPP_TOKEN, else a new token, printed at the start)",
    )
    tokens.add_argument("--token", help="the token itself; other users of this machine see it in the list of processes")
    group.add_argument(
        "--json",
        metavar="FILE",
        help="a line of JSON a frame, added to those in FILE: class shares or keypoints, latencies, age; - prints it",
    )


def _page_address(text: str) -> tuple[str, int]:
    from sfpp.runtime.viewer.listening import address_from

    return address_from(text)


def _add_live_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cameras and streams")
    group.add_argument(
        "--policy",
        choices=("follow", "freshest", "every-frame"),
        help="follow shows every frame at once, with the newest labels carried to it along the motion; freshest drops "
        "frames that are old by the time the model is free; every-frame takes all (default: for cameras and streams "
        "follow, or freshest where labels cannot be carried; every-frame for files and pipes)",
    )


def _add_motion_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("video in motion: the network need not see every frame")
    group.add_argument(
        "--key-every",
        type=_key_every,
        metavar="N|TIME|auto",
        help="let the network see every Nth frame (4), one every so often (0.25s), or as many as keep up with the "
        "frame rate of the source (auto). Labels are carried along the picture's motion to the frames in between, in "
        "files from both sides, and the network also sees each frame with which another scene begins. Keypoints, in "
        "files only, move on straight lines from key frame to key frame, of people who are in both (default: 1, every "
        "frame)",
    )
    group.add_argument(
        "--smooth",
        type=unit_interval,
        nargs="?",
        const=MIX,
        metavar="A",
        help="be steadier, from 0 (not at all) to below 1: labels are averaged with those carried on from the frame "
        "before, which count for A, and keypoints are filtered, the less the faster they move; without a value "
        f"{MIX:g} (default: 0, and {MIX:g} where --key-every or --policy follow carry labels)",
    )
    group.add_argument(
        "--still",
        action="store_true",
        default=None,
        help="leave the network out while nothing moves, for two seconds at most; for segmentation by cameras that do "
        "not move",
    )
    group.add_argument(
        "--no-look-ahead",
        dest="look_ahead",
        action="store_false",
        default=None,
        help="between the key frames of a file, carry labels from the one before only; each frame comes out at once",
    )


def _key_every(text: str) -> KeyEvery:
    try:
        return key_every_from(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _add_frame_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which frames, and a picture of one")
    group.add_argument(
        "--max-frames", type=positive_int, metavar="N", help="stop after N frames; of several files, after N of each"
    )
    group.add_argument(
        "--every", type=positive_int, metavar="N", help="take every Nth frame of each source only (default: 1)"
    )
    group.add_argument(
        "--snapshot", metavar="FILE", help="also write one picture from the middle of the run, to look at"
    )


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    from sfpp.runtime.backends import PRECISIONS, backend_names
    from sfpp.runtime.backends.protocol import SCHEDULES

    group = parser.add_argument_group("the model")
    group.add_argument(
        "--backend",
        choices=backend_names(),
        help="the library that runs it (default: what suits the model and this machine; a line says which, and why)",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="what it computes in; fp32 is exactest (default: bf16 where CPU and backend have it, else as the file is)",
    )
    group.add_argument(
        "--threads", type=positive_int, metavar="N", help="threads within an operator (default: all cores)"
    )
    group.add_argument(
        "--no-build",
        action="store_false",
        dest="build",
        help="build no TensorRT engine, which takes minutes the first time; run what was built, or run elsewhere",
    )
    group.add_argument(
        "--allow-host-code",
        action="store_true",
        dest="host_code",
        help="let an engine without a contract beside it bring code along, as version-compatible ones do; it runs in "
        "this process, so give it for files that you trust",
    )
    group.add_argument(
        "--schedule",
        choices=SCHEDULES,
        help="how TensorRT waits for the card: spin is soonest and takes a core, blocking leaves the core to others "
        "(default: as CUDA chooses)",
    )
    group.add_argument(
        "--no-zero-copy",
        action="store_false",
        dest="zero_copy",
        help="copy frames to the card of a Jetson, too, which can work in the processor's memory; for comparison",
    )
    group.add_argument("--contract", metavar="FILE", help="the contract as JSON, for an ONNX file that carries none")
    group.add_argument(
        "--self-test",
        action=argparse.BooleanOptionalAction,
        help="replay the frame that the file carries, and compare the answer with the stored one; SOURCE is then left "
        "out, or run only if that passes. --no-self-test never does, and trusts any backend (default: on first use "
        "with each backend, version, precision and processor; where it fails, the next backend takes over)",
    )


def _add_segmentation_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("segmentation models")
    group.add_argument(
        "--masks",
        metavar="DIR",
        help="write label values as PNGs into DIR, of a multi-label model one for each class; without OUTPUT, nothing "
        "else is written",
    )
    group.add_argument("--alpha", type=unit_interval, metavar="X", help="weight of the colors, 0 to 1 (default: 0.5)")
    group.add_argument(
        "--no-legend", dest="legend", action="store_false", default=None, help="leave the classes' names out"
    )


def _add_people_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pose models: how people are found (default: --person hog where OpenCV has it)")
    way = group.add_mutually_exclusive_group()
    way.add_argument("--detector", metavar="FILE", help="a YOLO, RTMDet or RT-DETR detector as an ONNX file")
    way.add_argument("--boxes", metavar="FILE", help="boxes found beforehand: COCO-style JSON, or JSON lines")
    way.add_argument(
        "--person",
        choices=("hog", "full-frame"),
        help="hog: OpenCV's own detector of upright people; full-frame: each frame is one person",
    )
    group.add_argument(
        "--person-class",
        metavar="CLASS",
        help="which class of the detector or the boxes is a person, by name or number (default: by the file's names)",
    )
    group.add_argument(
        "--detect-every",
        type=positive_int,
        metavar="N",
        help="find people in every Nth frame only, and follow their keypoints in between (default: 1)",
    )


def _add_pose_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pose models")
    group.add_argument(
        "--threshold",
        type=unit_interval,
        metavar="X",
        help="leave out keypoints with a lower score, and people without any other, 0 to 1 (default: 0.3)",
    )
    group.add_argument(
        "--flip-test",
        action="store_true",
        default=None,
        help="average with the mirrored person: more accurate, twice the work",
    )
    group.add_argument(
        "--keypoints-json",
        metavar="FILE",
        help="write keypoints as COCO results: one list in a .json file, else a line for each person; without OUTPUT, "
        "nothing else is written",
    )
