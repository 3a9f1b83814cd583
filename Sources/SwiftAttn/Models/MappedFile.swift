/// A file's bytes, in place.

import Glibc

/// A regular file mapped for reading. The file must not shrink while it is mapped: the system has no other answer to that
/// than ending the process.
final class MappedFile: @unchecked Sendable {
    let bytes: UnsafeRawBufferPointer

    init(_ path: String) throws(Failure) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw MappedFile.failure(path) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw MappedFile.failure(path) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .argument("path: \(path) is not a regular file") }
        let size = Int(status.st_size)
        if size == 0 {
            bytes = UnsafeRawBufferPointer(start: nil, count: 0)
            return
        }
        guard let start = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0), start != MAP_FAILED else {
            throw MappedFile.failure(path)
        }
        bytes = UnsafeRawBufferPointer(start: start, count: size)
    }

    deinit {
        if let start = bytes.baseAddress { munmap(UnsafeMutableRawPointer(mutating: start), bytes.count) }
    }

    /// Gives the memory of whole pages within `range` back; reading them again reads the file again.
    func release(_ range: Range<Int>) {
        let page = Int(getpagesize())
        let first = (range.lowerBound + page - 1) / page * page, last = range.upperBound / page * page
        guard let start = bytes.baseAddress, last > first else { return }
        madvise(UnsafeMutableRawPointer(mutating: start + first), last - first, MADV_DONTNEED)
    }

    private static func failure(_ path: String) -> Failure {
        .argument("path: \(path) cannot be read: \(String(cString: strerror(errno)))")
    }
}
