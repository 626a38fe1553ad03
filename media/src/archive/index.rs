//! The index of what the archive holds: `index.db` in its folder. Several processes may have it open.
//! Says what is known of files; never touches them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use understudy_core::{
    contract::segment::Segment,
    ids::{CameraId, FailoverId, ServerId},
    time::Timestamp,
};

use super::{ArchiveError, path::Kind};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

diesel::table! {
    segments (path) {
        path -> Text,
        camera -> Text,
        recorded_by -> Text,
        failover -> Nullable<Text>,
        start_ms -> BigInt,
        end_ms -> BigInt,
        bytes -> BigInt,
        frames -> BigInt,
        blake3 -> Text,
        state -> Text,
        damaged -> Nullable<Text>,
    }
}

diesel::table! {
    filming (id) {
        id -> Integer,
        since_ms -> BigInt,
        failover -> Nullable<Text>,
        ended -> Bool,
    }
}

diesel::table! {
    taken (path) {
        path -> Text,
        failover -> Nullable<Text>,
    }
}

/// The file is there.
const CLOSED: &str = "closed";
/// It was handed over from another server, and retention took it: it counts as delivered.
const EXPIRED: &str = "expired";

/// The hash of a file that could not be repaired: it is none, so nothing is ever taken for it.
pub(super) const UNKNOWN: &str = "";

/// How many segments retention looks at at a time; what is left over is taken the next time.
const PAGE: i64 = 1_000;

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = segments, treat_none_as_null = true)]
struct Row {
    path: String,
    camera: String,
    recorded_by: String,
    failover: Option<String>,
    start_ms: i64,
    end_ms: i64,
    bytes: i64,
    frames: i64,
    blake3: String,
    state: String,
    damaged: Option<String>,
}

impl Row {
    fn closed(segment: &Segment) -> Self {
        Self {
            path: segment.path.clone(),
            camera: segment.camera.to_string(),
            recorded_by: segment.recorded_by.to_string(),
            failover: segment.failover.as_ref().map(FailoverId::to_string),
            start_ms: segment.start.as_millis(),
            end_ms: segment.end.as_millis(),
            bytes: i64::try_from(segment.bytes).unwrap_or(i64::MAX),
            frames: i64::try_from(segment.frames).unwrap_or(i64::MAX),
            blake3: segment.blake3.clone(),
            state: CLOSED.to_owned(),
            damaged: None,
        }
    }

    /// None if an id is no id: then somebody else wrote the row.
    fn into_segment(self) -> Option<Segment> {
        Some(Segment {
            path: self.path,
            camera: CameraId::new(self.camera).ok()?,
            recorded_by: ServerId::new(self.recorded_by).ok()?,
            failover: self.failover.map(FailoverId::new).transpose().ok()?,
            start: Timestamp(self.start_ms),
            end: Timestamp(self.end_ms),
            bytes: u64::try_from(self.bytes).ok()?,
            frames: u64::try_from(self.frames).ok()?,
            blake3: self.blake3,
        })
    }
}

/// Which segments are asked for; without a field, it does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this camera.
    pub camera: Option<CameraId>,
    /// Ending after this moment.
    pub from: Option<Timestamp>,
    /// Beginning before this moment.
    pub to: Option<Timestamp>,
    /// Recorded for this failover.
    pub failover: Option<FailoverId>,
    /// Recorded by this server.
    pub recorded_by: Option<ServerId>,
    /// Of this kind.
    pub kind: Option<Kind>,
}

/// A handle to the index. Its calls block for as long as the disk needs.
#[derive(Clone)]
pub(super) struct Index {
    connection: Arc<Mutex<SqliteConnection>>,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

/// An entry about filming: its number, since when, for what, and whether all of it is indexed.
pub(super) type Began = (i32, Timestamp, Option<FailoverId>, bool);

type Answer<T> = Result<T, ArchiveError>;

impl Index {
    pub(super) fn open(file: &Path) -> Answer<Self> {
        // A row that says closed is on disk when the call returns.
        let mut connection = understudy_store::connect(file).map_err(|error| ArchiveError::Open {
            path: file.to_owned(),
            reason: error.to_string(),
        })?;
        // Two processes may open a new index at once: the transaction lets one of them go first.
        connection.immediate_transaction(|connection| {
            connection
                .run_pending_migrations(MIGRATIONS)
                .map(drop)
                .map_err(|error| ArchiveError::Open {
                    path: file.to_owned(),
                    reason: error.to_string(),
                })
        })?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T>) -> Answer<T> {
        // A panic in here leaves no half-done transaction behind: SQLite rolls it back.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(connection.immediate_transaction(work)?)
    }

