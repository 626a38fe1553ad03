//! Which numbered frames lie in an archive: counted by reading its files again, not by asking its index.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use understudy_media::archive::mp4;
use understudy_simulator::numbering;

use crate::DemoError;

/// Distinct frame numbers, by camera.
pub type Recorded = BTreeMap<String, BTreeSet<u64>>;

/// Every `*.mp4` below `archive`, by camera: the first folder of its path.
///
/// # Errors
/// [`DemoError::Io`] if a folder can't be read; a folder that is not there has no files.
pub fn files(archive: &Path) -> Result<Vec<(String, PathBuf)>, DemoError> {
    let mut found = Vec::new();
    for camera in entries(archive)? {
        let name = camera
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') || !camera.is_dir() {
            continue;
        }
        let mut folders = vec![camera];
        while let Some(folder) = folders.pop() {
            for path in entries(&folder)? {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "mp4") {
                    found.push((name.clone(), path));
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The frame numbers in every file below `archive`. A file that is being written gives what is in it so far.
///
/// # Errors
/// [`DemoError`] if a file can't be read.
pub fn recorded(archive: &Path) -> Result<Recorded, DemoError> {
    let mut recorded = Recorded::new();
    for (camera, path) in files(archive)? {
        recorded.entry(camera).or_default().extend(numbers(&path)?);
    }
    Ok(recorded)
}

/// The frame numbers in one file, in the order of its frames.
///
/// # Errors
/// [`DemoError::Io`] if it can't be read.
pub fn numbers(path: &Path) -> Result<Vec<u64>, DemoError> {
    let unreadable = || DemoError::io(format!("can't read the frames of {}", path.display()));
    let mut numbers = Vec::new();
    let mut samples = mp4::samples(path).map_err(unreadable())?;
    while let Some((_, bytes)) = samples.next_video().map_err(unreadable())? {
        numbers.extend(numbering::frame_number(&bytes).map(|frame| frame.number));
    }
    Ok(numbers)
}

/// BLAKE3 of a file's bytes, in hexadecimal, worked out here and not asked of anybody.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, DemoError> {
    match std::fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(DemoError::io(format!("can't read {}", folder.display()))(error)),
    }
}
