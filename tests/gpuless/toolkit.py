"""Compilers, headers and sanitizers that run CUDA sources and PTX on the CPU."""

import functools
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

INCLUDE = Path(__file__).parent / "include"

COMMON = "-std=c++17 -g1 -fvisibility=hidden -ffp-contract=off -Wall -Wno-unknown-pragmas -Wno-tsan".split()
FLAVOURS = {
    "plain": ["-O1"],  # compiled in half the time of -O2
    "address": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"],
    "thread": ["-O1", "-fsanitize=thread"],
}
RUN_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:atexit_sleep_ms=0",  # else it waits a second for threads that never run again
}


@functools.cache
def cuda_include():
    """The toolkit's header folder, from CUDA_HOME or else from what nvcc itself says, or None."""
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc")
    if not home and nvcc:
        said = subprocess.run([nvcc, "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
        top = re.search(r"^#\$ TOP=(.*)$", said, re.MULTILINE)
        home = top and top[1]
    include = home and Path(home, "include").resolve()
    return include if include and (include / "cuda_bf16.h").exists() else None


def lacks_gxx():
    """Why nothing can be compiled for the CPU; empty where it can."""
    return "" if shutil.which("g++") else "needs g++"


def lacks_cuda_headers():
    """Why CUDA sources cannot run on the CPU; empty where they can."""
    return lacks_gxx() or ("" if cuda_include() else "needs the headers of a CUDA toolkit (nvcc on PATH, or CUDA_HOME)")


def compile_cpp(sources, output, flavour="plain", flags=()):
    """Compiles C++ sources that use the headers of `include/`."""
    command = ["g++", *COMMON, *FLAVOURS[flavour], f"-I{INCLUDE}", *flags, *map(str, sources), "-o", str(output)]
    subprocess.run(command, check=True)
    return output


def compile_cuda(sources, output, flavour="plain", flags=()):
    """Compiles unmodified CUDA sources, whose kernels then run on fibres."""
    return compile_cpp(["-xc++", *sources, "-xnone"], output, flavour, ["-idirafter", str(cuda_include()), *flags])


def lacks_nvcc():
    """Why CUDA sources cannot become PTX; empty where they can."""
    return lacks_gxx() or ("" if shutil.which("nvcc") else "needs nvcc")


def compile_ptx(source, output, flags=()):
    """The PTX that nvcc makes of a CUDA source, without fused multiply-adds; returns its text."""
    command = [
        "nvcc",
        "-std=c++17",
        "-O3",
        "-fmad=false",
        "-arch=sm_80",
        *flags,
        "-ptx",
        str(source),
        "-o",
        str(output),
    ]
    subprocess.run(command, check=True)
    return Path(output).read_text()


@functools.cache
def _fixed_addresses():
    """Older ThreadSanitizer runtimes only know fixed address layouts."""
    command = ["setarch", platform.machine(), "--addr-no-randomize"]
    allowed = shutil.which("setarch") and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if allowed else []


def execute(command, **environment):
    """Runs a compiled program, or Python with a compiled library, in a child process and captures its output."""
    environment = {**os.environ, **RUN_OPTIONS, **environment}
    return subprocess.run([*_fixed_addresses(), *map(str, command)], capture_output=True, text=True, env=environment)


def execute_checked(command, cwd=None, **environment):
    """Runs a program in the folder `cwd` and returns its output. Raises RuntimeError with its errors where it fails."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(done.args)} failed with status {done.returncode}: {done.stderr[-8000:]}")
    return done.stdout
