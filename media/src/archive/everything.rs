//! Erasing a whole archive, which a person has confirmed: in two steps, so that what is recorded after the first is
//! not touched by the second.

use std::fs;

use super::{Archive, ArchiveError, DAMAGED, INCOMING, Inner, Segment, disk, index::Filter};

/// What an archive had at one moment.
#[derive(Clone, Debug)]
pub struct Everything(Vec<Segment>);

impl Everything {
    /// How many recordings.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.0.len()
    }
}

impl Archive {
    /// Everything that is recorded, by whomever, for whatever; none while something is filmed, or was and is not
    /// closed yet.
    ///
    /// # Errors
    /// [`ArchiveError::Index`].
    pub async fn everything(&self) -> Result<Option<Everything>, ArchiveError> {
        self.blocking(|archive| {
            if archive.index.films()? {
                return Ok(None);
            }
            Ok(Some(Everything(archive.index.closed(&Filter::default())?)))
        })
        .await
    }

    /// Erases what the archive had then, with what was put aside as damaged and what had arrived in part. Doing it
    /// twice is the same.
    ///
    /// # Errors
    /// What disk and index say; what is left is erased when it is asked for again.
    pub async fn erase_everything(&self, everything: Everything) -> Result<(), ArchiveError> {
        self.blocking(move |archive| archive.erase_everything(&everything.0))
            .await
    }
}

impl Inner {
    fn erase_everything(&self, segments: &[Segment]) -> Result<(), ArchiveError> {
        self.delete(segments)?;
        for folder in [DAMAGED, INCOMING] {
            let folder = self.folder.join(folder);
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ArchiveError::file(&folder)(error));
                }
                _ => {}
            }
        }
        let incoming = self.folder.join(INCOMING);
        fs::create_dir_all(&incoming).map_err(ArchiveError::file(&incoming))?;
        // The camera's folder goes with its last file; that it is not empty is no error.
        for folder in segments
            .iter()
            .filter_map(|segment| segment.path.split('/').next())
        {
            let _not_empty = fs::remove_dir(self.folder.join(folder));
        }
        disk::sync_folder(&self.folder).map_err(ArchiveError::file(&self.folder))
    }
}
