//! How much of somebody else's repository we take in.

/// The caps of one operation. Each has its own [`super::LimitKind`], so that an error names it.
///
/// The defaults are ours: far above what a repository of manifests needs, far below what hurts a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes received from the remote, protocol included; counted while they stream.
    pub received_bytes: u64,
    /// Objects that one pack may announce.
    pub pack_objects: u32,
    /// Bytes that one object may need in memory while a pack is indexed (delta bombs).
    pub object_bytes: usize,
    /// Files listed below one path.
    pub files: usize,
    /// Bytes of one file that is read.
    pub file_bytes: u64,
    /// Bytes of one path.
    pub path_bytes: usize,
    /// Directories below one another.
    pub tree_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            received_bytes: 512 << 20,
            pack_objects: 1_000_000,
            object_bytes: 256 << 20,
            files: 100_000,
            file_bytes: 4 << 20,
            path_bytes: 1024,
            tree_depth: 64,
        }
    }
}
