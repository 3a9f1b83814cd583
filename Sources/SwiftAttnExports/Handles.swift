/// Objects behind the opaque handles of the C ABI: the handle owns the object until it is released.

import CSwiftAttn
import Glibc
import SwiftAttn

/// A handle of the object.
func handle(_ object: AnyObject) -> OpaquePointer { OpaquePointer(Unmanaged.passRetained(object).toOpaque()) }

/// The object behind a handle, which is of this type.
func object<T: AnyObject>(_ handle: OpaquePointer?, _ type: T.Type, _ name: StaticString, _ expected: StaticString) throws(Failure) -> T {
    guard let handle else { throw Failure(.nullPointer, "\(name): is NULL, expected \(expected)") }
    return Unmanaged<T>.fromOpaque(UnsafeRawPointer(handle)).takeUnretainedValue()
}

/// Ends a handle; NULL is allowed.
func release<T: AnyObject>(_ handle: OpaquePointer?, _ type: T.Type) {
    if let handle { Unmanaged<T>.fromOpaque(UnsafeRawPointer(handle)).release() }
}

/// Tensors of an object by number, with names that C can read as long as the object lives.
final class NamedParameters {
    private let entries: [(name: UnsafeMutablePointer<CChar>, parameter: Parameter)]

    init(_ parameters: [(String, Parameter)]) { entries = parameters.map { (strdup($0), $1) } }

    deinit {
        for (name, _) in entries { free(name) }
    }

    var count: Int { entries.count }

    func parameter(_ index: Int64) throws(Failure) -> Parameter { try entry(index).parameter }

    private func entry(_ index: Int64) throws(Failure) -> (name: UnsafeMutablePointer<CChar>, parameter: Parameter) {
        guard index >= 0, index < entries.count else {
            throw Failure(.invalidArgument, "index: expected 0 to \(entries.count - 1), got \(index)")
        }
        return entries[Int(index)]
    }

    /// Fills in the name and a view of entry `index`.
    func describe(_ index: Int64, _ name: UnsafeMutablePointer<UnsafePointer<CChar>?>?,
                  _ view: UnsafeMutablePointer<swiftattn_tensor>?, _ viewName: StaticString) throws(Failure) {
        let (text, parameter) = try entry(index)
        guard let name else { throw Failure(.nullPointer, "name: is NULL, expected a place for the name") }
        guard let view else { throw Failure(.nullPointer, "\(viewName): is NULL, expected a place for the view") }
        name.pointee = UnsafePointer(text)
        view.pointee = description(of: parameter.tensor)
    }
}
