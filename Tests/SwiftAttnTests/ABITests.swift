/// The header and the exported functions, held together: a difference in types does not compile.

import CSwiftAttn
import SwiftAttn
import SwiftAttnExports
import Testing

/// Takes two functions of one type: the header's declaration and the export that a C program is linked to.
private func same<F>(_ declared: F, _ exported: F) {}

@Suite struct ABITests {
    @Test func exportsHaveTheTypesOfTheHeader() {
        same(CSwiftAttn.swiftattn_last_error, SwiftAttnExports.swiftattn_last_error)
        same(CSwiftAttn.swiftattn_version, SwiftAttnExports.swiftattn_version)
        same(CSwiftAttn.swiftattn_cpu_isa, SwiftAttnExports.swiftattn_cpu_isa)
        same(CSwiftAttn.swiftattn_set_num_threads, SwiftAttnExports.swiftattn_set_num_threads)
        same(CSwiftAttn.swiftattn_get_num_threads, SwiftAttnExports.swiftattn_get_num_threads)
        same(CSwiftAttn.swiftattn_scaled_dot_product_attention, SwiftAttnExports.swiftattn_scaled_dot_product_attention)
        same(CSwiftAttn.swiftattn_attention_varlen, SwiftAttnExports.swiftattn_attention_varlen)
        same(CSwiftAttn.swiftattn_merge_attention_states, SwiftAttnExports.swiftattn_merge_attention_states)
        same(CSwiftAttn.swiftattn_alibi_slopes, SwiftAttnExports.swiftattn_alibi_slopes)
        same(CSwiftAttn.swiftattn_attention_paged, SwiftAttnExports.swiftattn_attention_paged)
        same(CSwiftAttn.swiftattn_attention_kv_cache, SwiftAttnExports.swiftattn_attention_kv_cache)
        same(CSwiftAttn.swiftattn_scaled_dot_product_attention_backward,
             SwiftAttnExports.swiftattn_scaled_dot_product_attention_backward)
        same(CSwiftAttn.swiftattn_attention_varlen_backward, SwiftAttnExports.swiftattn_attention_varlen_backward)
        same(CSwiftAttn.swiftattn_kv_cache_create, SwiftAttnExports.swiftattn_kv_cache_create)
        same(CSwiftAttn.swiftattn_kv_cache_destroy, SwiftAttnExports.swiftattn_kv_cache_destroy)
        same(CSwiftAttn.swiftattn_kv_cache_append, SwiftAttnExports.swiftattn_kv_cache_append)
        same(CSwiftAttn.swiftattn_kv_cache_truncate, SwiftAttnExports.swiftattn_kv_cache_truncate)
        same(CSwiftAttn.swiftattn_kv_cache_view, SwiftAttnExports.swiftattn_kv_cache_view)
        same(CSwiftAttn.swiftattn_kv_cache_fork, SwiftAttnExports.swiftattn_kv_cache_fork)
        same(CSwiftAttn.swiftattn_kv_cache_reorder, SwiftAttnExports.swiftattn_kv_cache_reorder)
        same(CSwiftAttn.swiftattn_matmul, SwiftAttnExports.swiftattn_matmul)
        same(CSwiftAttn.swiftattn_linear, SwiftAttnExports.swiftattn_linear)
        same(CSwiftAttn.swiftattn_softmax, SwiftAttnExports.swiftattn_softmax)
        same(CSwiftAttn.swiftattn_layer_norm, SwiftAttnExports.swiftattn_layer_norm)
        same(CSwiftAttn.swiftattn_rms_norm, SwiftAttnExports.swiftattn_rms_norm)
        same(CSwiftAttn.swiftattn_relu, SwiftAttnExports.swiftattn_relu)
        same(CSwiftAttn.swiftattn_gelu, SwiftAttnExports.swiftattn_gelu)
        same(CSwiftAttn.swiftattn_pack_weight, SwiftAttnExports.swiftattn_pack_weight)
        same(CSwiftAttn.swiftattn_packed_weight_destroy, SwiftAttnExports.swiftattn_packed_weight_destroy)
        same(CSwiftAttn.swiftattn_linear_packed, SwiftAttnExports.swiftattn_linear_packed)
        same(CSwiftAttn.swiftattn_silu, SwiftAttnExports.swiftattn_silu)
        same(CSwiftAttn.swiftattn_swiglu, SwiftAttnExports.swiftattn_swiglu)
        same(CSwiftAttn.swiftattn_geglu, SwiftAttnExports.swiftattn_geglu)
        same(CSwiftAttn.swiftattn_embedding, SwiftAttnExports.swiftattn_embedding)
        same(CSwiftAttn.swiftattn_sinusoidal_positions, SwiftAttnExports.swiftattn_sinusoidal_positions)
        same(CSwiftAttn.swiftattn_rotary_tables, SwiftAttnExports.swiftattn_rotary_tables)
        same(CSwiftAttn.swiftattn_rotary_embedding, SwiftAttnExports.swiftattn_rotary_embedding)
        same(CSwiftAttn.swiftattn_rotary_embedding_backward, SwiftAttnExports.swiftattn_rotary_embedding_backward)
        same(CSwiftAttn.swiftattn_sample, SwiftAttnExports.swiftattn_sample)
        same(CSwiftAttn.swiftattn_sampling_distribution, SwiftAttnExports.swiftattn_sampling_distribution)
        same(CSwiftAttn.swiftattn_cross_entropy, SwiftAttnExports.swiftattn_cross_entropy)
        same(CSwiftAttn.swiftattn_cross_entropy_backward, SwiftAttnExports.swiftattn_cross_entropy_backward)
    }

