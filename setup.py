"""Builds the native cores with ninja. They include no torch header, so one build serves every torch."""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

CSRC = Path(__file__).parent.resolve() / "csrc"
CPU_SOURCES = ["bindings/cpu.cpp", "cpu/dispatch.cpp"]
CUDA_SOURCES = [
    f"cuda/{name}.cu" for name in ("lif_forward", "lif_backward", "standardize", "empf", "binary", "mpdr", "osr", "ots")
]
CUDA_ARCHS = "75;80;86;89;90;100;120"
X86 = platform.machine().lower() in ("x86_64", "amd64")
PURE_PYTHON = os.environ.get("FASTSNN_PURE_PYTHON") == "1"

NO_COMPILER = (
    "fastsnn needs a C++17 compiler (g++ or clang++; cl.exe on Windows) and found none: install one, "
    "set CXX, or set FASTSNN_PURE_PYTHON=1 to install the slow pure-PyTorch reference alone."
)
NO_NVCC = (
    "FASTSNN_CUDA=1 asks for the CUDA core and there is no nvcc: install the CUDA toolkit and put nvcc on PATH "
    "(or set CUDA_HOME), or unset FASTSNN_CUDA to build without it."
)


def find_compiler():
    """Path of the C++ compiler, or None."""
    names = ["cl.exe"] if os.name == "nt" else ["c++", "g++", "clang++"]
    chosen = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, [chosen] if chosen else names)), None)


def find_nvcc():
    """Path of nvcc, or None where there is none or FASTSNN_CUDA=0."""
    wanted = os.environ.get("FASTSNN_CUDA", "")
    if wanted not in ("", "0", "1"):
        sys.exit(f"FASTSNN_CUDA is {wanted!r}; allowed: 1 (CUDA core or fail), 0 (without), unset (if there is nvcc)")
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=str(Path(home) / "bin")) if home else shutil.which("nvcc")
    if wanted == "1" and nvcc is None:
        sys.exit(NO_NVCC)
    return None if wanted == "0" else nvcc


def cuda_archs(nvcc):
    """The wanted architectures (FASTSNN_CUDA_ARCHS, such as "80;90") that this nvcc knows."""
    known = re.findall(r"compute_(\w+)", subprocess.check_output([nvcc, "--list-gpu-arch"], text=True))
    wanted = os.environ.get("FASTSNN_CUDA_ARCHS", CUDA_ARCHS)
    archs = [arch for arch in re.split(r"[;, ]+", wanted.replace(".", "")) if arch in known]
    if not archs:
        sys.exit(f"FASTSNN_CUDA_ARCHS is {wanted!r} and {nvcc} knows none of these; it knows {', '.join(known)}")
    return archs


def compiles(compiler, flags):
    """Whether the compiler accepts `flags`."""
    command = [compiler, *flags, "-x", "c++", "-c", "-", "-o", os.devnull]
    return subprocess.run(command, input=b"int main() {}", capture_output=True).returncode == 0


def includes():
    import pybind11

    return [pybind11.get_include(), sysconfig.get_path("include"), sysconfig.get_path("platinclude")]


def unix_toolchain(compiler, version):
    """(compile flags, {isa: flags}, link flags) for g++ and clang++."""
    common = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno"]
    common += ["-fno-trapping-math", f'-DFASTSNN_VERSION=\\"{version}\\"']
    link = ["-shared"]
    if sys.platform == "darwin":
        link += ["-undefined", "dynamic_lookup"]
    if compiles(compiler, ["-fopenmp"]):
        common.append("-fopenmp")
        link.append("-fopenmp")
    isas = {"generic": []}
    if X86 and sys.platform != "darwin":
        isas["avx2"] = ["-mavx2", "-mfma"]
        isas["avx512"] = [
            "-mavx512f",
            "-mavx512bw",
            "-mavx512dq",
            "-mavx512vl",
            "-mfma",
            "-mprefer-vector-width=512",
        ]
        common.append("-DFASTSNN_X86_ISAS")
    return common, isas, link


def msvc_toolchain(version):
    common = ["/nologo", "/std:c++17", "/O2", "/EHsc", "/openmp", "/fp:precise"]
    return [*common, f'/DFASTSNN_VERSION=\\"{version}\\"'], {"generic": []}, ["/nologo", "/LD"]


