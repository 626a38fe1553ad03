//! Files without a row: those that are being written, and those that could not be finished or repaired. And
//! what is filmed for, which says to whom such a file belongs.
//!
//! No failover's filming counts as over while a file of it is left: its manifest would say complete without
//! it. What is left is repaired again and again; what stays beyond repair is named in the index at last.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use understudy_core::{
    contract::segment::Segment,
    ids::{CameraId, FailoverId},
    time::Timestamp,
};

use super::{
    ArchiveError, Inner, NewFile, disk,
    index::{Began, UNKNOWN},
    path::{Kind, Name},
    recovery::Found,
};

/// How often a repair is tried before what is left is named as damaged: at one a second, half a minute.
const ATTEMPTS: u32 = 30;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What this process knows of files without a row.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    files: Mutex<BTreeMap<String, File>>,
    filming: Mutex<Filming>,
    /// Held while entries get their numbers, so that none gets two.
    noting: Mutex<()>,
}

/// A file, or a folder (its path ends with a slash) that can't be read.
#[derive(Clone, Debug)]
struct File {
    failover: Option<FailoverId>,
    start: Timestamp,
    /// None while it is written; then how often its repair was tried.
    left: Option<u32>,
}

#[derive(Debug, Default)]
struct Filming {
    entries: Vec<Entry>,
    /// How many of them are over: nothing is written for them any more.
    over: usize,
    /// Of these, the first ones that count only when it is known what they left behind.
    unknown: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    /// None until it is in the index.
    id: Option<i32>,
    since: Timestamp,
    failover: Option<FailoverId>,
    ended: bool,
}

impl Filming {
    /// As recovery would conclude from the time alone; none if there is nothing to conclude from.
    fn by_time(&self, at: Timestamp) -> Option<&Option<FailoverId>> {
        let entry = self.entries.iter().rev().find(|entry| entry.since <= at)?;
        Some(&entry.failover)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unfinished {
    pub(super) fn new(entries: Vec<Began>) -> Self {
        let entries = entries.into_iter().map(|(id, since, failover, ended)| Entry {
            id: Some(id),
            since,
            failover,
            ended,
        });
        let entries: Vec<Entry> = entries.collect();
        let filming = Filming {
            over: entries.len(),
            unknown: entries.len(),
            entries,
        };
        Self {
            filming: Mutex::new(filming),
            ..Self::default()
        }
    }

    /// How often filming was begun, by earlier processes included.
    pub(super) fn filmings(&self) -> usize {
        lock(&self.filming).entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.files).is_empty()
    }

    pub(super) fn has_left(&self) -> bool {
        let filming = lock(&self.filming);
        let unnoted = filming.entries.iter().any(|entry| entry.id.is_none());
        drop(filming);
        unnoted || lock(&self.files).values().any(|file| file.left.is_some())
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        lock(&self.files).contains_key(path)
    }

    pub(super) fn finished(&self, path: &str) {
        lock(&self.files).remove(path);
    }

    /// It could not be finished, and is to be repaired.
    pub(super) fn leave(&self, path: &str) {
        if let Some(file) = lock(&self.files).get_mut(path) {
            file.left = Some(file.left.map_or(0, |tried| tried + 1));
        }
    }

    /// An earlier run left it behind, and it can't be repaired now.
    pub(super) fn leave_behind(&self, path: &str, failover: Option<FailoverId>) {
        let start = Name::parse(path).map_or(Timestamp(0), |name| name.start);
        lock(&self.files).entry(path.to_owned()).or_insert(File {
            failover,
            start,
            left: None,
        });
        self.leave(path);
    }

    pub(super) fn failover_of(&self, path: &str) -> Option<Option<FailoverId>> {
        Some(lock(&self.files).get(path)?.failover.clone())
    }

    fn left(&self) -> Vec<(String, File, u32)> {
        let files = lock(&self.files);
        let left = files
            .iter()
            .filter_map(|(path, file)| Some((path.clone(), file.clone(), file.left?)));
        left.collect()
    }
}

/// Whether it is a folder's path, not a file's.
fn is_folder(path: &str) -> bool {
    path.ends_with('/')
}

impl Inner {
    /// Takes a new file; see [`super::Archive::create`].
    pub(super) fn create(
        &self,
        kind: Kind,
        camera: &CameraId,
        start: Timestamp,
        failover: Option<&FailoverId>,
    ) -> io::Result<NewFile> {
        let mut name = Name {
            kind,
            camera: camera.clone(),
            start,
            server: self.server.clone(),
        };
        let taken = loop {
            let path = name.path();
            let file = self.folder.join(&path);
            disk::create_folder_of(&file)?;
            let new = File {
                failover: failover.cloned(),
                start: name.start,
                left: None,
            };
            // One that is left there is somebody else's, and keeps its entry.
            let ours = !self.unfinished.contains(&path);
            if ours {
                lock(&self.unfinished.files).insert(path.clone(), new);
            }
            match disk::reserve(&file) {
                Ok(()) => {
                    break NewFile {
                        path,
                        file,
                        start: name.start,
                    };
                }
                Err(error) => {
                    if ours {
                        self.unfinished.finished(&path);
                    }
                    if error.kind() != io::ErrorKind::AlreadyExists {
                        return Err(error);
                    }
                    name.start = Timestamp(name.start.as_millis() + 1);
                }
            }
        };
        self.note_if_unexpected(&taken, failover);
        Ok(taken)
    }

