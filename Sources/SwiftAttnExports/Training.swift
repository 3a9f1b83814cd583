/// Chapter "Training" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

@_cdecl("swiftattn_module_set_training")
public func swiftattn_module_set_training(_ module: OpaquePointer?, _ training: Int32) -> Int32 {
    status { () throws(Failure) in try ModuleHandle.of(module).module.setTraining(training != 0) }
}

@_cdecl("swiftattn_module_backward")
public func swiftattn_module_backward(
    _ module: OpaquePointer?, _ grad_out: TensorPointer?, _ grad_inputs: UnsafePointer<TensorPointer?>?, _ count: Int64
) -> Int32 {
    status { () throws(Failure) in
        let target = try ModuleHandle.of(module).module
        guard (0...Int64(8)).contains(count) else {
            throw Failure(.invalidArgument, "count: expected 0 to 8, got \(count)")
        }
        var inputs: [Tensor?] = []
        if let grad_inputs {
            for n in 0..<Int(count) { inputs.append(try optionalTensor(grad_inputs[n], "grad_inputs")) }
        }
        try target.backward(tensor(grad_out, "grad_out"), inputs: inputs)
    }
}

@_cdecl("swiftattn_module_gradient")
public func swiftattn_module_gradient(_ module: OpaquePointer?, _ index: Int64, _ gradient: UnsafeMutablePointer<swiftattn_tensor>?)
    -> Int32 {
    status { () throws(Failure) in
        let parameter = try ModuleHandle.of(module).parameters.parameter(index)
        guard let gradient else { throw Failure(.nullPointer, "gradient: is NULL, expected a place for the view") }
        gradient.pointee = description(of: try parameter.gradient())
    }
}

@_cdecl("swiftattn_module_zero_gradients")
public func swiftattn_module_zero_gradients(_ module: OpaquePointer?) -> Int32 {
    status { () throws(Failure) in try ModuleHandle.of(module).module.zeroGradients() }
}

@_cdecl("swiftattn_module_initialize")
public func swiftattn_module_initialize(_ module: OpaquePointer?, _ kind: Int32, _ deviation: Double, _ seed: UInt64) -> Int32 {
    status { () throws(Failure) in
        try ModuleHandle.of(module).module.initialize(
            enumeration(kind, "kind", "SWIFTATTN_INITIALIZE_XAVIER or NORMAL"), deviation: deviation, seed: seed)
    }
}

@_cdecl("swiftattn_module_set_dropout")
public func swiftattn_module_set_dropout(_ module: OpaquePointer?, _ seed: UInt64, _ step: UInt64) -> Int32 {
    status { () throws(Failure) in try ModuleHandle.of(module).module.dropout = (seed, step) }
}

@_cdecl("swiftattn_module_get_dropout")
public func swiftattn_module_get_dropout(_ module: OpaquePointer?, _ seed: UnsafeMutablePointer<UInt64>?,
                                         _ step: UnsafeMutablePointer<UInt64>?) -> Int32 {
    status { () throws(Failure) in
        let dropout = try ModuleHandle.of(module).module.dropout
        seed?.pointee = dropout.seed
        step?.pointee = dropout.step
    }
}

/// What a swiftattn_optimizer points to.
final class OptimizerHandle {
    let optimizer: Optimizer
    let state: NamedParameters

    init(_ optimizer: Optimizer) {
        self.optimizer = optimizer
        state = NamedParameters(optimizer.state)
    }

    static func of(_ pointer: OpaquePointer?) throws(Failure) -> OptimizerHandle {
        try object(pointer, OptimizerHandle.self, "optimizer", "an optimizer")
    }
}

@_cdecl("swiftattn_optimizer_create")
public func swiftattn_optimizer_create(
    _ module: OpaquePointer?, _ options: UnsafePointer<swiftattn_optimizer_options>?,
    _ optimizer: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
    status { () throws(Failure) in
        guard let options else { throw Failure(.nullPointer, "options: is NULL, expected options of the optimizer") }
        guard let optimizer else { throw Failure(.nullPointer, "optimizer: is NULL, expected a place for the handle") }
        optimizer.pointee = handle(OptimizerHandle(try Optimizer(ModuleHandle.of(module).module, optimizerOptions(options))))
    }
}

private func optimizerOptions(_ pointer: UnsafePointer<swiftattn_optimizer_options>) throws(Failure) -> OptimizerOptions {
    let c = try options(pointer, smallest: MemoryLayout<swiftattn_optimizer_options>.size)
    guard c.reserved == 0 else { throw Failure(.invalidArgument, "reserved: expected 0, got \(c.reserved)") }
    var result = OptimizerOptions()
    result.kind = try enumeration(c.kind, "kind", "SWIFTATTN_OPTIMIZER_ADAMW or SGD")
    result.schedule = try enumeration(c.schedule, "schedule", "SWIFTATTN_SCHEDULE_*")
    result.rate = c.lr
    result.betas = (c.beta1, c.beta2)
    result.eps = c.eps
    result.weightDecay = c.weight_decay
    result.momentum = c.momentum
    result.clipNorm = c.clip_norm
    result.warmup = Int(c.warmup)
    result.total = Int(c.total_steps)
    result.finalRate = c.final_lr
    return result
}

@_cdecl("swiftattn_optimizer_destroy")
public func swiftattn_optimizer_destroy(_ optimizer: OpaquePointer?) {
    release(optimizer, OptimizerHandle.self)
}

@_cdecl("swiftattn_optimizer_step")
public func swiftattn_optimizer_step(_ optimizer: OpaquePointer?, _ grad_norm: UnsafeMutablePointer<Double>?) -> Int32 {
    status { () throws(Failure) in
        let norm = try OptimizerHandle.of(optimizer).optimizer.step()
        grad_norm?.pointee = norm
    }
}

@_cdecl("swiftattn_optimizer_get_steps")
public func swiftattn_optimizer_get_steps(_ optimizer: OpaquePointer?, _ steps: UnsafeMutablePointer<Int64>?,
                                          _ next_lr: UnsafeMutablePointer<Double>?) -> Int32 {
    status { () throws(Failure) in
        let inner = try OptimizerHandle.of(optimizer).optimizer
        steps?.pointee = Int64(inner.steps)
        next_lr?.pointee = inner.nextRate
    }
}

@_cdecl("swiftattn_optimizer_set_steps")
public func swiftattn_optimizer_set_steps(_ optimizer: OpaquePointer?, _ steps: Int64) -> Int32 {
    status { () throws(Failure) in try OptimizerHandle.of(optimizer).optimizer.resume(after: Int(steps)) }
}

@_cdecl("swiftattn_optimizer_state_count")
public func swiftattn_optimizer_state_count(_ optimizer: OpaquePointer?, _ count: UnsafeMutablePointer<Int64>?) -> Int32 {
    status { () throws(Failure) in
        guard let count else { throw Failure(.nullPointer, "count: is NULL, expected a place for the number") }
        count.pointee = Int64(try OptimizerHandle.of(optimizer).state.count)
    }
}

@_cdecl("swiftattn_optimizer_state")
public func swiftattn_optimizer_state(
    _ optimizer: OpaquePointer?, _ index: Int64, _ name: UnsafeMutablePointer<UnsafePointer<CChar>?>?,
    _ state: UnsafeMutablePointer<swiftattn_tensor>?
) -> Int32 {
    status { () throws(Failure) in
        try OptimizerHandle.of(optimizer).state.describe(index, name, state, "state")
    }
}