    @Test func blocksHaveTheTypesOfTheHeader() {
        same(CSwiftAttn.swiftattn_module_destroy, SwiftAttnExports.swiftattn_module_destroy)
        same(CSwiftAttn.swiftattn_module_parameter_count, SwiftAttnExports.swiftattn_module_parameter_count)
        same(CSwiftAttn.swiftattn_module_parameter, SwiftAttnExports.swiftattn_module_parameter)
        same(CSwiftAttn.swiftattn_module_load_parameter, SwiftAttnExports.swiftattn_module_load_parameter)
        same(CSwiftAttn.swiftattn_module_parameters_changed, SwiftAttnExports.swiftattn_module_parameters_changed)
        same(CSwiftAttn.swiftattn_multihead_attention_create, SwiftAttnExports.swiftattn_multihead_attention_create)
        same(CSwiftAttn.swiftattn_multihead_attention_forward, SwiftAttnExports.swiftattn_multihead_attention_forward)
        same(CSwiftAttn.swiftattn_encoder_layer_create, SwiftAttnExports.swiftattn_encoder_layer_create)
        same(CSwiftAttn.swiftattn_encoder_create, SwiftAttnExports.swiftattn_encoder_create)
        same(CSwiftAttn.swiftattn_decoder_layer_create, SwiftAttnExports.swiftattn_decoder_layer_create)
        same(CSwiftAttn.swiftattn_decoder_create, SwiftAttnExports.swiftattn_decoder_create)
        same(CSwiftAttn.swiftattn_transformer_create, SwiftAttnExports.swiftattn_transformer_create)
        same(CSwiftAttn.swiftattn_encoder_forward, SwiftAttnExports.swiftattn_encoder_forward)
        same(CSwiftAttn.swiftattn_decoder_forward, SwiftAttnExports.swiftattn_decoder_forward)
        same(CSwiftAttn.swiftattn_transformer_forward, SwiftAttnExports.swiftattn_transformer_forward)
    }

