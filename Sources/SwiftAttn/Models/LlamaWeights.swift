/// All weights of a Llama-family decoder, by the names of GGUF files or of Hugging Face's folders.

struct LlamaLayer {
    let attentionNorm, feedForwardNorm: FloatBuffer
    let q, k, v, o, gate, up, down: LinearWeight
    /// Of q, k and v.
    let biases: [FloatBuffer?]
}

struct LlamaWeights {
    let embedding: LinearWeight
    let layers: [LlamaLayer]
    let norm: FloatBuffer
    /// The embedding itself where it is tied.
    let head: LinearWeight

    /// What the tensors are called.
    struct Names: Sendable {
        let embedding, norm, head: String
        let layer: @Sendable (_ n: Int, _ part: Part) -> String

        enum Part: String { case attentionNorm, feedForwardNorm, q, k, v, o, gate, up, down }

        static let gguf = Names(embedding: "token_embd.weight", norm: "output_norm.weight", head: "output.weight") { n, part in
            let name = switch part {
            case .attentionNorm: "attn_norm"
            case .feedForwardNorm: "ffn_norm"
            case .q, .k, .v: "attn_\(part)"
            case .o: "attn_output"
            case .gate, .up, .down: "ffn_\(part)"
            }
            return "blk.\(n).\(name)"
        }

        static let huggingFace = Names(embedding: "model.embed_tokens.weight", norm: "model.norm.weight",
                                       head: "lm_head.weight") { n, part in
            let name = switch part {
            case .attentionNorm: "input_layernorm"
            case .feedForwardNorm: "post_attention_layernorm"
            case .q, .k, .v, .o: "self_attn.\(part)_proj"
            case .gate, .up, .down: "mlp.\(part)_proj"
            }
            return "model.layers.\(n).\(name)"
        }
    }

    init(_ config: LlamaConfig, from source: some WeightSource, _ names: Names) throws(Failure) {
        let width = config.width, q = config.heads * config.headDim, kv = config.kvHeads * config.headDim
        func matrix(_ name: String, _ rows: Int, _ columns: Int, looksUpRows: Bool = false) throws(Failure) -> LinearWeight {
            try source.matrix(name, rows: rows, columns: columns, looksUpRows: looksUpRows)
        }
        embedding = try matrix(names.embedding, config.vocabulary, width, looksUpRows: true)
        var layers: [LlamaLayer] = []
        for n in 0..<config.layers {
            func weight(_ part: Names.Part, _ rows: Int, _ columns: Int) throws(Failure) -> LinearWeight {
                try matrix(names.layer(n, part) + ".weight", rows, columns)
            }
            func bias(_ part: Names.Part, _ count: Int) throws(Failure) -> FloatBuffer? {
                let name = names.layer(n, part) + ".bias"
                return source.has(name) ? try source.vector(name, count: count) : nil
            }
            try layers.append(LlamaLayer(
                attentionNorm: source.vector(names.layer(n, .attentionNorm) + ".weight", count: width),
                feedForwardNorm: source.vector(names.layer(n, .feedForwardNorm) + ".weight", count: width),
                q: weight(.q, q, width), k: weight(.k, kv, width), v: weight(.v, kv, width), o: weight(.o, width, q),
                gate: weight(.gate, config.hidden, width), up: weight(.up, config.hidden, width),
                down: weight(.down, width, config.hidden), biases: [bias(.q, q), bias(.k, kv), bias(.v, kv)]))
        }
        self.layers = layers
        norm = try source.vector(names.norm, count: width)
        head = source.has(names.head) ? try matrix(names.head, config.vocabulary, width) : embedding
    }
}
