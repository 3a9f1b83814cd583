/// Version, instruction set and threads of the library.

import CAttnKernels

public enum Library {
    public static let version = "0.1.0"

    /// "avx512", "avx2", "neon" or "portable"; nil if the environment variable SWIFTATTN_ISA cannot be obeyed.
    public static var isa: String? { attn_isa_name().map { String(cString: $0) } }

    /// What the machine has among the features that have kernels of their own: "avx2", "avx512", "avx512_vnni", "avx512_bf16",
    /// "amx", "neon".
    public static var features: [String] {
        Array(sequence(state: Int32(0)) { n in
            defer { n += 1 }
            return attn_cpu_feature(n).map { String(cString: $0) }
        })
    }

    /// Threads that a call may use, 1 to 1024; 0 sets the default.
    public static func setThreadCount(_ count: Int) throws(Failure) {
        guard (0...1024).contains(count) else {
            throw .argument("threads: expected 0 to 1024, got \(count)")
        }
        attn_set_num_threads(Int32(count))
    }

    public static var threadCount: Int { Int(attn_get_num_threads()) }

    /// Every computing function begins with this.
    static func requireKernels() throws(Failure) {
        guard attn_isa_name() != nil else { throw Failure(.unsupportedISA, String(cString: attn_isa_error())) }
    }
}
