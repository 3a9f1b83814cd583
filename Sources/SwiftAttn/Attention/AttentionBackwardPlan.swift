/// The only place with heuristics of the attention backward. Nothing here changes a result.

import CAttnKernels

struct AttentionBackwardPlan {
    private(set) var description = attn_backward_plan()

    /// Two passes compute the scores and the products with v twice: 7 products for 5.
    private static let costOfTwoPasses = 7.0 / 5

    /// Numbers the sequences' tasks.
    init(_ problem: inout AttentionProblem, _ gradients: AttentionGradients) {
        let p = problem.description
        let flops = problem.scoreCount * Double(6 * p.head_dim + 4 * p.value_dim)
        let threads = Double(threadCount(flops: flops))
        description.threads = Int32(threads)

        /* One task for each key/value head: how much longer than a fair share do the threads take? */
        let work = problem.sequences.map { Double($0.q_rows) * Double($0.kv_len) }
        let total = work.reduce(0, +) * Double(p.kv_heads), largest = work.max() ?? 0
        let count = Double(problem.sequences.count) * Double(p.kv_heads)
        let rounds = (count / threads).rounded(.up) * threads / max(count, 1)
        let stretch = max(rounds, total > 0 ? largest * threads / total : 1)
        description.one_pass = stretch <= Self.costOfTwoPasses

        var tasks: Int64 = 0
        let plan = description
        let counts: [Int64] = problem.withDescription { forward in
            var backward = attn_backward()
            backward.problem = forward
            backward.wants_dq = gradients.dq != nil
            backward.wants_dk = gradients.dk != nil
            backward.wants_dv = gradients.dv != nil
            return (0..<Int(forward.pointee.sequence_count)).map { b in
                withUnsafePointer(to: plan) { attn_backward_tasks(&backward, $0, forward.pointee.sequences + b) }
            }
        }
        for b in counts.indices {
            problem.sequences[b].first_task = tasks
            tasks += counts[b]
        }
        description.task_count = tasks
    }
}