    /// A clock that was set back puts a file under an older entry: then it is noted for what it is filmed.
    fn note_if_unexpected(&self, file: &NewFile, failover: Option<&FailoverId>) {
        let expected = lock(&self.unfinished.filming)
            .by_time(file.start)
            .is_some_and(|by_time| by_time.as_ref() == failover);
        if expected || (failover.is_none() && self.unfinished.filmings() == 0) {
            return;
        }
        if let Err(error) = self.index.take(&file.path, failover) {
            // Filming goes first.
            tracing::error!(
                segment.path = file.path, %error,
                "it could not be noted for which failover is filmed, though the clock was set back"
            );
        }
    }

    pub(super) fn begin_filming(
        &self,
        since: Timestamp,
        failover: Option<FailoverId>,
    ) -> Result<(), ArchiveError> {
        lock(&self.unfinished.filming).entries.push(Entry {
            id: None,
            since,
            failover,
            ended: false,
        });
        self.note_filming()
    }

    /// Puts into the index what is filmed for and is not in it yet.
    fn note_filming(&self) -> Result<(), ArchiveError> {
        let _one_at_a_time = lock(&self.unfinished.noting);
        loop {
            let unnoted = {
                let filming = lock(&self.unfinished.filming);
                let mut entries = filming.entries.iter().enumerate();
                entries
                    .find(|(_, entry)| entry.id.is_none())
                    .map(|(at, entry)| (at, entry.clone()))
            };
            let Some((at, entry)) = unnoted else {
                return Ok(());
            };
            let others: Vec<(String, Option<FailoverId>)> = lock(&self.unfinished.files)
                .iter()
                .filter(|(path, file)| {
                    !is_folder(path) && file.start >= entry.since && file.failover != entry.failover
                })
                .map(|(path, file)| (path.clone(), file.failover.clone()))
                .collect();
            let id = self
                .index
                .begin_filming(entry.since, entry.failover.as_ref(), &others)?;
            lock(&self.unfinished.filming).entries[at].id = Some(id);
        }
    }

    /// Nothing is written any more under the first `over` entries.
    pub(super) fn end_filming(&self, over: usize) -> Result<(), ArchiveError> {
        {
            let mut filming = lock(&self.unfinished.filming);
            filming.over = filming.over.max(over);
        }
        self.settle()
    }

    /// What earlier processes left behind is indexed, or among what is left.
    pub(super) fn end_recovered(&self) -> Result<(), ArchiveError> {
        lock(&self.unfinished.filming).unknown = 0;
        self.settle()
    }

    /// Ends in the index what is over and of which nothing is left.
    fn settle(&self) -> Result<(), ArchiveError> {
        self.note_filming()?;
        let left = self.unfinished.left();
        let folders = left.iter().any(|(path, ..)| is_folder(path));
        let owners: HashSet<Option<FailoverId>> =
            left.into_iter().map(|(_, file, _)| file.failover).collect();
        let whole: Vec<i32> = {
            let filming = lock(&self.unfinished.filming);
            let over = filming.entries.iter().take(filming.over).skip(filming.unknown);
            over.filter(|entry| !entry.ended && !folders && !owners.contains(&entry.failover))
                .filter_map(|entry| entry.id)
                .collect()
        };
        if whole.is_empty() {
            return Ok(());
        }
        self.index.end_filming(&whole)?;
        let mut filming = lock(&self.unfinished.filming);
        for entry in &mut filming.entries {
            entry.ended |= entry.id.is_some_and(|id| whole.contains(&id));
        }
        Ok(())
    }

