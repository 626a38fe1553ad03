//! One connection with a thread of its own, for one service of a process.

use std::{
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use diesel::{
    Connection as _, QueryResult, RunQueryDsl as _, connection::SimpleConnection as _,
    sqlite::SqliteConnection,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _};
use tokio::sync::{mpsc, oneshot};

use crate::outbox;

/// How long a statement waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(10);
/// How long [`Store::run_patiently`] waits before it tries again.
const PATIENT_PAUSE: Duration = Duration::from_millis(200);
/// How long it waits before it tries again what SQLite does not wait for.
const WAL_PAUSE: Duration = Duration::from_millis(20);
/// Jobs that wait for the thread: the callers wait beyond it.
const QUEUE: usize = 64;

/// Why the database can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its folder is not there and can't be made, or nothing can be written into it.
    #[error(
        "can't write into {}: {source}; make the folder writable for the user that runs understudy, or set host.data to another one",
        folder.display()
    )]
    Folder {
        /// Which folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It can't be opened.
    #[error("can't open the database {}: {source}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: diesel::ConnectionError,
    },
    /// A migration failed.
    #[error("can't bring the database {} up to date: {message}", path.display())]
    Migration {
        /// Which file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A statement failed.
    #[error("the database: {0}")]
    Query(#[from] diesel::result::Error),
    /// Its thread ended; it does so when a job panics.
    #[error("the database is closed")]
    Closed,
}

impl StoreError {
    /// Whether it may go well when tried again: another process was writing, or the disk was full.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Query(diesel::result::Error::DatabaseError(_, info))
            if info.message().contains("locked") || info.message().contains("full"))
    }
}

type Job = Box<dyn FnOnce(&mut SqliteConnection) + Send>;

/// One open database. Cheap to clone; all clones share one connection and its thread.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    path: Arc<PathBuf>,
}

impl Store {
    /// Opens the database at `path` (`:memory:` for one that nobody keeps), makes its folder and brings the
    /// outbox's and the service's tables up to date. Blocks; call it before anything runs.
    ///
    /// # Errors
    /// [`StoreError`] says what to do about it.
    pub fn open(path: impl AsRef<Path>, migrations: EmbeddedMigrations) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        if path.as_os_str() != ":memory:" {
            prepare(&path)?;
        }
        let connection = connect(&path)?;
        let connection = migrate(connection, &path, migrations)?;
        // Bounded: see QUEUE.
        let (jobs, waiting) = mpsc::channel(QUEUE);
        // Ends by itself when the last clone is dropped, its last job done.
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || work(connection, waiting))
            .map_err(|source| StoreError::Folder {
                folder: path.clone(),
                source,
            })?;
        Ok(Self {
            jobs,
            path: Arc::new(path),
        })
    }

    /// The database's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `job` in one transaction that holds the write lock from its start (`BEGIN IMMEDIATE`), on the
    /// database's thread. Everything that it does happens, or nothing.
    ///
    /// # Errors
    /// The job's own, or the commit's.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut SqliteConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, done) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // The caller may have gone meanwhile: what it asked for is done all the same.
            let _gone = answer.send(connection.immediate_transaction(job));
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        Ok(done.await.map_err(|_| StoreError::Closed)??)
    }

    /// As [`Store::run`], again and again for as long as what is in its way [passes](StoreError::is_passing).
    ///
    /// # Errors
    /// The first one that does not pass.
    pub async fn run_patiently<T: Send + 'static>(
        &self,
        job: impl Fn(&mut SqliteConnection) -> QueryResult<T> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        loop {
            match self.run(job.clone()).await {
                Err(error) if error.is_passing() => {
                    tracing::warn!(%error, "the database can't be used yet");
                    tokio::time::sleep(PATIENT_PAUSE).await;
                }
                other => return other,
            }
        }
    }
}

fn work(mut connection: SqliteConnection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        job(&mut connection);
    }
}

/// Makes folder and file, for this user only, and tries whether the folder can be written into: SQLite would
/// only say "unable to open".
fn prepare(path: &Path) -> Result<(), StoreError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let refused = |source| StoreError::Folder {
        folder: folder.to_owned(),
        source,
    };
    // Cameras' passwords lie in it in clear, whatever the umask says of files.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(refused)?;
    // Others may try at the same moment: other processes, and other threads of this one.
    let me = (std::process::id(), std::thread::current().id());
    let probe = folder.join(format!(".understudy-{me:?}"));
    std::fs::write(&probe, b"").map_err(refused)?;
    std::fs::remove_file(&probe).map_err(refused)?;
    // SQLite would make it readable for everybody; what lies beside it (WAL, index) inherits its mode.
    let created = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match created {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop).map_err(refused),
    }
}

/// Opens a file, which several processes may do at once: with WAL, `synchronous=FULL`, foreign keys, and ten seconds
/// of waiting for another's write.
///
/// # Errors
/// [`StoreError`].
pub fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    let mut connection =
        SqliteConnection::establish(&path.to_string_lossy()).map_err(|source| StoreError::Open {
            path: path.to_owned(),
            source,
        })?;
    connection.batch_execute(&format!("PRAGMA busy_timeout = {};", BUSY.as_millis()))?;
    switch_to_wal(&mut connection)?;
    connection.batch_execute("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    Ok(connection)
}

/// Several processes open the file at once, and the switch to WAL does not wait for a lock (SQLite, "WAL mode",
/// "Sometimes queries return SQLITE_BUSY in WAL mode"): whoever comes second tries again.
#[expect(
    clippy::disallowed_methods,
    reason = "opening blocks, as it says, and comes before anything runs"
)]
fn switch_to_wal(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let mut attempts = BUSY.as_millis() / WAL_PAUSE.as_millis();
    while let Err(error) = connection.batch_execute("PRAGMA journal_mode = WAL;") {
        let error = StoreError::from(error);
        if attempts == 0 || !error.is_passing() {
            return Err(error);
        }
        attempts -= 1;
        std::thread::sleep(WAL_PAUSE);
    }
    Ok(())
}

/// Brings the tables up to date under one lock, since several services do so at the same moment.
fn migrate(
    mut connection: SqliteConnection,
    path: &Path,
    migrations: EmbeddedMigrations,
) -> Result<SqliteConnection, StoreError> {
    let failed = |message: String| StoreError::Migration {
        path: path.to_owned(),
        message,
    };
    let mut problem = None;
    let done: QueryResult<()> = connection.immediate_transaction(|connection| {
        for set in [outbox::MIGRATIONS, migrations] {
            if let Err(error) = connection.run_pending_migrations(set) {
                problem = Some(error.to_string());
                return Err(diesel::result::Error::RollbackTransaction);
            }
        }
        diesel::sql_query("SELECT 1").execute(connection).map(drop)
    });
    match (done, problem) {
        (Ok(()), _) => Ok(connection),
        (Err(_), Some(problem)) => Err(failed(problem)),
        (Err(error), None) => Err(failed(error.to_string())),
    }
}
