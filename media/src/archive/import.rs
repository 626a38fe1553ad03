//! Files of another server come in, many at a time: one flush of the volume and one transaction for all.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::PathBuf,
};

use understudy_core::contract::segment::Segment;

use super::{Archive, ArchiveError, disk};

impl Archive {
    /// Takes over segments of another server, each from a file in [`Archive::incoming`] whose bytes the caller
    /// has verified. Once it returns, files and rows are durable. Doing it twice is the same: a temporary file
    /// that is gone while its target is there was taken over before.
    ///
    /// # Errors
    /// [`ArchiveError::Path`] for a path that no server gives; else what disk and index say. Then none of them
    /// has its row, and all can be taken over again.
    pub async fn import_all(&self, arrived: Vec<(Segment, PathBuf)>) -> Result<(), ArchiveError> {
        if arrived.is_empty() {
            return Ok(());
        }
        let moves = arrived
            .iter()
            .map(|(segment, temporary)| Ok((temporary.clone(), self.file(&segment.path)?)))
            .collect::<Result<Vec<_>, ArchiveError>>()?;
        let segments = arrived
            .into_iter()
            .map(|(segment, _)| segment)
            .collect::<Vec<_>>();
        self.blocking(move |archive| {
            for (_, target) in &moves {
                disk::create_folder_of(target).map_err(ArchiveError::file(target))?;
            }
            // The contents before the names: a name never stands for bytes that a power cut can take.
            let volume = File::open(&archive.folder).and_then(|volume| disk::sync_volume(&volume));
            volume.map_err(ArchiveError::file(&archive.folder))?;
            for (temporary, target) in &moves {
                if temporary.exists() || !target.exists() {
                    fs::rename(temporary, target).map_err(ArchiveError::file(target))?;
                }
            }
            let folders = moves
                .iter()
                .flat_map(|(_, target)| disk::folders(&archive.folder, target));
            let folders = folders.collect::<BTreeSet<_>>();
            for folder in folders {
                disk::sync_folder(folder).map_err(ArchiveError::file(folder))?;
            }
            archive.index.add(&segments)
        })
        .await
    }
}