    @Test func numbersAreTheHeaders() {
        #expect(Failure.Status.nullPointer.rawValue == SWIFTATTN_ERROR_NULL_POINTER)
        #expect(Failure.Status.invalidArgument.rawValue == SWIFTATTN_ERROR_INVALID_ARGUMENT)
        #expect(Failure.Status.invalidShape.rawValue == SWIFTATTN_ERROR_INVALID_SHAPE)
        #expect(Failure.Status.invalidDType.rawValue == SWIFTATTN_ERROR_INVALID_DTYPE)
        #expect(Failure.Status.aliasing.rawValue == SWIFTATTN_ERROR_ALIASING)
        #expect(Failure.Status.structSize.rawValue == SWIFTATTN_ERROR_STRUCT_SIZE)
        #expect(Failure.Status.outOfMemory.rawValue == SWIFTATTN_ERROR_OUT_OF_MEMORY)
        #expect(Failure.Status.unsupportedISA.rawValue == SWIFTATTN_ERROR_UNSUPPORTED_ISA)
        #expect(Causal.none.rawValue == SWIFTATTN_CAUSAL_NONE)
        #expect(Causal.upperLeft.rawValue == SWIFTATTN_CAUSAL_UPPER_LEFT)
        #expect(Causal.lowerRight.rawValue == SWIFTATTN_CAUSAL_LOWER_RIGHT)
        #expect(Precision.highest.rawValue == SWIFTATTN_PRECISION_HIGHEST)
        #expect(Precision.high.rawValue == SWIFTATTN_PRECISION_HIGH)
        #expect(Precision.medium.rawValue == SWIFTATTN_PRECISION_MEDIUM)
        #expect(WeightsStage.probabilities.rawValue == SWIFTATTN_WEIGHTS_PROBABILITIES)
        #expect(WeightsStage.scaled.rawValue == SWIFTATTN_WEIGHTS_SCALED)
        #expect(WeightsStage.capped.rawValue == SWIFTATTN_WEIGHTS_CAPPED)
        #expect(WeightsStage.biased.rawValue == SWIFTATTN_WEIGHTS_BIASED)
        #expect(Activation.none.rawValue == SWIFTATTN_ACTIVATION_NONE)
        #expect(Activation.relu.rawValue == SWIFTATTN_ACTIVATION_RELU)
        #expect(Activation.gelu.rawValue == SWIFTATTN_ACTIVATION_GELU)
        #expect(Activation.geluTanh.rawValue == SWIFTATTN_ACTIVATION_GELU_TANH)
        #expect(Activation.silu.rawValue == SWIFTATTN_ACTIVATION_SILU)
        #expect(RotaryScaling.Kind.none.rawValue == SWIFTATTN_ROTARY_NONE)
        #expect(RotaryScaling.Kind.linear.rawValue == SWIFTATTN_ROTARY_LINEAR)
        #expect(RotaryScaling.Kind.dynamic.rawValue == SWIFTATTN_ROTARY_DYNAMIC)
        #expect(RotaryScaling.Kind.ntk.rawValue == SWIFTATTN_ROTARY_NTK)
        #expect(RotaryScaling.Kind.llama3.rawValue == SWIFTATTN_ROTARY_LLAMA3)
        #expect(RotaryScaling.Kind.yarn.rawValue == SWIFTATTN_ROTARY_YARN)
        #expect(RotaryScaling.Kind.longRope.rawValue == SWIFTATTN_ROTARY_LONGROPE)
        #expect(RotaryPairing.halves.rawValue == SWIFTATTN_ROTARY_HALVES)
        #expect(RotaryPairing.neighbours.rawValue == SWIFTATTN_ROTARY_NEIGHBOURS)
        #expect(GELU.exact.rawValue == SWIFTATTN_GELU_NONE)
        #expect(GELU.tanh.rawValue == SWIFTATTN_GELU_TANH)
        #expect(Dims.capacity == Int(SWIFTATTN_MAX_DIMS))
        #expect(Library.version == "\(SWIFTATTN_VERSION_MAJOR).\(SWIFTATTN_VERSION_MINOR).\(SWIFTATTN_VERSION_PATCH)")
    }

    @Test func lastErrorIsTheFailuresMessage() {
        #expect(CSwiftAttn.swiftattn_relu(nil, nil) == SWIFTATTN_ERROR_NULL_POINTER)
        #expect(String(cString: CSwiftAttn.swiftattn_last_error()) == "x: is NULL, expected a tensor")
    }
}
