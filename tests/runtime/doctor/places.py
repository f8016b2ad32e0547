"""Machines as the doctor would find them: files, commands and libraries of boards that are not here."""

from sfpp.runtime.doctor.looking import Place

SUPER = "".join(
    f"< POWER_MODEL ID={key} NAME={name} >\n" for key, name in enumerate(("15W", "25W", "MAXN_SUPER", "7W"))
)
AGX = "".join(
    f"< POWER_MODEL ID={key} NAME={name} >\n" for key, name in enumerate(("MAXN", "MODE_15W", "MODE_30W", "MODE_50W"))
)
THOR = "".join(f"< POWER_MODEL ID={key} NAME={name} >\n" for key, name in enumerate(("MAXN", "120W", "90W", "70W")))
PLUGINS = ("nvarguscamerasrc", "nvv4l2decoder", "nvvidconv")
PROVIDERS = ["CPU"]


def meminfo(total_gib, available_gib, swap_gib):
    rows = {"MemTotal": total_gib, "MemAvailable": available_gib, "SwapTotal": swap_gib}
    return "".join(f"{name}:  {int(value * 2**20)} kB\n" for name, value in rows.items())


def os_release(version, name="Ubuntu"):
    return f'NAME="{name}"\nPRETTY_NAME="{name} {version}"\n'


class FakePlace(Place):
    """A machine of files below a folder, of commands that print, and of libraries."""

    def __init__(
        self, root, files=(), commands=(), modules=(), packages=(), python="3.10.12", arch="aarch64", free=40e9
    ):
        super().__init__(root)
        for path, text in dict(files).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        self.commands, self.modules, self.packages = dict(commands), dict(modules), dict(packages)
        self._python, self._arch, self._free = python, arch, free
        self.asked = []

    def output(self, *command):
        self.asked.append(command)
        return self.commands.get(" ".join(command))

    def imported(self, module):
        return self.modules.get(module)

    def package(self, name):
        return self.packages.get(name, "")

    def python(self):
        return self._python

    def architecture(self):
        return self._arch

    def free(self):
        return "~/.cache/sfpp", None if self._free is None else int(self._free)


def gstreamer(*plugins):
    return {"gst-inspect-1.0 --version": "1.20", **{f"gst-inspect-1.0 {name}": "Factory Details" for name in plugins}}


def orin_nano(root, **changes):
    """An Orin Nano Super with JetPack 6.2, as it comes: 25 W, compressed swap, no cuda-python."""
    files = {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Wed\n",
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
        "proc/meminfo": meminfo(7.4, 5.1, 3.7),
        "etc/os-release": os_release("22.04.5 LTS"),
        "etc/nvpmodel.conf": SUPER,
        "sys/class/devfreq/17000000.gpu/min_freq": "306000000",
        "sys/class/devfreq/17000000.gpu/max_freq": "918000000",
        "usr/src/tensorrt/bin/trtexec": "",
        "dev/video0": "",
        "sys/class/video4linux/video0/name": "vi-output, imx219 9-0010",
    }
    commands = {
        "nvpmodel -q": "NV Power Mode: 25W\n1",
        "dpkg-query -W -f ${Version} nvidia-jetpack": "6.2+b77",
        **gstreamer(*PLUGINS),
    }
    modules = {
        "tensorrt": {"version": "10.3.0"},
        "cv2": {"version": "4.8.0", "gstreamer": True},
        "numpy": {"version": "1.26.4"},
    }
    return FakePlace(root, files, commands, modules, {"numpy": "1.26.4"}, **changes)


def agx_orin(root, **changes):
    """An AGX Orin with JetPack 7.2.2 and TensorRT 11.4.1, ready: MAXN, clocks fixed."""
    files = {
        "etc/nv_tegra_release": "# R39 (release), REVISION: 2.2, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Mon\n",
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "proc/meminfo": meminfo(61.4, 55.0, 30.7),
        "etc/os-release": os_release("24.04.3 LTS"),
        "etc/nvpmodel.conf": AGX,
        "sys/class/devfreq/17000000.gpu/min_freq": "1300500000",
        "sys/class/devfreq/17000000.gpu/max_freq": "1300500000",
        "usr/bin/trtexec": "",
    }
    commands = {
        "nvpmodel -q": "NV Power Mode: MAXN\n0",
        "dpkg-query -W -f ${Version} nvidia-jetpack": "7.2.2-b31",
        **gstreamer(*PLUGINS),
    }
    modules = {
        "tensorrt": {"version": "11.4.1.20"},
        "cv2": {"version": "4.10.0", "gstreamer": True},
        "av": {"version": "17.1.0"},
        "numpy": {"version": "1.26.4"},
    }
    packages = {"cuda-python": "13.2.0", "tensorrt-cu13": "11.4.1.20", "av": "17.1.0", "numpy": "1.26.4"}
    return FakePlace(root, files, commands, modules, packages, python="3.12.3", free=210e9, **changes)