    /// Makes a file durable and gives it its row.
    pub(super) fn close(&self, segment: &Segment) -> Result<(), ArchiveError> {
        let file = self.folder.join(&segment.path);
        let closed = disk::sync(&self.folder, &file)
            .inspect_err(|error| self.refusals.note(error))
            .map_err(ArchiveError::file(&file))
            .and_then(|()| self.index.add(std::slice::from_ref(segment)));
        self.finished_or_left(&segment.path, closed)
    }

    pub(super) fn discard(&self, path: &str) -> Result<(), ArchiveError> {
        let file = self.folder.join(path);
        self.finished_or_left(path, disk::delete(&file).map_err(ArchiveError::file(&file)))
    }

    pub(super) fn repair_one(&self, path: &str) -> Result<(), ArchiveError> {
        let failover = self.unfinished.failover_of(path);
        let repaired = self.try_repair(path, failover).and_then(|found| match found {
            Found::Recording { segment, .. } => self.index.add_found(&[(segment, None)]),
            Found::Nothing => Ok(()),
        });
        self.finished_or_left(path, repaired)
    }

    fn finished_or_left<T>(&self, path: &str, done: Result<T, ArchiveError>) -> Result<T, ArchiveError> {
        match &done {
            Ok(_) => self.unfinished.finished(path),
            Err(_) => self.unfinished.leave(path),
        }
        done
    }

    /// Tries once more to repair what is left; says how much is left still.
    pub(super) fn mend(&self) -> Result<usize, ArchiveError> {
        for (path, file, tried) in self.unfinished.left() {
            let mended = if is_folder(&path) {
                self.recover_folders(&path)
                    .map(|_| self.unfinished.finished(&path))
            } else {
                self.repair_one(&path)
            };
            match mended {
                Ok(()) => tracing::info!(segment.path = path, "repaired what could not be closed"),
                Err(error) if tried + 1 >= ATTEMPTS => self.give_up(&path, &file, &error.to_string())?,
                Err(_) if is_folder(&path) => self.unfinished.leave(&path),
                Err(_) => {}
            }
        }
        self.settle()?;
        Ok(self.unfinished.left().len())
    }

    /// Names in the index what can't be repaired: another server that is to fetch it hears of it, and has it
    /// on its list of what is damaged.
    fn give_up(&self, path: &str, file: &File, reason: &str) -> Result<(), ArchiveError> {
        tracing::error!(segment.path = path, reason, "a recording is beyond repair");
        let lost: Vec<(Segment, Option<String>)> = if is_folder(path) {
            self.lost_in(path)
        } else {
            let name = Name::parse(path).filter(|_| file.failover.is_some());
            name.map(|name| self.lost(name, file.failover.clone()))
                .into_iter()
                .collect()
        }
        .into_iter()
        .map(|segment| (segment, Some(format!("it could not be repaired: {reason}"))))
        .collect();
        self.index.add_found(&lost)?;
        self.unfinished.finished(path);
        Ok(())
    }

    fn lost(&self, name: Name, failover: Option<FailoverId>) -> Segment {
        let path = name.path();
        let bytes = fs::metadata(self.folder.join(&path)).map_or(0, |file| file.len());
        Segment {
            path,
            camera: name.camera,
            recorded_by: self.server.clone(),
            failover,
            start: name.start,
            end: name.start,
            bytes,
            frames: 0,
            blake3: UNKNOWN.to_owned(),
        }
    }

    /// Nobody knows what lies in a folder that can't be read: one entry stands for it in each failover that
    /// may have something in it.
    fn lost_in(&self, folder: &str) -> Vec<Segment> {
        let mut parts = folder.trim_end_matches('/').split('/');
        let Some(camera) = parts.next().and_then(|camera| CameraId::new(camera).ok()) else {
            return Vec::new();
        };
        let below = parts.next().unwrap_or_default();
        let day =
            Name::parse(&format!("{camera}/{below}/00-00-00.000-{}.mp4", self.server)).map(|name| name.start);
        let kind = if below == "snapshots" {
            Kind::Snapshot
        } else {
            Kind::Segment
        };
        let filming = lock(&self.unfinished.filming);
        let open = filming.entries.iter().take(filming.over).filter(|entry| {
            let over = day.is_some_and(|day| day.as_millis() + DAY_MS <= entry.since.as_millis());
            !entry.ended && entry.failover.is_some() && !over
        });
        let lost = open.map(|entry| {
            let name = Name {
                kind,
                camera: camera.clone(),
                start: day.map_or(entry.since, |day| day.max(entry.since)),
                server: self.server.clone(),
            };
            self.lost(name, entry.failover.clone())
        });
        lost.collect()
    }
}

#[cfg(test)]
mod tests {
    use understudy_core::ids::ServerId;

    use super::{super::Archive, *};

