"""Builds the native core with ninja. It includes no torch header, so one build serves every torch."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

CSRC = Path(__file__).parent.resolve() / "csrc"
SOURCES = ["bindings/cpu.cpp", "cpu/dispatch.cpp"]
X86 = platform.machine().lower() in ("x86_64", "amd64")
PURE_PYTHON = os.environ.get("FASTSNN_PURE_PYTHON") == "1"

NO_COMPILER = (
    "fastsnn needs a C++17 compiler (g++ or clang++; cl.exe on Windows) and found none: install one, "
    "set CXX, or set FASTSNN_PURE_PYTHON=1 to install the slow pure-PyTorch reference alone."
)


def find_compiler():
    """Path of the C++ compiler, or None."""
    names = ["cl.exe"] if os.name == "nt" else ["c++", "g++", "clang++"]
    chosen = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, [chosen] if chosen else names)), None)


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


def ninja_file(compiler, target, version):
    """The text of build.ninja for the extension at `target`."""
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
    objects = {f"{Path(source).stem}.o": (source, []) for source in SOURCES}
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
        folder = Path(self.build_temp).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.ninja").write_text(ninja_file(compiler, target, self.distribution.get_version()))
        subprocess.run([sys.executable, "-m", "ninja", "-C", str(folder)], check=True)


if PURE_PYTHON:
    print(
        "*" * 88,
        "\nfastsnn: FASTSNN_PURE_PYTHON=1, the native core is NOT built.\n" + "*" * 88,
        file=sys.stderr,
    )

setup(
    packages=[*find_packages(include=["fastsnn", "fastsnn.*"]), "fastsnn._triton", "fastsnn._bench"],
    package_dir={"fastsnn._triton": "triton_kernels", "fastsnn._bench": "bench"},
    ext_modules=[] if PURE_PYTHON else [Extension("fastsnn._cpu", [])],
    cmdclass={"build_ext": NinjaBuild},
)
