/// Tokens, and where they stand, as rows.

/// How positions are added to the rows of tokens; `Positions` of the layers are another matter.
public enum TokenPositions: Int32, Sendable {
    case none = 0
    /// `sinusoidalPositions`.
    case sinusoidal = 1
    /// A table of `maxPositions` rows.
    case learned = 2
}

/// What a `TokenEmbedding` is made of; E is the width of the layers, W that of the tables.
public struct TokenEmbeddingOptions: Sendable {
    public var vocabulary: Int
    /// W; nil is E. Another one goes through a projection to E.
    public var embeddingDim: Int?
    public var positions = TokenPositions.none
    /// Longest sequence, of learned positions.
    public var maxPositions = 512
    /// Row of the position table that the first token of a sequence takes.
    public var firstPosition = 0
    /// Kinds of tokens (segments), each with a row of its own; 0 is none.
    public var types = 0
    /// A norm of the layers' kind over the sum.
    public var hasNorm = false

    public init(vocabulary: Int) { self.vocabulary = vocabulary }

    func validated() throws(Failure) -> TokenEmbeddingOptions {
        let largest = MultiheadAttentionOptions.largest
        for (name, size) in [("vocab_size", vocabulary), ("embedding_dim", embeddingDim ?? 1)] where !(1...largest).contains(size) {
            throw .argument("\(name): expected 1 to \(largest), got \(size)")
        }
        guard (0...largest).contains(types) else { throw .argument("type_vocab_size: expected 0 to \(largest), got \(types)") }
        if positions == .learned {
            guard (1...largest).contains(maxPositions) else {
                throw .argument("max_positions: expected 1 to \(largest), got \(maxPositions)")
            }
            guard (0..<maxPositions).contains(firstPosition) else {
                throw .argument("first_position: expected 0 to \(maxPositions - 1), got \(firstPosition)")
            }
        }
        return self
    }
}

/// projection(norm(table[id] + positions[t] + types[type])).
///
/// Parameters: weight (V, W); positions.weight (maxPositions, W) if learned; types.weight (types, W); norm.*; projection.weight
/// (E, W), projection.bias (E,) where W is not E.
final class TokenEmbedding: Module, @unchecked Sendable {
    let options: TokenEmbeddingOptions
    let table: Parameter
    private let width: Int
    /// Of dropout in training.
    private let p: Double
    private let positionTable, typeTable: Parameter?
    private let norm: Norm?
    private let projection: Linear?
    private let waves: PositionWaves?

    init(_ given: TokenEmbeddingOptions, _ layer: LayerOptions) throws(Failure) {
        options = try given.validated()
        width = options.embeddingDim ?? layer.width
        let dtype = layer.dtype, isLearned = options.positions == .learned
        p = layer.dropout
        table = try Parameter(dtype, [options.vocabulary, width], .table)
        positionTable = isLearned ? try Parameter(dtype, [options.maxPositions, width], .table) : nil
        typeTable = options.types > 0 ? try Parameter(dtype, [options.types, width], .table) : nil
        norm = options.hasNorm ? try Norm(layer.norm, width: width, eps: layer.eps, hasBias: layer.hasBias, dtype: dtype) : nil
        projection = width == layer.width ? nil : try Linear(width, layer.width, hasBias: true, dtype: dtype)
        waves = options.positions == .sinusoidal ? PositionWaves(width: width, dtype: dtype) : nil
        super.init([("weight", table), ("positions.weight", positionTable), ("types.weight", typeTable)],
                   children: [("norm", norm), ("projection", projection)])
    }

    /// ids (B, T), the first of each at position `first`, or packed (rows,) with the offsets `starts` -> (B, T, E), (rows, E).
    func callAsFunction(_ ids: Tensor, types: Tensor?, starts: [Int]? = nil, from first: Int = 0, out: Tensor? = nil,
                        _ pass: Pass) throws(Failure) -> Value {
        var shape = ids.shape
        shape.append(width)
        let sum = try pass.target(table.tensor.dtype, shape, norm == nil && projection == nil ? out : nil)
        var residual: Tensor?
        var places: (ids: Tensor, memory: Value)?
        let longest = first + (starts.map { zip($0, $0.dropFirst()).map { $1 - $0 }.max() ?? 0 } ?? ids.shape[1])
        if let rows = try positionRows(longest) {
            let own = try self.places(ids, starts, from: first, pass)
            try embedding(own.ids, table: rows.tensor, out: sum.tensor)
            places = own
            residual = sum.tensor
        }
        if let typeTable {
            try embedding(types ?? TokenEmbedding.zeros(like: ids), table: typeTable.tensor, residual: residual, out: sum.tensor)
            residual = sum.tensor
        } else if types != nil {
            throw .argument("type_ids: expected NULL, the module has no types")
        }
        try embedding(ids, table: table.tensor, residual: residual, out: sum.tensor)
        try record(ids, types, places, sum, pass)
        let normed = try norm.map { (norm) throws(Failure) in try norm(sum, out: projection == nil ? out : nil, pass) } ?? sum
        let projected = try projection.map { (projection) throws(Failure) in try projection(normed, out: out, pass) } ?? normed
        return try pass.dropout(projected, p)
    }