    /// Keeps no writer waiting: whoever only reads takes no lock that another process needs to add a segment.
    fn read<T>(&self, work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T>) -> Answer<T> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(connection.transaction(work)?)
    }

    /// Adds segments whose files are durable, or replaces what was said of them.
    pub(super) fn add(&self, closed: &[Segment]) -> Answer<()> {
        self.with(|connection| {
            for row in closed.iter().map(Row::closed) {
                diesel::insert_into(segments::table)
                    .values(&row)
                    .on_conflict(segments::path)
                    .do_update()
                    .set(&row)
                    .execute(connection)?;
                diesel::delete(taken::table.find(&row.path)).execute(connection)?;
            }
            Ok(())
        })
    }

    /// Adds segments that were found, each with what is wrong with it. What is said of a file already stays,
    /// unless it was that the file can't be repaired: who closed or imported it knows more.
    pub(super) fn add_found(&self, found: &[(Segment, Option<String>)]) -> Answer<()> {
        self.with(|connection| {
            for (segment, damaged) in found {
                let row = Row {
                    damaged: damaged.clone(),
                    ..Row::closed(segment)
                };
                let known = segments::table.find(&row.path);
                diesel::delete(known.filter(segments::blake3.eq(UNKNOWN))).execute(connection)?;
                diesel::insert_or_ignore_into(segments::table)
                    .values(&row)
                    .execute(connection)?;
                diesel::delete(taken::table.find(&row.path)).execute(connection)?;
            }
            Ok(())
        })
    }

    /// Notes why a file is not what its row says, or that it is.
    pub(super) fn mark(&self, path: &str, damaged: Option<&str>) -> Answer<()> {
        self.with(|connection| {
            let marked = segments::table.find(path).select(segments::damaged);
            let marked: Option<Option<String>> = marked.first(connection).optional()?;
            if marked.is_none_or(|marked| marked.as_deref() == damaged) {
                return Ok(());
            }
            diesel::update(segments::table.find(path))
                .set(segments::damaged.eq(damaged))
                .execute(connection)
                .map(drop)
        })
    }

    /// Of `own` recordings for a failover, those that are not what their rows say, each with why.
    pub(super) fn damaged(&self, failover: &FailoverId, own: &ServerId) -> Answer<BTreeMap<String, String>> {
        let damaged: Vec<(String, Option<String>)> = self.read(|connection| {
            segments::table
                .filter(segments::failover.eq(failover.as_str()))
                .filter(segments::recorded_by.eq(own.as_str()))
                .filter(segments::damaged.is_not_null())
                .select((segments::path, segments::damaged))
                .load(connection)
        })?;
        Ok(damaged
            .into_iter()
            .filter_map(|(path, reason)| Some((path, reason?)))
            .collect())
    }

    /// Segments whose files are there, oldest first.
    pub(super) fn closed(&self, filter: &Filter) -> Answer<Vec<Segment>> {
        self.read(|connection| {
            let mut query = segments::table.filter(segments::state.eq(CLOSED)).into_boxed();
            if let Some(camera) = &filter.camera {
                query = query.filter(segments::camera.eq(camera.as_str()));
            }
            if let Some(failover) = &filter.failover {
                query = query.filter(segments::failover.eq(failover.as_str()));
            }
            if let Some(server) = &filter.recorded_by {
                query = query.filter(segments::recorded_by.eq(server.as_str()));
            }
            if let Some(kind) = filter.kind {
                query = query.filter(segments::path.like(format!("%{}", kind.extension())));
            }
            if let Some(from) = filter.from {
                query = query.filter(segments::end_ms.gt(from.as_millis()));
            }
            if let Some(to) = filter.to {
                query = query.filter(segments::start_ms.lt(to.as_millis()));
            }
            let rows: Vec<Row> = query
                .order((segments::start_ms, segments::path))
                .load(connection)?;
            Ok(rows.into_iter().filter_map(Row::into_segment).collect())
        })
    }

    /// Path and hash of each segment of a failover that is here, or was handed over and has expired.
    pub(super) fn known(&self, failover: &FailoverId) -> Answer<Vec<(String, String)>> {
        self.read(|connection| {
            segments::table
                .filter(segments::failover.eq(failover.as_str()))
                .select((segments::path, segments::blake3))
                .load(connection)
        })
    }

    /// Paths of all files that are said to lie in `folder`, which ends with a slash; true for those that could
    /// not be repaired.
    pub(super) fn paths_in(&self, folder: &str) -> Answer<Vec<(String, bool)>> {
        self.read(|connection| {
            segments::table
                .filter(segments::state.eq(CLOSED).and(segments::path.ge(folder)))
                .filter(segments::path.lt(format!("{}0", folder.trim_end_matches('/'))))
                .select((segments::path, segments::blake3.eq(UNKNOWN)))
                .load(connection)
        })
    }

