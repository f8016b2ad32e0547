#!/usr/bin/env bash
# An ARM machine in a folder: Debian's arm64 Python, the wheels of constraints.txt, and an emulator for the processor.
#
#     arm64.sh setup FOLDER            about a minute, 0.7 GB; neither root nor Docker
#     arm64.sh enter FOLDER COMMAND    run it there, in the current folder; QEMU_CPU chooses the processor
#
# Packages come from where this machine's apt and pip take theirs. Nothing is configured or compiled, so nothing is
# emulated while setting up. Variables named in PASS come along, everything else is left behind.
set -euo pipefail

QEMU_SUITE=trixie    # qemu 10; before 8.2 it shows this machine's /proc/cpuinfo, and ONNX Runtime does not load
ROOT_SUITE=bookworm  # its Python is the one of the wheels
WHEELS_PYTHON=3.11
LIBRARIES="aiohttp av jinja2 matplotlib numpy onnx onnxruntime opencv-python-headless openvino pillow pytest pytest-xdist safetensors setuptools tqdm wheel"
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

fail() { echo "test-arm64: $*" >&2; exit 1; }

# The first address of Debian packages that apt knows, in either form of its lists.
mirror() {
    { cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list /etc/apt/sources.list 2>/dev/null || true; } |
        sed -nE 's/^URIs: *([^ ]*).*/\1/p; s/^deb (\[[^]]*\] *)?([^ ]+) .*/\2/p' | grep -m1 '/debian/*$'
}

# fetch ARCHITECTURE SUITE PACKAGE...: these and what they need, as if nothing were installed.
fetch() {
    local arch=$1 suite=$2 state=$folder/apt/$1
    shift 2
    mkdir -p "$state"/{lists/partial,archives/partial}
    : >"$state/status"
    echo "deb [signed-by=$KEYRING] $mirror $suite main" >"$state/sources.list"
    local options=(-q -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state"
        -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Debug::NoLocking=1
        -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o APT::Install-Recommends=false -o APT::Sandbox::User=)
    apt-get "${options[@]}" update >/dev/null
    apt-get "${options[@]}" -y --download-only install "$@" >/dev/null
}

unpack() { for each in "$@"; do dpkg-deb --fsys-tarfile "$each" | tar -x --no-same-owner --keep-directory-symlink -C "$root"; done; }

setup() {
    for tool in apt-get dpkg-deb unzip; do command -v $tool >/dev/null || fail "setting up needs $tool, which is not here"; done
    [ -f $KEYRING ] || fail "setting up needs $KEYRING, from the package debian-archive-keyring"
    mirror=$(mirror) || fail "setting up needs a source of Debian's packages in /etc/apt, and found none"
    rm -rf "$folder/apt" "$root"
    mkdir -p "$root"/{proc,sys,dev,tmp,site,usr/bin,usr/lib,usr/sbin,etc,root}
    for each in bin lib sbin; do ln -s usr/$each "$root/$each"; done
    fetch amd64 $QEMU_SUITE qemu-user
    dpkg-deb --fsys-tarfile "$folder"/apt/amd64/archives/qemu-user_*.deb | tar -x -C "$folder" ./usr/bin/qemu-aarch64
    fetch arm64 $ROOT_SUITE python3 bash coreutils libstdc++6
    unpack "$folder"/apt/arm64/archives/*.deb
    echo "127.0.0.1 localhost" >"$root/etc/hosts"
    local platforms=(--platform manylinux2014_aarch64)
    for each in 17 24 26 27 28 31 34 35 36; do platforms+=(--platform manylinux_2_${each}_aarch64); done
    # shellcheck disable=SC2086
    "${PYTHON:-python3}" -m pip download -q --only-binary=:all: "${platforms[@]}" --python-version $WHEELS_PYTHON \
        --implementation cp --abi cp${WHEELS_PYTHON/./} --abi abi3 --abi none -d "$folder/wheels" -c constraints.txt $LIBRARIES
    for each in "$folder"/wheels/*.whl; do unzip -qo "$each" -d "$root/site"; done
    rm -rf "$folder/apt" "$folder/wheels"
}

enter() {
    local links=$folder/links here=$PWD beside
    beside=$(dirname "$here")/shared
    mkdir -p "$links/sfpp" "$root$here" "$root$beside"
    for each in runtime calibration export; do ln -sfn "$here/$each" "$links/sfpp/$each"; done
    local environment=(PATH=/usr/local/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8 TMPDIR=/tmp OMP_WAIT_POLICY=passive
        "PYTHONPATH=/site:$links" PYTHONDONTWRITEBYTECODE=1 "QEMU_CPU=${QEMU_CPU:-cortex-a76}")
    for each in ${PASS:-}; do environment+=("$each=${!each}"); done
    local command=(/usr/bin/env -i -C "$here" "${environment[@]}" "$@")
    export root here beside QEMU=$folder/usr/bin/qemu-aarch64
    if unshare --user --map-root-user --mount mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null; then
        # Not by exec: as the namespace's first process an emulator that crashes would wait for its own signal.
        unshare --user --map-root-user --mount --pid --fork --kill-child bash -c '
            set -e
            mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
            printf %s ":aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:$QEMU:OCF" >/proc/sys/fs/binfmt_misc/register
            mount -t proc proc "$root/proc"  # this namespace'"'"'s own processes, not the outer ones
            for each in /sys /dev "$here"; do mount --rbind "$each" "$root$each"; done
            [ ! -d "$beside" ] || mount --rbind "$beside" "$root$beside"
            code=0; chroot "$root" "$@" || code=$?; exit $code' bash "${command[@]}"
    elif command -v proot >/dev/null; then
        local binds=(-b /proc -b /dev -b /sys -b "$here")
        [ ! -d "$beside" ] || binds+=(-b "$beside")
        proot -q "$QEMU" -r "$root" "${binds[@]}" "${command[@]}"
    else
        fail "running needs user namespaces whose binfmt_misc is their own (Linux 6.7), or proot: install proot"
    fi
}

[ $# -ge 2 ] || fail "expected setup FOLDER or enter FOLDER COMMAND"
step=$1 folder=$(realpath -m "$2") root=$(realpath -m "$2")/root
shift 2
case $step in
    setup | enter) $step "$@" ;;
    *) fail "expected setup or enter, got $step" ;;
esac