    /// In training: the sum's gradient goes to the rows of all three tables.
    private func record(_ ids: Tensor, _ types: Tensor?, _ places: (ids: Tensor, memory: Value)?, _ sum: Value,
                        _ pass: Pass) throws(Failure) {
        guard let tape = pass.tape else { return }
        let kept = try pass.keep(ids), keptTypes = try types.map { (types) throws(Failure) in try pass.keep(types) }
        var gathers: [(table: Parameter, ids: Tensor)] = [(table, kept.tensor)]
        if let positionTable, let places { gathers.append((positionTable, places.ids)) }
        if let typeTable { gathers.append((typeTable, keptTypes?.tensor ?? TokenEmbedding.zeros(like: kept.tensor))) }
        tape.record { [unowned pass, gathers] () throws(Failure) in
            guard let gradient = sum.takeGradient() else { return }
            try withExtendedLifetime((kept, keptTypes, places)) { () throws(Failure) in
                for (table, ids) in gathers {
                    let target = try pass.target(of: table.all)
                    try embeddingBackward(gradOut: gradient.tensor, ids: ids, dtable: target.tensor)
                    target.finish()
                }
            }
        }
    }

    /// The table of positions, of at least `length` rows; nil without positions.
    private func positionRows(_ length: Int) throws(Failure) -> Parameter? {
        switch options.positions {
        case .none: return nil
        case .sinusoidal: return try waves!.rows(length)
        case .learned:
            guard length <= options.maxPositions - options.firstPosition else {
                throw .shape("ids: a sequence has \(length) tokens, the module positions for "
                    + "\(options.maxPositions - options.firstPosition)")
            }
            return positionTable
        }
    }

    /// The position of each token, as ids.
    private func places(_ ids: Tensor, _ starts: [Int]?, from first: Int, _ pass: Pass) throws(Failure)
        -> (ids: Tensor, memory: Value) {
        let base = options.firstPosition + first
        let count = starts == nil ? ids.shape[1] : ids.shape[0]
        let value = try pass.value(.int32, [count])
        let numbers = value.tensor.data!.bindMemory(to: Int32.self, capacity: count)
        for (start, end) in starts.map({ zip($0, $0.dropFirst()).map { ($0, $1) } }) ?? [(0, count)] {
            for row in start..<end { numbers[row] = Int32(base + row - start) }
        }
        return (starts == nil ? value.tensor.reshaped(Array(ids.shape), strides: [0, 1]) : value.tensor, value)
    }

    /// An id of 0 for each token.
    private static func zeros(like ids: Tensor) -> Tensor {
        Tensor(data: UnsafeMutableRawPointer(zero), dtype: .int32, shape: ids.shape,
               strides: Dims(repeating: 0, count: ids.rank))
    }

    nonisolated(unsafe) private static let zero: UnsafeMutablePointer<Int32> = {
        let place = UnsafeMutablePointer<Int32>.allocate(capacity: 1)
        place.initialize(to: 0)
        return place
    }()
}

/// A table of sinusoidal positions that grows with the longest sequence met.
private final class PositionWaves: @unchecked Sendable {
    private let width: Int
    private let dtype: DType
    private let lock = Lock()
    private var table: Parameter?

    init(width: Int, dtype: DType) {
        self.width = width
        self.dtype = dtype
    }

    /// Of at least so many rows.
    func rows(_ length: Int) throws(Failure) -> Parameter {
        try lock.locked { () throws(Failure) in
            if let table, table.tensor.shape[0] >= length { return table }
            let fresh = try Parameter(dtype, [max(length, 2 * (table?.tensor.shape[0] ?? 256)), width])
            try sinusoidalPositions(out: fresh.tensor)
            table = fresh
            return fresh
        }
    }
}
