// swift-tools-version: 6.0
import Foundation
import PackageDescription

// Swift's clang ships neither omp.h nor libomp: take Debian's (libomp-dev), whichever LLVM version it belongs to.
let llvm = (try? FileManager.default.contentsOfDirectory(atPath: "/usr/lib"))?
    .filter { $0.hasPrefix("llvm-") && FileManager.default.fileExists(atPath: "/usr/lib/\($0)/lib/libomp.so") }
    .sorted { Int($0.dropFirst(5)) ?? 0 < Int($1.dropFirst(5)) ?? 0 }.last.map { "/usr/lib/\($0)/lib" }
let llvmIncludes = llvm.flatMap { lib in
    (try? FileManager.default.contentsOfDirectory(atPath: "\(lib)/clang"))?.map { "\(lib)/clang/\($0)/include" }
        .first { FileManager.default.fileExists(atPath: "\($0)/omp.h") }
}

let openMP: [String] = ["-fopenmp"]  // SwiftPM has no setting for OpenMP
    // -idirafter: omp.h comes from here, but the compiler's own intrinsics headers still win
    + (llvmIncludes.map { ["-idirafter", $0] } ?? [])
let linkOpenMP: [LinkerSetting] = [.linkedLibrary("omp")]
    // libomp.so lies in LLVM's own folder; its soname (libomp.so.5) is on the loader's path
    + (llvm.map { [.unsafeFlags(["-L\($0)"])] } ?? [])

let package = Package(
    name: "swiftattn",
    products: [
        .library(name: "swiftattn", type: .dynamic, targets: ["SwiftAttnExports"]),
        .library(name: "SwiftAttn", targets: ["SwiftAttn"]),
    ],
    targets: [
        .target(name: "CSwiftAttn", path: "include", publicHeadersPath: "."),
        .target(
            name: "CAttnKernels",
            cSettings: [
                // -O3: unrolls the register tiles; hidden: nothing of the kernels leaves the shared library;
                // -fno-math-errno: sqrt and exp2 become instructions or plain calls
                .unsafeFlags(["-O3", "-fvisibility=hidden", "-fno-math-errno", "-Wall", "-Wextra"] + openMP)
            ],
            linkerSettings: linkOpenMP),
        .target(name: "SwiftAttn", dependencies: ["CAttnKernels"]),
        .target(
            name: "SwiftAttnExports", dependencies: ["SwiftAttn", "CSwiftAttn"], exclude: ["exports.map"],
            linkerSettings: [
                // lld, because gold leaves local Swift symbols among the exports, which are to be exactly the header's functions;
                // --strip-all: two fifths of the file are symbols that nobody can link to
                .unsafeFlags([
                    "-use-ld=lld", "-Xlinker", "--strip-all", "-Xlinker",
                    "--version-script=\(Context.packageDirectory)/Sources/SwiftAttnExports/exports.map",
                ])
            ]),
        .testTarget(
            name: "SwiftAttnTests", dependencies: ["SwiftAttn", "SwiftAttnExports", "CSwiftAttn"], exclude: ["run.sh"]),
    ],
    cLanguageStandard: .c17
)