def cuda_flags(compiler, nvcc):
    """nvcc's flags, and the architectures: machine code for each, PTX of the last for those to come."""
    archs = cuda_archs(nvcc)
    flags = [f"-ccbin {compiler}", "-std=c++17", "-O3", "-fmad=false", "-Xfatbin -compress-all", "-cudart static"]
    flags += [f"-gencode arch=compute_{arch},code=sm_{arch}" for arch in archs]
    flags.append(f"-gencode arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    flags.append("-Xcompiler -fPIC,-fvisibility=hidden,-ffp-contract=off")
    return flags, archs


def cuda_ninja_file(compiler, nvcc, target, version):
    """The text of build.ninja for the CUDA core."""
    flags, archs = cuda_flags(compiler, nvcc)
    include = " ".join(f'-I"{path}"' for path in includes())
    defines = f"-DFASTSNN_MODULE=_cuda '-DFASTSNN_CUDA_ARCHS=\"{';'.join(archs)}\"' '-DFASTSNN_VERSION=\"{version}\"'"
    host = f"-std=c++17 -O2 -fPIC -fvisibility=hidden {include} {defines}"
    lines = [
        "rule nvcc",
        f" command = {nvcc} -MMD -MF $out.d {' '.join(flags)} -c $in -o $out",
        " depfile = $out.d\n deps = gcc",
        "rule cxx",
        f" command = {compiler} -MMD -MF $out.d {host} -c $in -o $out",
        " depfile = $out.d\n deps = gcc",
        "rule link",
        # the static CUDA runtime stays private: torch brings one of its own
        f" command = {nvcc} -ccbin {compiler} -shared -cudart static -Xlinker --exclude-libs=ALL $in -o $out",
    ]
    objects = {f"{Path(source).stem}.o": source for source in CUDA_SOURCES}
    lines += [f"build {name}: nvcc {escape(CSRC / source)}" for name, source in objects.items()]
    lines.append(f"build bindings.o: cxx {escape(CSRC / 'bindings' / 'cuda.cpp')}")
    lines.append(f"build {escape(target)}: link bindings.o {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def cpu_ninja_file(compiler, target, version):
    """The text of build.ninja for the CPU core."""
    windows = os.name == "nt"
    flags, isas, link = msvc_toolchain(version) if windows else unix_toolchain(compiler, version)
    include = " ".join(f'-I"{path}"' for path in includes())
    if windows:
        compile_command = f'"{compiler}" {" ".join(flags)} {include} $extra /c $in /Fo$out'
        libs = Path(sysconfig.get_config_var("installed_base") or sys.base_prefix) / "libs"
        link_command = f'"{compiler}" {" ".join(link)} $in /Fe$out /link /LIBPATH:"{libs}"'
        dependencies = " deps = msvc"
    else:
        compile_command = f"{compiler} -MMD -MF $out.d {' '.join(flags)} {include} $extra -c $in -o $out"
        link_command = f"{compiler} $in {' '.join(link)} -o $out"
        dependencies = " depfile = $out.d\n deps = gcc"
    objects = {f"{Path(source).stem}.o": (source, []) for source in CPU_SOURCES}
    objects |= {
        f"kernels_{isa}.o": ("cpu/kernels.cpp", [f"-DFASTSNN_ISA={isa}", *extra]) for isa, extra in isas.items()
    }
    lines = [
        "rule cxx",
        f" command = {compile_command}",
        dependencies,
        "rule link",
        f" command = {link_command}",
    ]
    for name, (source, extra) in objects.items():
        lines += [f"build {name}: cxx {escape(CSRC / source)}", f" extra = {' '.join(extra)}"]
    lines.append(f"build {escape(target)}: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def escape(path):
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


class NinjaBuild(build_ext):
    def build_extension(self, ext):
        compiler = find_compiler()
        if compiler is None:
            sys.exit(NO_COMPILER)
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(self.build_temp).resolve() / ext.name
        folder.mkdir(parents=True, exist_ok=True)
        version = self.distribution.get_version()
        cuda = ext.name == "fastsnn._cuda"
        text = cuda_ninja_file(compiler, NVCC, target, version) if cuda else cpu_ninja_file(compiler, target, version)
        (folder / "build.ninja").write_text(text)
        subprocess.run([sys.executable, "-m", "ninja", "-C", str(folder)], check=True)


if PURE_PYTHON:
    print(
        "*" * 88,
        "\nfastsnn: FASTSNN_PURE_PYTHON=1, the native core is NOT built.\n" + "*" * 88,
        file=sys.stderr,
    )

NVCC = None if PURE_PYTHON or os.name == "nt" else find_nvcc()
CORES = [] if PURE_PYTHON else ["fastsnn._cpu", *(["fastsnn._cuda"] if NVCC else [])]

setup(
    packages=[
        *find_packages(include=["fastsnn", "fastsnn.*"]),
        "fastsnn._triton",
        "fastsnn._bench",
        "fastsnn._bench.device",
    ],
    package_dir={"fastsnn._triton": "triton_kernels", "fastsnn._bench": "bench"},
    ext_modules=[Extension(name, []) for name in CORES],
    cmdclass={"build_ext": NinjaBuild},
)
