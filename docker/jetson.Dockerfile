# sfpp on a Jetson Orin with JetPack 6.1 or 6.2 (TensorRT 10.3, CUDA 12.6). Not run on hardware.
#
# Build on the Jetson, in the folder of sfpp (Docker 23 or later):
#
#     docker build -f docker/jetson.Dockerfile -t sfpp:jetson .
#
# Run, with the models and videos of the current folder, which is /data inside:
#
#     docker run --rm --runtime nvidia --group-add "$(stat -c %g /dev/dri/renderD128)" -v "$PWD":/data \
#         --entrypoint sfpp-engine sfpp:jetson street.fp16.onnx --timing-cache sfpp.timing
#     docker run --rm --runtime nvidia --group-add "$(stat -c %g /dev/dri/renderD128)" -v "$PWD":/data \
#         sfpp:jetson street.fp16.engine drive.mp4
#
# With a USB camera add --device /dev/video0, and 0 as the input. Build engines in here: the TensorRT of the image may
# be another build than the board's, and neither loads the other's engines. This image is for JetPack 6 only; on
# JetPack 7 take docker/desktop.Dockerfile. --build-arg TENSORRT=r10.3.0-devel is larger, for where the runtime image
# lacks Python's module tensorrt. The OpenCV in here reads files and USB cameras, without GStreamer; for CSI cameras run sfpp on the board itself.

ARG TENSORRT=r10.3.0-runtime

# The wheel is pure Python, so it is made where pip is new enough, and no build tool stays in the image.
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY package package
COPY runtime runtime
COPY tooling tooling
COPY export export
COPY calibration calibration
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM nvcr.io/nvidia/l4t-tensorrt:${TENSORRT}
# The image brings Python 3.10 with pip and TensorRT's module. What the runtime needs is added, no torch and no onnx.
# TensorRT cannot be imported here: some of its libraries come with --runtime nvidia.
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python3 -m pip install --no-cache-dir "$(ls /wheel/sfpp-*.whl)[video]" \
        'cuda-python==12.6.*' 'opencv-python-headless>=4.5,<5'

# The first user of a Jetson has the number 1000 too, so files in /data are theirs. The group video may use the GPU.
RUN useradd --create-home --uid 1000 --non-unique --groups video sfpp && install -d -o sfpp -g sfpp /data
USER sfpp
WORKDIR /data
# Engines that are built when first run outlive the container.
ENV SFPP_CACHE=/data/.sfpp-cache
ENTRYPOINT ["sfpp-run"]
CMD ["--help"]