def thor(root, **changes):
    """A Thor with JetPack 7.1 whose OpenCV meets numpy 2, and whose cuda-python is that of JetPack 6."""
    smi = "| NVIDIA-SMI 580.00   Driver Version: 580.00   CUDA Version: 13.0 |"
    query = "nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader"
    files = {
        "etc/nv_tegra_release": "# R38 (release), REVISION: 4.0, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Tue\n",
        "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
        "proc/meminfo": meminfo(122.8, 110.0, 0),
        "etc/os-release": os_release("24.04.2 LTS"),
        "etc/nvpmodel.conf": THOR,
        "sys/class/devfreq/gpu-gpc-0/min_freq": "315000000",
        "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000",
        "usr/src/tensorrt/bin/trtexec": "",
    }
    commands = {
        "nvidia-smi": smi,
        query: "NVIDIA Thor, 580.00, 11.0, [N/A]",
        "nvpmodel -q": "NV Power Mode: 120W\n1",
        **gstreamer("nvarguscamerasrc", "nvsiplcamerasrc", "nvv4l2decoder", "nvvidconv"),
    }
    modules = {
        "tensorrt": {"version": "10.13.3.9"},
        "cv2": {"error": "ImportError: numpy.core.multiarray failed to import (_ARRAY_API not found)"},
        "numpy": {"version": "2.3.1"},
    }
    packages = {"cuda-python": "12.6.2", "numpy": "2.3.1"}
    return FakePlace(root, files, commands, modules, packages, python="3.12.3", free=800e9, **changes)


def desktop(root, **changes):
    """A PC with an RTX 4090, an old driver, and packages for CUDA 13."""
    smi = "| NVIDIA-SMI 550.120   Driver Version: 550.120   CUDA Version: 12.4 |"
    query = "nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader"
    files = {
        "proc/meminfo": meminfo(62.6, 50.0, 8),
        "etc/os-release": os_release("24.04.1 LTS"),
        "dev/video0": "",
        "sys/class/video4linux/video0/name": "HD Webcam C920",
    }
    commands = {
        "nvidia-smi": smi,
        query: "NVIDIA GeForce RTX 4090, 550.120, 8.9, 24564 MiB",
        **gstreamer(),
    }
    modules = {
        "tensorrt": {"version": "11.4.0.106"},
        "onnxruntime": {"version": "1.23.0", "providers": ["TensorRT", "CUDA", "CPU"]},
        "cv2": {"version": "4.12.0", "gstreamer": False},
        "av": {"version": "17.1.0"},
        "numpy": {"version": "2.3.1"},
    }
    packages = {"cuda-python": "13.0.3", "tensorrt-cu13": "11.4.0.106", "onnxruntime-gpu": "1.23.0", "numpy": "2.3.1"}
    return FakePlace(root, files, commands, modules, packages, python="3.12.3", arch="x86_64", free=500e9, **changes)


def server(root, **changes):
    """A server without a GPU."""
    files = {"proc/meminfo": meminfo(23.5, 15.0, 0), "etc/os-release": os_release("12 (bookworm)", "Debian GNU/Linux")}
    modules = {
        "onnxruntime": {"version": "1.23.0", "providers": PROVIDERS},
        "cv2": {"version": "4.12.0", "gstreamer": False},
        "numpy": {"version": "2.3.1"},
    }
    return FakePlace(root, files, {}, modules, {"numpy": "2.3.1"}, python="3.11.7", arch="x86_64", **changes)


PLACES = {each.__name__: each for each in (orin_nano, agx_orin, thor, desktop, server)}
