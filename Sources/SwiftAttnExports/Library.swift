/// Chapter "Status" and "Library" of swiftattn.h.

import Glibc
import SwiftAttn

@_cdecl("swiftattn_last_error")
public func swiftattn_last_error() -> UnsafePointer<CChar> { LastError.current }

nonisolated(unsafe) private let version: UnsafePointer<CChar> = UnsafePointer(strdup(Library.version)!)

@_cdecl("swiftattn_version")
public func swiftattn_version() -> UnsafePointer<CChar> { version }

nonisolated(unsafe) private let isa: UnsafePointer<CChar> = UnsafePointer(strdup(Library.isa ?? "unsupported")!)

@_cdecl("swiftattn_cpu_isa")
public func swiftattn_cpu_isa() -> UnsafePointer<CChar> { isa }

nonisolated(unsafe) private let features: UnsafePointer<CChar> = UnsafePointer(strdup(Library.features.joined(separator: " "))!)

@_cdecl("swiftattn_cpu_features")
public func swiftattn_cpu_features() -> UnsafePointer<CChar> { features }

@_cdecl("swiftattn_set_num_threads")
public func swiftattn_set_num_threads(_ threads: Int32) -> Int32 {
    status { () throws(Failure) in try Library.setThreadCount(Int(threads)) }
}

@_cdecl("swiftattn_get_num_threads")
public func swiftattn_get_num_threads() -> Int32 { Int32(Library.threadCount) }
