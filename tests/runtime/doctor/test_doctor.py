"""What the doctor finds on boards that are not here, and on this machine."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from sfpp.export.engine import main
from sfpp.runtime.doctor import looking
from sfpp.runtime.doctor.advice import advice_for, jetpack_of, next_command
from sfpp.runtime.doctor.looking import Machine, Place, look, without_names
from sfpp.runtime.doctor.words import report_json, report_text
from tests.runtime.doctor.places import PLACES, agx_orin, desktop, meminfo, orin_nano, server, thor


def texts(machine, level):
    return [each.text for each in advice_for(machine) if each.level == level]


@pytest.mark.parametrize("name", PLACES)
def test_a_report_is_one_screen_and_says_what_is_next(name, tmp_path):
    text = report_text(look(PLACES[name](tmp_path)))
    lines = text.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    assert lines[-1].startswith("next: ")
    assert lines == [line.rstrip() for line in lines]


def test_an_orin_nano_lacks_cuda_python_and_could_be_faster(tmp_path):
    machine = look(orin_nano(tmp_path))
    assert (machine.linux, machine.jetpack, machine.gpu_mhz) == ("36.4.3", "6.2", (306, 918))
    assert texts(machine, "mend") == ["cuda-python is missing, without which no engine runs"]
    assert next_command(machine, advice_for(machine)) == "pip install 'cuda-python==12.6.*'"
    text = report_text(machine)
    assert (
        "board         NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super, compute capability 8.7"
        in text
    )
    assert "25W (of 0=15W, 1=25W, 2=MAXN_SUPER, 3=7W), GPU 306 to 918 MHz, not fixed" in text
    assert "note: power mode 25W; the fastest of this board is MAXN_SUPER\n      sudo nvpmodel -m 2" in text
    assert "7.4 GB of memory and 3.7 GB of swap are little to build with" in text
    assert "fits          to JetPack 6.2: TensorRT 10.3.0, cuda-python 12.6.*, Python 3.10, NumPy 1" in text
    assert "video0 vi-output, imx219 9-0010" in text
    assert "siplcamera" not in text


def test_the_fastest_mode_is_looked_up_on_the_board_and_not_assumed(tmp_path):
    place = orin_nano(tmp_path)
    (tmp_path / "etc/nvpmodel.conf").write_text("< POWER_MODEL NAME=MAXN_SUPER ID=5 >\n< POWER_MODEL ID=0 NAME=15W >\n")
    assert "sudo nvpmodel -m 5" in report_text(look(place))
    (tmp_path / "etc/nvpmodel.conf").unlink()
    assert "sudo nvpmodel -m 2" in report_text(look(place))  # as boards of this kind have it


def test_an_agx_orin_is_ready(tmp_path):
    machine = look(agx_orin(tmp_path))
    assert jetpack_of(machine).name == "7.2.2"
    assert not advice_for(machine)
    text = report_text(machine)
    assert "MAXN (of 0=MAXN, 1=MODE_15W, 2=MODE_30W, 3=MODE_50W), GPU fixed at 1300 MHz" in text
    assert "nothing to mend\n\nnext: sfpp-engine MODEL.fp16.onnx --workspace 2GiB" in text


def test_tensorrt_11_before_11_4_1_is_not_for_a_jetson(tmp_path):
    place = agx_orin(tmp_path)
    place.modules["tensorrt"] = {"version": "11.4.0.106"}
    machine = look(place)
    assert texts(machine, "mend") == [
        "TensorRT 11.4.0.106 does not support Jetson; 11.4.1 is the first of 11 that does"
    ]
    assert next_command(machine, advice_for(machine)) == "pip install 'tensorrt-cu13>=11.4.1'"


@pytest.mark.parametrize("version", ["11.2.0", "11.4.1.20"])
def test_tensorrt_11_is_not_for_an_older_jetpack(tmp_path, version):
    place = orin_nano(tmp_path)
    place.modules["tensorrt"] = {"version": version}
    place.packages.update({"cuda-python": "12.6.2", "tensorrt-cu13": version})
    machine = look(place)
    assert texts(machine, "mend") == [f"TensorRT {version} needs JetPack 7.2.2; 6.2 stays with 10.3.0"]
    command = "pip uninstall -y tensorrt-cu13 tensorrt-cu13-bindings tensorrt-cu13-libs"
    assert next_command(machine, advice_for(machine)) == command


def test_the_images_own_tensorrt_fits_where_11_is_only_to_be_installed(tmp_path):
    place = agx_orin(tmp_path)
    place.modules["tensorrt"] = {"version": "10.16.2"}
    assert not advice_for(look(place))


def test_a_thor_is_told_of_numpy_first(tmp_path):
    machine = look(thor(tmp_path))
    assert jetpack_of(machine).name == "7.1"  # by Jetson Linux: the package is not there
    assert texts(machine, "mend") == [
        "the system's OpenCV was built for numpy 1, and numpy 2 is here",
        "cuda-python 12.6.2 is for another CUDA than 13.0, which is here",
    ]
    assert next_command(machine, advice_for(machine)) == "pip install 'numpy>=1.26,<2'"
    text = report_text(machine)
    assert "NVIDIA Thor, compute capability 11.0, driver 580.00 (CUDA up to 13.0)" in text  # nvidia-smi is real here
    assert "pip install 'cuda-python==13.0.*'" in text


def test_a_desktop_with_an_old_driver_gets_packages_for_it(tmp_path):
    machine = look(desktop(tmp_path))
    assert texts(machine, "mend") == ["driver 550.120 is too old for tensorrt-cu13 (CUDA 13 needs 580)"]
    assert next_command(machine, advice_for(machine)).startswith("pip install tensorrt-cu12 'cuda-python==12.*'")
    text = report_text(machine)
    assert "ONNX Runtime  1.23.0, for TensorRT, CUDA, CPU" in text
    assert "fits          to this driver: tensorrt-cu12, cuda-python 12.*" in text


def test_a_server_without_a_gpu_runs_on_the_cpu(tmp_path):
    machine = look(server(tmp_path))
    assert not advice_for(machine)
    assert report_text(machine).endswith("next: sfpp-run MODEL.onnx demo")


@pytest.mark.parametrize(
    ("linux", "package", "name"),
    [
        ("36.4.7", "", "6.2.1"),
        ("36.5", "", "6.2.2"),
        ("38.2.1", "", "7.0"),
        ("39.2", "", "7.2"),
        ("35.4.1", "5.1.2", "5.1.x"),
        ("36.4", "6.2.1", "6.2.1"),  # the package says it better
    ],
)
def test_jetpack_is_known_by_its_package_or_by_jetson_linux(linux, package, name):
    assert jetpack_of(Machine(linux=linux, jetpack=package)).name == name


def test_an_unknown_jetpack_is_a_note_and_jetpack_5_is_to_be_replaced():
    (note,) = texts(
        Machine(linux="40.1", python="3.12.3", disk_bytes=1 << 40, libraries=complete(), packages=CUDA), "note"
    )
    assert "Jetson Linux 40.1 is not among those that sfpp knows" in note
    mends = texts(Machine(linux="35.4.1", python="3.8.10"), "mend")
    assert mends[0] == "Python 3.8.10 is too old; sfpp needs 3.10"
    assert "JetPack 5.1.x (TensorRT 8.5.2) cannot read the graphs" in mends[1]


CUDA = {"cuda-python": "13.2.0"}


def complete():
    return {"tensorrt": looking.Library("10.16.2"), "cv2": looking.Library("4.10.0", gstreamer=True)}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"free": None}, "~/.cache/sfpp cannot be written; engines are kept there"),
        ({"free": 1.2e9}, "only 1.2 GB are free where engines are kept"),
        ({"modules": {"tensorrt": None}}, "Python does not find TensorRT"),
        ({"modules": {"cv2": None}}, "OpenCV is missing"),
        ({"modules": {"av": {"error": "OSError: libavcodec.so.60"}}}, "av is installed and does not load: OSError"),
        (
            {"modules": {"cv2": {"version": "4.12", "gstreamer": False}}},
            "OpenCV has no GStreamer, so no csi:// and gst://",
        ),
        ({"modules": {"tensorrt": {"version": "10.7.0"}}}, "TensorRT 10.7.0 is not the board's own"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, change, text):
    modules = change.pop("modules", {})
    place = orin_nano(tmp_path, **change)
    place.modules.update(modules)
    assert any(text in each.text for each in advice_for(look(place))), advice_for(look(place))


def test_the_json_has_everything_and_can_be_read(tmp_path):
    found = json.loads(report_json(look(orin_nano(tmp_path))))
    assert found["jetpack"] == "6.2"
    assert found["machine"]["power"] == {"mode": "25W", "modes": {"0": "15W", "1": "25W", "2": "MAXN_SUPER", "3": "7W"}}
    assert found["advice"][0]["level"] == "mend"
    assert found["next"] == "pip install 'cuda-python==12.6.*'"


def test_a_long_error_keeps_to_its_line_in_the_text_and_is_whole_in_the_json(tmp_path):
    place = orin_nano(tmp_path)
    place.modules["av"] = {"error": "ImportError: " + "long " * 100 + "end"}
    machine = look(place)
    assert max(map(len, report_text(machine).splitlines())) <= 120
    assert "PyAV          does not load, see below" in report_text(machine)
    assert "long end" in report_json(machine)


def test_nobodys_name_is_in_a_report(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/data/people/mallory")
    assert without_names("/data/people/mallory/x, /home/carol/venv/lib and /Users/dave/y") == "~/x, ~/venv/lib and ~/y"
    place = orin_nano(tmp_path)
    place.modules["av"] = {"error": "ImportError: /home/carol/sfpp-venv/lib/av.so: no such symbol"}
    text = report_text(look(place)) + report_json(look(place))
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "carol"))
    shown, free = Place().free()
    assert shown == "$SFPP_CACHE"
    assert free > 0
    monkeypatch.delenv("SFPP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "carol"))
    assert Place().free()[0] == str(Path("$XDG_CACHE_HOME") / "sfpp")
    assert "carol" not in text
    assert "~/sfpp-venv/lib/av.so" in text


def test_no_command_can_change_the_machine(tmp_path):
    place = thor(tmp_path)
    look(place)
    assert {command[0] for command in place.asked} == {"nvidia-smi", "nvpmodel", "dpkg-query", "gst-inspect-1.0"}
    assert ("nvpmodel", "-q") in place.asked


def test_a_driver_that_does_not_answer_is_asked_once(tmp_path):
    place = desktop(tmp_path)
    place.commands.clear()
    assert look(place).cards == ()
    assert [command[0] for command in place.asked].count("nvidia-smi") == 1


def test_a_machine_that_tells_nothing_is_no_error(tmp_path):
    class Silent(Place):
        def output(self, *command):
            return None

        def imported(self, module):
            return None

        def package(self, name):
            return ""

    text = report_text(look(Silent(tmp_path)))
    assert "mend: OpenCV is missing" in text
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("nonsense\n" + meminfo(1, 1, 1))
    assert look(Silent(tmp_path)).memory_bytes == 1 << 30


def test_a_command_that_hangs_or_fails_is_nothing(tmp_path, monkeypatch):
    for name, body in (("slow", "exec sleep 60"), ("bad", "echo x; exit 3"), ("good", "echo fine")):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert Place().output("good") == "fine"
    assert Place().output("bad") is None
    assert Place().output("not-there-at-all") is None
    monkeypatch.setattr(looking, "_PATIENCE_S", 0.2)
    assert Place().output("slow") is None


def test_a_library_that_crashes_is_an_error_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "crashing_library.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    (tmp_path / "talking_library.py").write_text("import atexit\natexit.register(print, 'bye')\n__version__ = '3'\n")
    (tmp_path / "failing_library.py").write_text("print('hello')\nraise OSError('one\\nlibnvinfer.so.10: not there')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "ended at once" in Place().imported("crashing_library")["error"]
    assert Place().imported("failing_library")["error"] == "OSError: libnvinfer.so.10: not there"
    assert Place().imported("talking_library") == {"version": "3"}
    assert Place().imported("no_library_of_this_name") is None


def test_the_command_looks_at_this_machine(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "mallory"))
    monkeypatch.delenv("SFPP_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(looking, "MODULES", {"numpy": ("numpy",), "cv2": ()})
    assert main(["--doctor"]) == 0
    assert f"Python {'.'.join(map(str, sys.version_info[:3]))}" in capsys.readouterr().out
    assert main(["--doctor", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["machine"]["libraries"].keys() == {"numpy", "cv2"}
    assert json.loads(out)["machine"]["cache"] == "~/.cache/sfpp"
    assert "mallory" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "MODEL is missing; give the .onnx file, or --doctor"),
        (["m.onnx", "--json"], "--json is for --doctor"),
        (["m.onnx", "--doctor", "--bounds"], "each print something of their own; give one of them"),
        (["m.onnx", "--check", "--bounds"], "each print something of their own; give one of them"),
    ],
)
def test_wrong_usage_is_named(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
