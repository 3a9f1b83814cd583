/// A fuzzing target: whatever a file holds, opening it, reading all of it and running it as a model ends in an answer or in a
/// Failure.

import Glibc

/// In memory, and each process its own.
private let path = "/dev/shm/swiftattn-fuzz-\(getpid())"

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let descriptor = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0o600)
    defer { close(descriptor) }
    guard descriptor >= 0, write(descriptor, data, size) == size else { return 0 }
    readAll(path)
    runModel(path)
    return 0
}

private func readAll(_ path: String) {
    guard let file = try? GGUFFile(path: path) else { return }
    for entry in file.entries {
        _ = try? file.integers(entry)
        _ = try? file.numbers(entry)
        _ = try? file.strings(entry)
    }
    for tensor in file.tensors where tensor.shape.reduce(1, { $0.multipliedReportingOverflow(by: $1).partialValue }) < 1 << 20 {
        guard tensor.shape.allSatisfy({ $0 < 1 << 20 }), tensor.format != nil, let buffer = try? FloatBuffer(tensor.shape.reduce(1, *))
        else { continue }
        try? file.load(tensor, into: Tensor(data: buffer.pointer, dtype: .float32, shape: tensor.shape))
    }
    _ = try? LlamaConfig(file)
}

private func runModel(_ path: String) {
    var options = ModelOptions()
    options.context = 8
    guard let model = try? LlamaModel(path: path, options: options), model.config.vocabulary < 1 << 16,
          let logits = try? FloatBuffer(model.config.vocabulary) else { return }
    let out = Tensor(data: logits.pointer, dtype: .float32, shape: [model.config.vocabulary])
    try? model.prefill(0, [0, 1, 2], logits: out)
    try? model.step([1])
}
