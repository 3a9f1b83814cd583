/// How many threads a piece of work is worth.

import CAttnKernels

/// Below this many floating-point operations for each thread, waking it costs more than it saves.
private let flopsPerThread = 200_000.0

/// Of the threads that are set, as many as have enough to do.
func threadCount(flops: Double) -> Int {
    Int(max(1, min(Double(attn_get_num_threads()), flops / flopsPerThread)))
}
