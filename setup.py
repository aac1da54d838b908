"""Builds the native cores with ninja. They include no torch header, so one build serves every torch."""

import ctypes
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
    f"cuda/{name}.cu" for name in ("osr", "lif_forward", "lif_backward", "standardize", "empf", "binary", "mpdr", "ots")
]
CUDA_ARCHS = ["75", "80", "86", "89", "90", "100", "120"]
SAME_PTX = {
    "86": "80",
    "89": "80",
}  # their machine code is the same from that one's PTX, which is two thirds of the work
X86 = platform.machine().lower() in ("x86_64", "amd64")
PURE_PYTHON = os.environ.get("FASTSNN_PURE_PYTHON") == "1"

NO_COMPILER = (
    "fastsnn needs a C++17 compiler (g++ or clang++; cl.exe on Windows) and found none: install one (on Debian and "
    "Ubuntu: apt install g++), set CXX, or set FASTSNN_PURE_PYTHON=1 to install the slow pure-PyTorch reference alone."
)
NO_HEADERS = (
    "fastsnn needs Python's headers and there is no {}: install them (on Debian and Ubuntu: apt install python3-dev), "
    "or set FASTSNN_PURE_PYTHON=1 to install the slow pure-PyTorch reference alone."
)
NO_NVCC = (
    "{} asks for the CUDA core and there is no nvcc: install the CUDA toolkit and put nvcc on PATH "
    "(or set CUDA_HOME), or unset {} to build without it."
)
MEND = "mend the CUDA toolkit, name another with CUDA_HOME, or set FASTSNN_CUDA=0 to build without the CUDA core."
LEFT_OUT = (
    "fastsnn: {}, so the CUDA core is left out; with nvcc on PATH (or CUDA_HOME), FASTSNN_CUDA=1 builds it for every "
    'architecture, FASTSNN_CUDA_ARCHS="80;90" for these.'
)
FULL = "fastsnn: the disk is full: free some space in {} (or set TMPDIR to another disk) and install again."
FAILED = {
    "fastsnn._cpu": "fastsnn: {compiler} could not compile the CPU core, see its messages above: use g++ 9 or clang "
    "10, or newer (CXX names one), or set FASTSNN_PURE_PYTHON=1 to install the slow pure-PyTorch reference alone.",
    "fastsnn._cuda": "fastsnn: {nvcc} could not compile the CUDA core, see its messages above: mend the CUDA toolkit, "
    "name another with CUDA_HOME, or set FASTSNN_CUDA=0 to build without it.",
}


def find_compiler():
    """Path of the C++ compiler; exits with one sentence without it, or without Python's headers."""
    names = ["cl.exe"] if os.name == "nt" else ["c++", "g++", "clang++"]
    chosen = os.environ.get("CXX")
    found = next(filter(None, map(shutil.which, [chosen] if chosen else names)), None)
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if found is None or not header.exists():
        sys.exit(NO_HEADERS.format(header) if found else NO_COMPILER)
    return found


def find_nvcc():
    """Path of nvcc, or None."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=str(Path(home) / "bin")) if home else shutil.which("nvcc")


def cuda_build():
    """(nvcc, architectures) of the CUDA core, or None where there shall be none."""
    wanted, archs = os.environ.get("FASTSNN_CUDA", ""), os.environ.get("FASTSNN_CUDA_ARCHS", "")
    if wanted not in ("", "0", "1"):
        sys.exit(f"FASTSNN_CUDA is {wanted!r}; allowed: 1 (CUDA core or fail), 0 (without), unset (if there is a GPU)")
    if PURE_PYTHON and (archs or wanted == "1"):
        sys.exit("FASTSNN_PURE_PYTHON=1 asks for no core and FASTSNN_CUDA or FASTSNN_CUDA_ARCHS for one: unset either.")
    if PURE_PYTHON or os.name == "nt" or wanted == "0":
        return None
    nvcc = find_nvcc()
    if archs or wanted:
        if nvcc is None:
            asked = "FASTSNN_CUDA_ARCHS" if archs else "FASTSNN_CUDA=1"
            sys.exit(NO_NVCC.format(asked, asked.partition("=")[0]))
        return nvcc, chosen_archs(nvcc, archs) if archs else all_archs(nvcc)
    seen = visible_archs()
    found = nearest_archs(nvcc, seen) if nvcc and seen else []
    if not found:
        why = "no NVIDIA GPU is visible"
        if seen:
            lacking = f"{nvcc} is too new for it" if nvcc else "there is no nvcc"
            why = f"a GPU of compute capability {', '.join(seen)} is visible and {lacking}"
        print(LEFT_OUT.format(why), file=sys.stderr)
    return (nvcc, found) if found else None


def known_archs(nvcc):
    """Those that this nvcc can compile for."""
    try:
        said = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"fastsnn: {nvcc} does not run ({error}): {MEND}")
    found = re.findall(r"compute_(\w+)", said)
    if not found:
        sys.exit(f"fastsnn: {nvcc} names no architecture that it compiles for: {MEND}")
    return found


def all_archs(nvcc):
    """Those of CUDA_ARCHS that this nvcc knows."""
    known = known_archs(nvcc)
    archs = [arch for arch in CUDA_ARCHS if arch in known]
    if not archs:
        sys.exit(f"fastsnn: {nvcc} knows {';'.join(known)} and none of {';'.join(CUDA_ARCHS)}: {MEND}")
    return archs


def chosen_archs(nvcc, text):
    """Those of FASTSNN_CUDA_ARCHS, such as "80;90"."""
    archs, known = re.findall(r"[^;, ]+", text.replace(".", "")), known_archs(nvcc)
    if not archs or not {*archs} <= {*known}:
        sys.exit(f"FASTSNN_CUDA_ARCHS is {text!r} and {nvcc} knows {';'.join(known)}: choose from these.")
    return archs


def visible_archs():
    """Of the GPUs that the driver shows, such as ["90"]."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []

    def attribute(which):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), which, device)
        return value.value

    found = set()
    for index in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), index)
        found.add(f"{attribute(75)}{attribute(76)}")  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
    return sorted(found, key=int)


