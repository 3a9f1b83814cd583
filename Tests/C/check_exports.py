"""Holds libswiftattn.so to its header: exported names, needed libraries, and that the header compiles alone."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "include" / "swiftattn.h"
LIBRARY = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build" / "release" / "libswiftattn.so")

NEEDED = re.compile(r"(libc|libm|libstdc\+\+|libgcc_s|libomp|ld-linux[-\w]*|libpthread|libdl)\.so(\.\d+)?")


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def declared_functions() -> set[str]:
    code = re.sub(r"/\*.*?\*/", " ", HEADER.read_text(), flags=re.DOTALL)
    code = re.sub(r"^[ \t]*#.*(\\\n.*)*$", "", code, flags=re.MULTILINE)
    return set(re.findall(r"\b(swiftattn_\w+)\s*\([^()]*\)\s*;", code))


def exported_names() -> set[str]:
    lines = output("nm", "-D", "--defined-only", str(LIBRARY)).splitlines()
    return {line.split()[-1].split("@")[0] for line in lines}


def dynamic_entries(tag: str) -> list[str]:
    return re.findall(rf"\({tag}\).*\[(.*)\]", output("readelf", "-d", str(LIBRARY)))


def nothing_missing() -> str:
    missing = declared_functions() - exported_names()
    return f"declared but not exported: {', '.join(sorted(missing))}" if missing else ""


def nothing_extra() -> str:
    extra = exported_names() - declared_functions()
    return f"exported but not declared: {', '.join(sorted(extra))}" if extra else ""


def declarations_are_found() -> str:
    """An empty list would make the comparison above say nothing."""
    mentioned = set(re.findall(r"^(?:int32_t|void|const char \*) ?\*?(swiftattn_\w+)\(", HEADER.read_text(), re.MULTILINE))
    return "" if mentioned and mentioned == declared_functions() else f"{sorted(mentioned ^ declared_functions())}"


def needs_only_system_libraries() -> str:
    other = [name for name in dynamic_entries("NEEDED") if not NEEDED.fullmatch(name)]
    return f"needs {', '.join(other)}" if other else ""


def searches_no_machine_path() -> str:
    paths = [path for entry in ("RPATH", "RUNPATH") for value in dynamic_entries(entry) for path in value.split(":")]
    foreign = [path for path in paths if not path.startswith("$ORIGIN")]
    return f"searches {', '.join(foreign)}" if foreign else ""


def compiles(compiler: str, language: str, standard: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / ("alone.c" if language == "c" else "alone.cpp")
        source.write_text("#include <swiftattn.h>\n#include <swiftattn.h>\nint after_the_header;\n")
        command = [compiler, f"-std={standard}", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        done = subprocess.run([*command, f"-I{HEADER.parent}", str(source)], capture_output=True, text=True)
        return done.stderr.strip()


def main() -> int:
    cc, cxx = os.environ.get("CC", "cc"), os.environ.get("CXX", "c++")
    checks = {
        "exports: the header's declarations are found": declarations_are_found,
        "exports: every declared function is exported": nothing_missing,
        "exports: nothing else is exported": nothing_extra,
        "exports: only system libraries are needed": needs_only_system_libraries,
        "exports: no machine path is searched": searches_no_machine_path,
        "header: compiles alone as C99": lambda: compiles(cc, "c", "c99"),
        "header: compiles alone as C17": lambda: compiles(cc, "c", "c17"),
        "header: compiles alone as C++11": lambda: compiles(cxx, "c++", "c++11"),
        "header: compiles alone as C++20": lambda: compiles(cxx, "c++", "c++20"),
    }
    failed = 0
    for name, check in checks.items():
        problem = check()
        failed += bool(problem)
        print(f"FAIL  {name}: {problem}" if problem else f"pass  {name}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