    fn failover(id: &str) -> Option<FailoverId> {
        Some(FailoverId::new(id).expect("valid"))
    }

    #[tokio::test]
    async fn e1_a_clock_that_is_set_back_makes_no_file_another_failovers() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let camera = CameraId::new("cam-001")?;
        let server = ServerId::new("spare-1")?;
        let archive = Archive::open(folder.path(), server.clone())?;
        archive.begin_filming(Timestamp(100_000), None).await?;
        archive.begin_filming(Timestamp(200_000), failover("f-1")).await?;
        let create = |at, failover: &Option<FailoverId>| {
            archive.create(Kind::Snapshot, &camera, Timestamp(at), failover.as_ref())
        };
        let first = create(210_000, &failover("f-1"))?;
        let set_back = create(50_000, &failover("f-1"))?;
        let further_back = create(1_000, &failover("f-1"))?;
        // It films for another one, by a clock that was set back once more.
        archive.begin_filming(Timestamp(205_000), failover("f-2")).await?;
        let second = create(206_000, &failover("f-2"))?;
        for file in [&first, &set_back, &further_back, &second] {
            fs::write(&file.file, b"a picture")?;
        }
        drop(archive);

        let archive = Archive::open(folder.path(), server)?;
        archive.recover().await?;
        let of = async |id: &str| -> anyhow::Result<Vec<String>> {
            let manifest = archive.manifest(&failover(id).expect("an id"), true).await?;
            assert!(manifest.complete);
            Ok(manifest
                .segments
                .into_iter()
                .map(|segment| segment.path)
                .collect())
        };
        assert_eq!(of("f-1").await?, [further_back.path, set_back.path, first.path]);
        assert_eq!(of("f-2").await?, [second.path]);
        Ok(())
    }

    /// A server that filmed one picture for `f-1`, whose file is gone when it is to be closed.
    async fn unclosed(folder: &std::path::Path) -> anyhow::Result<(Archive, NewFile)> {
        let archive = Archive::open(folder, ServerId::new("spare-1")?)?;
        let camera = CameraId::new("cam-001")?;
        let failover = failover("f-1");
        archive
            .begin_filming(Timestamp(100_000), failover.clone())
            .await?;
        let file = archive.create(Kind::Snapshot, &camera, Timestamp(200_000), failover.as_ref())?;
        fs::remove_file(&file.file)?;
        let segment = Segment {
            path: file.path.clone(),
            camera,
            recorded_by: ServerId::new("spare-1")?,
            failover,
            start: file.start,
            end: file.start,
            bytes: 9,
            frames: 1,
            blake3: blake3::hash(b"a picture").to_hex().to_string(),
        };
        assert!(archive.close(&segment).is_err());
        archive.end_filming(archive.filmings()).await?;
        Ok((archive, file))
    }

    #[tokio::test]
    async fn g2_a_file_that_could_not_be_closed_holds_its_manifest_open_until_it_is_mended()
    -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (archive, file) = unclosed(folder.path()).await?;
        let f_1 = FailoverId::new("f-1")?;
        assert!(!archive.manifest(&f_1, true).await?.complete);
        assert_eq!(archive.mend().await?, 1);
        assert!(!archive.manifest(&f_1, true).await?.complete);
        // The disk is well again.
        fs::write(&file.file, b"a picture")?;
        assert_eq!(archive.mend().await?, 0);
        let manifest = archive.manifest(&f_1, true).await?;
        assert!(manifest.complete && !archive.is_left());
        assert_eq!(manifest.segments[0].path, file.path);
        Ok(())
    }

    #[tokio::test]
    async fn g2_what_stays_beyond_repair_is_named_as_damaged_before_the_manifest_is_complete()
    -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (archive, file) = unclosed(folder.path()).await?;
        let f_1 = FailoverId::new("f-1")?;
        for _ in 0..ATTEMPTS {
            assert!(!archive.manifest(&f_1, true).await?.complete);
            archive.mend().await?;
        }
        let manifest = archive.manifest(&f_1, true).await?;
        assert!(manifest.complete);
        let [named] = &manifest.segments[..] else {
            anyhow::bail!("it is lost in silence: {manifest:?}");
        };
        assert_eq!((&named.path, &named.blake3[..]), (&file.path, UNKNOWN));
        // A restart forgets neither it nor what it was filmed for.
        archive.recover().await?;
        assert_eq!(archive.manifest(&f_1, true).await?.segments.len(), 1);
        assert!(matches!(
            archive.verify(named).await?,
            super::super::Verdict::Damaged(_)
        ));
        Ok(())
    }
}
