/// Blocks with parameters.

import CAttnKernels
import Glibc

/// A trained tensor, contiguous and owned; zeros at first. Products read it as packed on first use, until `changed()`.
public final class Parameter: @unchecked Sendable {
    public let tensor: Tensor
    let role: Role
    /// Set while the gradient holds the sum of backwards.
    var hasGradient = false
    var gradientStore: Parameter?
    private let lock = Lock()
    private var packs: [Range<Int>: PackedWeight] = [:]

    /// What a parameter is for, which decides how it begins.
    enum Role {
        case matrix, table, bias, scale
    }

    /// Without a role a vector is a bias, anything else a matrix.
    init(_ dtype: DType, _ shape: Dims, _ role: Role? = nil) throws(Failure) {
        self.role = role ?? (shape.count == 1 ? .bias : .matrix)
        let bytes = try shape.bytes(of: dtype)
        guard bytes < 1 << 56, let memory = attn_allocate(max(bytes, 1)) else { throw Failure.outOfMemory }
        memset(memory, 0, bytes)
        tensor = Tensor(data: memory, dtype: dtype, shape: shape)
    }

    deinit { attn_free(tensor.data) }

    var all: ParameterRows { self[0..<tensor.shape[0]] }
    subscript(rows: Range<Int>) -> ParameterRows { ParameterRows(parameter: self, range: rows) }

    fileprivate func packed(_ rows: ParameterRows) throws(Failure) -> PackedWeight {
        try lock.locked { () throws(Failure) in
            if let pack = packs[rows.range] { return pack }
            let pack = try PackedWeight(rows.tensor)
            packs[rows.range] = pack
            return pack
        }
    }

    /// To be called once the elements were written to.
    public func changed() { packs.removeAll() }
}

/// Rows of a matrix, or elements of a vector.
struct ParameterRows {
    let parameter: Parameter
    let range: Range<Int>

    var tensor: Tensor { ParameterRows.rows(parameter.tensor, range) }

    static func rows(_ tensor: Tensor, _ range: Range<Int>) -> Tensor {
        var result = tensor
        result.data = tensor.pointer(byOffset: range.lowerBound &* tensor.strides[0])
        result.shape[0] = range.count
        return result
    }

    func packed() throws(Failure) -> PackedWeight { try parameter.packed(self) }
}

/// A block: named parameters of its own, and blocks inside. The names are those of torch.nn's state dicts.
///
/// Any number of threads may run one module at once, while nobody writes to its parameters and it does not train.
public class Module: @unchecked Sendable {
    private let own: [(name: String, parameter: Parameter)]
    private let children: [(name: String, module: Module)]
    var training: TrainingState?
    /// Of dropout: the seed, and the number of the next pass in training.
    public final var dropout: (seed: UInt64, step: UInt64) = (0, 0)

    /// Parts without a parameter (nil) are left out; a child without a name lends its parameters' names as they are.
    init(_ own: [(String, Parameter?)], children: [(String, Module?)] = []) {
        self.own = own.compactMap { entry in entry.1.map { (entry.0, $0) } }
        self.children = children.compactMap { entry in entry.1.map { (entry.0, $0) } }
    }

    /// All parameters, those of the blocks inside included, in the order of torch.nn's state dict.
    public final var parameters: [(name: String, parameter: Parameter)] {
        own + children.flatMap { child in
            child.module.parameters.map { (child.name.isEmpty ? $0.name : "\(child.name).\($0.name)", $0.parameter) }
        }
    }

    /// To be called once elements of parameters were written to.
    public final func parametersChanged() {
        for (_, parameter) in parameters { parameter.changed() }
    }

    /// Copies `source` into the parameter `name`, converting floating dtypes.
    ///
    /// - Throws: `Failure` for an unknown name, another shape or a dtype that is not floating; nothing is then written.
    public final func load(_ name: String, from source: Tensor) throws(Failure) {
        guard let parameter = parameters.first(where: { $0.name == name })?.parameter else {
            throw .argument("name: the module has no parameter \"\(name)\"")
        }
        do {
            try copyConverting(source, to: parameter.tensor)
        } catch {
            throw Failure(error.status, "\(name)\(error.message.drop { $0 != ":" })")
        }
        parameter.changed()
    }
}
