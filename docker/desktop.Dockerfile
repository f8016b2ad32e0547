# sfpp with TensorRT on a desktop or server card, or on a Jetson with JetPack 7. Not run on hardware.
#
# Build, in the folder of sfpp (Docker 23 or later):
#
#     docker build -f docker/desktop.Dockerfile -t sfpp:tensorrt .
#
# Run, with the models and videos of the current folder, which is /data inside (the host needs NVIDIA's Container
# Toolkit; --gpus all is --runtime nvidia in newer words):
#
#     docker run --rm --gpus all -v "$PWD":/data --entrypoint sfpp-engine sfpp:tensorrt street.fp16.onnx
#     docker run --rm --gpus all -v "$PWD":/data sfpp:tensorrt street.fp16.engine drive.mp4
#
# With a USB camera add --device /dev/video0 --group-add video, and 0 as the input. Build engines in here: they belong
# to the TensorRT of this image. Another month's image: --build-arg TENSORRT=YY.MM-py3, with a CUDA_PYTHON that fits its
# CUDA, such as 12.9.*. The default has TensorRT 10.13 and CUDA 13.0, so that a driver from 580 on takes it.
#
# On a Jetson with JetPack 7 the same name is the SBSA build: docker run --runtime nvidia instead of --gpus all, and a
# month whose CUDA is not newer than the board's (13.0 for JetPack 7.0 and 7.1, 13.2 for 7.2). Not the tag that ends in
# -igpu: it wants a library of the DLA that the host no longer has.

ARG TENSORRT=25.10-py3

# The wheel is pure Python; no build tool stays in the image.
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY package package
COPY runtime runtime
COPY tooling tooling
COPY export export
COPY calibration calibration
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM nvcr.io/nvidia/tensorrt:${TENSORRT}
ARG CUDA_PYTHON=13.0.*
# Ubuntu marks its Python as managed by apt; in a container of one purpose that need not hold pip back.
ENV PIP_BREAK_SYSTEM_PACKAGES=1
# Only what the runtime needs, no torch and no onnx. ONNX Runtime (extra cpu) is there to compare engines with.
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python3 -m pip install --no-cache-dir "$(ls /wheel/sfpp-*.whl)[cpu,video,tensorrt]" "cuda-python==${CUDA_PYTHON}"

# The first user of the host mostly has the number 1000 too, so files in /data are theirs.
RUN useradd --create-home --uid 1000 --non-unique sfpp && install -d -o sfpp -g sfpp /data
USER sfpp
WORKDIR /data
# Engines that are built when first run outlive the container.
ENV SFPP_CACHE=/data/.sfpp-cache
ENTRYPOINT ["sfpp-run"]
CMD ["--help"]
