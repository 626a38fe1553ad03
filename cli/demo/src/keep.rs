//! Keeps what a failover server recorded, although failback erases it: a hard link to each file, made while
//! the file is still being written. The failover server deletes its names; the contents stay readable here.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{task::JoinHandle, time::interval};
use tokio_util::sync::CancellationToken;

use crate::{DemoError, frames};

/// How often it looks for new files: far below the length of a segment.
const EVERY: Duration = Duration::from_millis(200);

/// Links the files of one archive, until it is stopped.
#[derive(Debug)]
pub struct Keeper {
    folder: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<Result<(), DemoError>>,
}

impl Keeper {
    /// Begins to link the files of `archive` into `folder`, by the same paths.
    pub fn start(archive: &Path, folder: &Path) -> Self {
        let stop = CancellationToken::new();
        let (archive, kept, stopped) = (archive.to_owned(), folder.to_owned(), stop.clone());
        let task = tokio::spawn(async move {
            let mut known = BTreeSet::new();
            let mut ticks = interval(EVERY);
            while !stopped.is_cancelled() {
                ticks.tick().await;
                link_new(&archive, &kept, &mut known)?;
            }
            Ok(())
        });
        Self {
            folder: folder.to_owned(),
            stop,
            task,
        }
    }

    /// The folder with the links.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stops linking, and returns the folder.
    ///
    /// # Errors
    /// [`DemoError`] if a link could not be made meanwhile.
    pub async fn stop(self) -> Result<PathBuf, DemoError> {
        self.stop.cancel();
        self.task
            .await
            .map_err(|error| DemoError::Account(error.to_string()))??;
        Ok(self.folder)
    }
}

fn link_new(archive: &Path, kept: &Path, known: &mut BTreeSet<PathBuf>) -> Result<(), DemoError> {
    for (_, path) in frames::files(archive)? {
        if known.contains(&path) {
            continue;
        }
        let Ok(below) = path.strip_prefix(archive) else {
            continue;
        };
        let link = kept.join(below);
        if let Some(folder) = link.parent() {
            std::fs::create_dir_all(folder).map_err(DemoError::io("can't create a folder to keep files"))?;
        }
        match std::fs::hard_link(&path, &link) {
            // It may have been erased since it was listed.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DemoError::io(format!("can't link {}", path.display()))(error));
            }
            _ => known.insert(path),
        };
    }
    Ok(())
}