def nearest_archs(nvcc, seen):
    """For each, itself or the newest before it that this nvcc knows: the driver compiles its PTX."""
    known = [int(arch) for arch in known_archs(nvcc) if arch.isdigit()]
    older = [[arch for arch in known if arch <= int(of)] for of in seen]
    return [str(arch) for arch in sorted({max(archs) for archs in older if archs})]


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
        isas["generic"] = ["-O2", "-ftree-vectorize"]  # for processors before AVX2: compiled in two thirds of the time
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


def cuda_flags(compiler, archs):
    """nvcc's flags: machine code for each architecture, PTX of the last for those to come."""
    flags = [f"-ccbin {compiler}", "-std=c++17", "-O3", "-fmad=false", "-Xfatbin -compress-all", "-cudart static"]
    code = {}  # by the architecture of the PTX
    for arch in archs:
        ptx = SAME_PTX.get(arch)
        code.setdefault(ptx if ptx in archs else arch, []).append(f"sm_{arch}")
    *_, last = code
    code[last].append(f"compute_{last}")
    flags += [f"-gencode 'arch=compute_{ptx},code=[{','.join(wanted)}]'" for ptx, wanted in code.items()]
    flags.append("-Xcompiler -fPIC,-fvisibility=hidden,-ffp-contract=off")
    return flags


def cuda_ninja_file(compiler, nvcc, archs, target, version):
    """The text of build.ninja for the CUDA core."""
    flags = cuda_flags(compiler, archs)
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
    if windows:
        compile_command = f'"{compiler}" {" ".join(flags)} $extra /c $in /Fo$out'
        libs = Path(sysconfig.get_config_var("installed_base") or sys.base_prefix) / "libs"
        link_command = f'"{compiler}" {" ".join(link)} $in /Fe$out /link /LIBPATH:"{libs}"'
        dependencies = " deps = msvc"
    else:
        compile_command = f"{compiler} -MMD -MF $out.d {' '.join(flags)} $extra -c $in -o $out"
        link_command = f"{compiler} $in {' '.join(link)} -o $out"
        dependencies = " depfile = $out.d\n deps = gcc"
    # the longest first: ninja begins in this order
    objects = {
        f"kernels_{isa}.o": ("cpu/kernels.cpp", [f"-DFASTSNN_ISA={isa}", *extra])
        for isa, extra in reversed(isas.items())
    }
    # pip installs pybind11 elsewhere at each build: what needs no header of it is not compiled again
    headers = {"bindings/cpu.cpp": [f'-I"{path}"' for path in includes()]}
    objects |= {f"{Path(source).stem}.o": (source, headers.get(source, [])) for source in CPU_SOURCES}
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


def ninja(folder, text, failed):
    """Build what `text`, a build.ninja, says in `folder`; exits with one sentence where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.ninja").write_text(text)
    except OSError as error:
        sys.exit(
            f"fastsnn: cannot write to {folder} ({error.strerror}): free some space or set TMPDIR to another disk."
        )
    command = [sys.executable, "-m", "ninja", "-C", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = []
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
    if process.returncode:
        sys.exit(FULL.format(folder) if "No space left on device" in "".join(said) else failed)


class NinjaBuild(build_ext):
    def build_extension(self, ext):
        compiler = find_compiler()
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        version = self.distribution.get_version()
        if ext.name == "fastsnn._cuda":
            nvcc, archs = CUDA
            text = cuda_ninja_file(compiler, nvcc, archs, target, version)
        else:
            nvcc, text = None, cpu_ninja_file(compiler, target, version)
        folder = Path(self.build_temp).resolve() / ext.name
        ninja(folder, text, FAILED[ext.name].format(compiler=compiler, nvcc=nvcc))


if PURE_PYTHON:
    print(
        "*" * 88,
        "\nfastsnn: FASTSNN_PURE_PYTHON=1, the native core is NOT built.\n" + "*" * 88,
        file=sys.stderr,
    )

if not PURE_PYTHON and not {"sdist", "egg_info"} & {*sys.argv}:
    find_compiler()  # before pip downloads what fastsnn needs
CUDA = cuda_build()
CORES = [] if PURE_PYTHON else ["fastsnn._cpu", *(["fastsnn._cuda"] if CUDA else [])]

OUTSIDE = ["fastsnn._triton", "fastsnn._triton.rules", "fastsnn._bench", "fastsnn._bench.device"]
TEXTS = ["fastsnn.equations"]  # no modules

setup(
    packages=[*find_packages(include=["fastsnn", "fastsnn.*"]), *TEXTS, *OUTSIDE],
    package_dir={"fastsnn._triton": "triton_kernels", "fastsnn._bench": "bench"},
    ext_modules=[Extension(name, []) for name in CORES],
    cmdclass={"build_ext": NinjaBuild},
)
