/// Blocks through the Swift face: parameters, a forward, and training.

import SwiftAttn
import Testing

@Suite struct BlockTests {
    /// With queries and keys of 0 all keys weigh the same; V and O are the identity.
    @Test func attentionAveragesWhatIsVisible() throws {
        let module = try MultiheadAttention(MultiheadAttentionOptions(embedDim: 4, heads: 2))
        var weight = [Float](repeating: 0, count: 12 * 4), identity = [Float](repeating: 0, count: 16)
        for i in 0..<4 {
            weight[(8 + i) * 4 + i] = 1
            identity[i * 4 + i] = 1
        }
        try NDArray(weight, shape: [12, 4]).withTensor { (tensor) throws(Failure) in try module.load("in_proj_weight", from: tensor) }
        try NDArray(identity, shape: [4, 4]).withTensor { (tensor) throws(Failure) in try module.load("out_proj.weight", from: tensor) }
        #expect(module.parameters.map(\.name) == ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"])

        let x = try NDArray((0..<12).map(Float.init), shape: [1, 3, 4])
        var out = try NDArray<Float>(repeating: 0, shape: [1, 3, 4])
        var call = MultiheadAttentionCall()
        call.visibility.isCausal = true
        try x.withTensor { (x) throws(Failure) in
            try out.withMutableTensor { (out) throws(Failure) in try module.forward(query: x, key: x, value: x, call, out: out) }
        }
        for t in 0..<3 {
            for i in 0..<4 { #expect(abs(out[0, t, i] - (Float(i) + 2 * Float(t))) < 1e-5) }
        }
    }

    @Test func unknownParametersAreNamed() throws {
        let module = try Encoder(layer: LayerOptions(width: 4, heads: 2))
        let failure = #expect(throws: Failure.self) {
            try NDArray<Float>([1]).withTensor { (tensor) throws(Failure) in try module.load("linear3.weight", from: tensor) }
        }
        #expect(failure?.message == "name: the module has no parameter \"linear3.weight\"")
    }

    /// Steps along the gradient of |out|² / 2 make the output smaller.
    @Test func trainingLowersTheLoss() throws {
        var options = LayerOptions(width: 8, heads: 2)
        options.inner = 16
        options.normFirst = true
        let module = try Encoder(options, layers: 2, norm: nil)
        try module.initialize(seed: 3)
        try module.setTraining(true)
        var rule = OptimizerOptions()
        rule.rate = 0.01
        let optimizer = try Optimizer(module, rule)
        let x = try NDArray((0..<48).map { Float($0 % 7) - 3 }, shape: [2, 3, 8])
        var losses: [Float] = []
        for _ in 0..<20 {
            var out = try NDArray<Float>(repeating: 0, shape: [2, 3, 8])
            try x.withTensor { (x) throws(Failure) in
                try out.withMutableTensor { (out) throws(Failure) in try module.forward(x, out: out) }
            }
            losses.append(out.elements.reduce(0) { $0 + $1 * $1 / 2 })
            try out.withTensor { (gradient) throws(Failure) in try module.backward(gradient) }
            #expect(try optimizer.step() > 0)
            module.zeroGradients()
        }
        #expect(losses.last! < 0.7 * losses[0])
        #expect(optimizer.steps == 20)
    }

    @Test func theSameSeedWritesTheSame() throws {
        var layer = LayerOptions(width: 8, heads: 2)
        layer.inner = 16
        let embedding = TokenEmbeddingOptions(vocabulary: 6)
        let model = try EncoderDecoder(EncoderDecoderOptions(layer: layer, encoderLayers: 1, decoderLayers: 1, source: embedding,
                                                             target: embedding))
        try model.initialize(seed: 5)
        let source = try NDArray<Int32>([1, 2, 3, 4, 5, 0], shape: [2, 3])
        var beams = BeamOptions(start: 0, end: 1, maxLength: 5)
        beams.beams = 3
        let first = try source.withTensor { (ids) throws(Failure) in try model.write(source: ids, beams) }
        let second = try source.withTensor { (ids) throws(Failure) in try model.write(source: ids, beams) }
        #expect(first == second && first.count == 2)
        #expect(first.allSatisfy { (1...5).contains($0.tokens.count) && $0.score <= 0 })
    }
}
