//! What the fuzz targets have found worth trying.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The files of a target's corpus in order.
pub(crate) fn corpus(target: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let files = fs::read_dir(folder.join(target)).expect("a corpus");
    let read = files.map(|file| {
        let path = file.expect("a file").path();
        let bytes = fs::read(&path).expect("bytes");
        (path, bytes)
    });
    read.collect()
}
