/// The only place with heuristics of attention: how a problem is cut into tasks. Nothing here changes a result.

import CAttnKernels

struct AttentionPlan {
    private(set) var description = attn_plan()

    /// Below this many keys for each query a tile is not worth sharing.
    private static let fewestKeysToSplit = 1000.0

    /// Each thread has heads of its own at a time, in so many tiles at least: a line of k that two cores read at the same
    /// time comes from the other one's cache, which is slower; and the last ones share out the rest evenly.
    private static let tilesOfThread = 4

    /// Numbers the sequences' tasks.
    init(_ problem: inout AttentionProblem) {
        let lanes = Int(attn_tile_rows(&problem.description))
        let group = Int(problem.description.q_heads / problem.description.kv_heads)
        let rows = min(lanes, problem.longestQuery)
        let heads = min(group, lanes / rows)
        let headTiles = Int(problem.description.kv_heads) * ((group + heads - 1) / heads)
        var tasks = 0
        for b in problem.sequences.indices {
            problem.sequences[b].first_task = Int64(tasks)
            tasks += headTiles * ((Int(problem.sequences[b].q_rows) + rows - 1) / rows)
        }
        let flops = 2 * problem.scoreCount * Double(problem.description.head_dim + problem.description.value_dim)
        description.heads_per_tile = Int64(heads)
        description.rows_per_tile = Int64(rows)
        description.task_count = Int64(tasks)
        let threads = threadCount(flops: flops)
        description.threads = Int32(threads)
        let rowTiles = max((problem.longestQuery + rows - 1) / rows, 1)
        description.heads_together = Int64(threads * ((Self.tilesOfThread + rowTiles - 1) / rowTiles))
        /* A tile that is left over while the other threads wait costs a share of 1 / tasks; chunks of keys share it out. */
        description.split_keys = threads > 1 && tasks < 4 * threads && tasks % threads != 0
            && problem.scoreCount / Double(tasks * rows * heads) >= Self.fewestKeysToSplit
    }
}