    /// Bytes of all files, or of one camera's; without those that another server has still to fetch from
    /// `own` if that is given.
    pub(super) fn bytes(&self, camera: Option<&CameraId>, own: Option<&ServerId>) -> Answer<u64> {
        let sum = diesel::dsl::sql::<diesel::sql_types::BigInt>("COALESCE(SUM(bytes), 0)");
        let bytes: i64 = self.read(|connection| {
            let mut query = segments::table
                .filter(segments::state.eq(CLOSED))
                .select(sum)
                .into_boxed();
            if let Some(camera) = camera {
                query = query.filter(segments::camera.eq(camera.as_str()));
            }
            if let Some(own) = own {
                query = query.filter(
                    segments::failover
                        .is_null()
                        .or(segments::recorded_by.ne(own.as_str())),
                );
            }
            query.first(connection)
        })?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    /// Bytes and milliseconds of what `own` recorded of a camera since a moment.
    pub(super) fn recorded_since(
        &self,
        camera: &CameraId,
        own: &ServerId,
        since: Timestamp,
    ) -> Answer<(u64, u64)> {
        let sums = diesel::dsl::sql::<(diesel::sql_types::BigInt, diesel::sql_types::BigInt)>(
            "COALESCE(SUM(bytes), 0), COALESCE(SUM(end_ms - start_ms), 0)",
        );
        let (bytes, millis): (i64, i64) = self.read(|connection| {
            segments::table
                .filter(
                    segments::camera
                        .eq(camera.as_str())
                        .and(segments::start_ms.ge(since.0)),
                )
                .filter(
                    segments::state
                        .eq(CLOSED)
                        .and(segments::recorded_by.eq(own.as_str())),
                )
                .select(sums)
                .first(connection)
        })?;
        Ok((
            u64::try_from(bytes).unwrap_or(0),
            u64::try_from(millis).unwrap_or(0),
        ))
    }

    /// The oldest files of a camera, or of all: those that another server has still to fetch from `own`, or
    /// all others. A page of them, so that an archive of millions is never read whole.
    pub(super) fn oldest(
        &self,
        camera: Option<&CameraId>,
        own: &ServerId,
        held: bool,
    ) -> Answer<Vec<Segment>> {
        self.read(|connection| {
            let mut query = segments::table.filter(segments::state.eq(CLOSED)).into_boxed();
            if let Some(camera) = camera {
                query = query.filter(segments::camera.eq(camera.as_str()));
            }
            query = if held {
                // One of no bytes is gone already, and only named.
                query.filter(
                    segments::failover
                        .is_not_null()
                        .and(segments::recorded_by.eq(own.as_str()))
                        .and(segments::bytes.gt(0)),
                )
            } else {
                query.filter(
                    segments::failover
                        .is_null()
                        .or(segments::recorded_by.ne(own.as_str())),
                )
            };
            let rows: Vec<Row> = query
                .order((segments::start_ms, segments::path))
                .limit(PAGE)
                .load(connection)?;
            Ok(rows.into_iter().filter_map(Row::into_segment).collect())
        })
    }

    /// Forgets files that are gone; of those that another server handed over it is kept in mind that they
    /// were here.
    pub(super) fn remove(&self, paths: &[String], own: &ServerId) -> Answer<()> {
        self.with(|connection| {
            for path in paths {
                let row = segments::table.filter(segments::path.eq(path));
                diesel::update(
                    row.filter(
                        segments::recorded_by
                            .ne(own.as_str())
                            .and(segments::failover.is_not_null()),
                    ),
                )
                .set(segments::state.eq(EXPIRED))
                .execute(connection)?;
                diesel::delete(row.filter(segments::state.eq(CLOSED))).execute(connection)?;
            }
            Ok(())
        })
    }

    /// All entries about filming, in their order.
    pub(super) fn filming(&self) -> Answer<Vec<Began>> {
        let rows: Vec<(i32, i64, Option<String>, bool)> =
            self.read(|connection| filming::table.order(filming::id).load(connection))?;
        let entry = |(id, since, failover, ended): (i32, i64, Option<String>, bool)| {
            let failover = failover.and_then(|id| FailoverId::new(id).ok());
            (id, Timestamp(since), failover, ended)
        };
        Ok(rows.into_iter().map(entry).collect())
    }

    /// From now on this server films for `failover`; the files of `others`, which would seem to belong to it
    /// by their time, were taken for something else. Says the entry's number.
    pub(super) fn begin_filming(
        &self,
        since: Timestamp,
        failover: Option<&FailoverId>,
        others: &[(String, Option<FailoverId>)],
    ) -> Answer<i32> {
        self.with(|connection| {
            for (path, failover) in others {
                take(connection, path, failover.as_ref())?;
            }
            diesel::insert_into(filming::table)
                .values((
                    filming::since_ms.eq(since.as_millis()),
                    filming::failover.eq(failover.map(FailoverId::as_str)),
                    filming::ended.eq(false),
                ))
                .execute(connection)?;
            let last: Option<i32> = filming::table
                .select(diesel::dsl::max(filming::id))
                .first(connection)?;
            Ok(last.unwrap_or(0))
        })
    }

    /// Notes for what a file is filmed.
    pub(super) fn take(&self, path: &str, failover: Option<&FailoverId>) -> Answer<()> {
        self.with(|connection| take(connection, path, failover))
    }

    /// All that was filmed under these entries is closed and indexed.
    pub(super) fn end_filming(&self, ids: &[i32]) -> Answer<()> {
        self.with(|connection| {
            diesel::update(filming::table.filter(filming::id.eq_any(ids)))
                .set(filming::ended.eq(true))
                .execute(connection)
                .map(drop)
        })
    }

    /// For which failover a file without a row was filmed, which begins at a moment.
    pub(super) fn filmed_for(&self, path: &str, at: Timestamp) -> Answer<Option<FailoverId>> {
        let failover: Option<Option<String>> = self.with(|connection| {
            let noted = taken::table.find(path).select(taken::failover);
            if let Some(noted) = noted.first(connection).optional()? {
                return Ok(Some(noted));
            }
            filming::table
                .filter(filming::since_ms.le(at.as_millis()))
                .order(filming::id.desc())
                .select(filming::failover)
                .first(connection)
                .optional()
        })?;
        Ok(failover.flatten().and_then(|id| FailoverId::new(id).ok()))
    }

    /// Failovers of which this server has recordings of its own, or may have some without a row.
    pub(super) fn failovers(&self, own: &ServerId) -> Answer<BTreeSet<FailoverId>> {
        let names: Vec<Option<String>> = self.with(|connection| {
            let mut recorded: Vec<Option<String>> = segments::table
                .filter(
                    segments::failover
                        .is_not_null()
                        .and(segments::recorded_by.eq(own.as_str())),
                )
                .filter(segments::state.eq(CLOSED))
                .select(segments::failover)
                .distinct()
                .load(connection)?;
            let open = filming::table.filter(filming::failover.is_not_null().and(filming::ended.eq(false)));
            recorded.extend(
                open.select(filming::failover)
                    .load::<Option<String>>(connection)?,
            );
            Ok(recorded)
        })?;
        Ok(names
            .into_iter()
            .flatten()
            .filter_map(|id| FailoverId::new(id).ok())
            .collect())
    }

    /// What `own` recorded for a failover was recorded for none.
    pub(super) fn keep(&self, failover: &FailoverId, own: &ServerId) -> Answer<usize> {
        self.with(|connection| {
            let recorded = segments::table
                .filter(segments::failover.eq(failover.as_str()))
                .filter(segments::recorded_by.eq(own.as_str()));
            diesel::update(recorded)
                .set(segments::failover.eq(None::<String>))
                .execute(connection)
        })
    }

    /// Whether anything is filmed, or was and may still be without a row.
    pub(super) fn films(&self) -> Answer<bool> {
        self.with(|connection| {
            let open = filming::table.filter(filming::ended.eq(false));
            diesel::select(diesel::dsl::exists(open)).get_result(connection)
        })
    }

    /// The number of the last time that filming for `failover` began: they only grow, since entries are never removed.
    pub(super) fn begun(&self, failover: &FailoverId) -> Answer<Option<u64>> {
        let last: Option<i32> = self.read(|connection| {
            filming::table
                .filter(filming::failover.eq(failover.as_str()))
                .select(diesel::dsl::max(filming::id))
                .first(connection)
        })?;
        Ok(last.and_then(|id| u64::try_from(id).ok()))
    }

    /// Whether something filmed for `failover` may still be without a row.
    pub(super) fn films_for(&self, failover: &FailoverId) -> Answer<bool> {
        self.with(|connection| {
            let open = filming::table.filter(
                filming::failover
                    .eq(failover.as_str())
                    .and(filming::ended.eq(false)),
            );
            diesel::select(diesel::dsl::exists(open)).get_result(connection)
        })
    }
}

fn take(connection: &mut SqliteConnection, path: &str, failover: Option<&FailoverId>) -> QueryResult<()> {
    diesel::replace_into(taken::table)
        .values((
            taken::path.eq(path),
            taken::failover.eq(failover.map(FailoverId::as_str)),
        ))
        .execute(connection)
        .map(drop)
}
