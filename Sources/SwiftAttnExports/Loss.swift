/// Chapter "Loss" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

@_cdecl("swiftattn_cross_entropy")
public func swiftattn_cross_entropy(
    _ logits: TensorPointer?, _ targets: TensorPointer?, _ options: UnsafePointer<swiftattn_cross_entropy_options>?,
    _ loss: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        let (ignored, smoothing) = try crossEntropyOptions(options)
        try crossEntropy(tensor(logits, "logits"), targets: tensor(targets, "targets"), ignoreIndex: ignored,
                         labelSmoothing: smoothing, loss: tensor(loss, "loss"))
    }
}

@_cdecl("swiftattn_cross_entropy_backward")
public func swiftattn_cross_entropy_backward(
    _ grad_loss: Double, _ logits: TensorPointer?, _ targets: TensorPointer?,
    _ options: UnsafePointer<swiftattn_cross_entropy_options>?, _ loss: TensorPointer?, _ grad_logits: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        let (ignored, smoothing) = try crossEntropyOptions(options)
        try crossEntropyBackward(gradLoss: grad_loss, tensor(logits, "logits"), targets: tensor(targets, "targets"),
                                 ignoreIndex: ignored, labelSmoothing: smoothing, loss: optionalTensor(loss, "loss"),
                                 gradLogits: tensor(grad_logits, "grad_logits"))
    }
}

private let crossEntropyOptionsV1 = MemoryLayout<swiftattn_cross_entropy_options>.size

private func crossEntropyOptions(_ pointer: UnsafePointer<swiftattn_cross_entropy_options>?) throws(Failure) -> (Int, Double) {
    let c = try options(pointer, smallest: crossEntropyOptionsV1)
    guard c.flags & ~SWIFTATTN_CROSS_ENTROPY_HAS_IGNORE_INDEX == 0 else {
        throw Failure(.invalidArgument, "flags: expected bits of SWIFTATTN_CROSS_ENTROPY_HAS_*, got \(c.flags)")
    }
    return (c.flags & SWIFTATTN_CROSS_ENTROPY_HAS_IGNORE_INDEX != 0 ? Int(c.ignore_index) : -100, c.label_smoothing)
}
