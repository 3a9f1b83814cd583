/// What went wrong, as a status of the C ABI and one line of text.

import CAttnKernels

/// The error that every throwing function of this module throws.
///
/// `message` names the argument, what was expected and what came: `key: head_dim is 96, query has 128`.
public struct Failure: Error, CustomStringConvertible, Sendable {
    /// Kinds of failure; the raw values are the status codes of `swiftattn.h`.
    public enum Status: Int32, Sendable {
        case nullPointer = -1
        case invalidArgument = -2
        case invalidShape = -3
        case invalidDType = -4
        case aliasing = -5
        case structSize = -6
        case outOfMemory = -7
        case unsupportedISA = -8
    }

    public let status: Status
    public let message: String

    public init(_ status: Status, _ message: String) {
        self.status = status
        self.message = message
    }

    public var description: String { message }

    /// This failure of an argument that is an array, said of its part `n`: `outs: rank ...` becomes `outs[n]: rank ...`.
    package func ofPart(_ n: Int) -> Failure {
        let name = message.prefix { $0 != ":" }
        return Failure(status, "\(name)[\(n)]\(message.dropFirst(name.count))")
    }

    static func argument(_ message: String) -> Failure { Failure(.invalidArgument, message) }
    static func shape(_ message: String) -> Failure { Failure(.invalidShape, message) }
    static func dtype(_ message: String) -> Failure { Failure(.invalidDType, message) }
    static let outOfMemory = Failure(.outOfMemory, "out of memory: the scratch buffers could not be allocated")
}

/// Swift ends the process when an array cannot be allocated. Arrays whose size a caller's shapes decide ask here first.
func requireMemory<T>(for count: Int, of type: T.Type) throws(Failure) {
    if count < 1 << 20 { return }
    let (bytes, overflow) = count.multipliedReportingOverflow(by: MemoryLayout<T>.stride)
    guard !overflow, attn_memory_available(bytes) else { throw Failure.outOfMemory }
}
