//! Opens settings in a process of its own: whoever runs GStreamer, which reads what cameras send, never holds
//! the fleet's key.
//!
//! The child is started for one handful of bundles, reads the key from its file, takes the bundles as they came
//! on its standard input, one JSON object a line, and answers line by line on its standard output; then it ends,
//! and the key with it.

use std::{
    ffi::OsString,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use understudy_core::{contract::heartbeat::SealedBundle, settings::Bundle};
use understudy_runtime::seal::{FleetKey, SealError};

/// For how long the child may take: it does nothing but read, decrypt and write.
const DEADLINE: Duration = Duration::from_secs(20);
/// How often it is started anew when it did not come to its end by itself, and the pause before.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// One bundle's answer: the bundle, or in words why it can't be opened.
pub(crate) type Opened = Result<Bundle, String>;

/// How the child that opens bundles is started.
#[derive(Clone, Debug)]
pub struct Opener {
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// Why the child could not do its work at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenerError {
    /// It could not be started, or did not take or give what it should.
    #[error("the process that opens settings: {0}")]
    Process(#[from] io::Error),
    /// It took too long.
    #[error("the process that opens settings did not answer within {} s", DEADLINE.as_secs())]
    Late,
    /// It said itself what is wrong, for example with the key.
    #[error("{0}")]
    Said(String),
    /// It ended before it had answered for each bundle.
    #[error("the process that opens settings ended early: {0}")]
    Early(std::process::ExitStatus),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Opened(Bundle),
    Refused(String),
}

impl Opener {
    /// Starts `program` with `arguments`; it has to call [`answer`] with its standard input and output.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().collect(),
        }
    }

    /// Opens `sealed`, in order. Tries again when the child dies on the way.
    ///
    /// # Errors
    /// [`OpenerError`] if that child can't be had; a bundle that can't be opened is no error of this kind.
    pub(crate) async fn open(&self, sealed: &[SealedBundle]) -> Result<Vec<Opened>, OpenerError> {
        let mut tries = 1;
        loop {
            let once = tokio::time::timeout(DEADLINE, self.once(sealed)).await;
            match once.unwrap_or(Err(OpenerError::Late)) {
                Err(error) if tries < TRIES && !matches!(error, OpenerError::Said(_)) => {
                    tracing::warn!(%error, tries, "settings could not be opened, and are tried again");
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                opened => return opened,
            }
        }
    }

    async fn once(&self, sealed: &[SealedBundle]) -> Result<Vec<Opened>, OpenerError> {
        let mut child = tokio::process::Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut input = Vec::new();
        for bundle in sealed {
            serde_json::to_writer(&mut input, bundle).map_err(io::Error::from)?;
            input.push(b'\n');
        }
        let mut door = child.stdin.take();
        let give = async {
            if let Some(door) = &mut door {
                // Whoever has something to say about the key ends without reading.
                let _ = door.write_all(&input).await;
            }
            drop(door);
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), give);
        let output = output?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(match said.is_empty() {
                true => OpenerError::Early(output.status),
                false => OpenerError::Said(said),
            });
        }
        let opened: Vec<Opened> = serde_json::Deserializer::from_slice(&output.stdout)
            .into_iter::<Line>()
            .map(|line| {
                line.map(|line| match line {
                    Line::Opened(bundle) => Ok(bundle),
                    Line::Refused(why) => Err(why),
                })
            })
            .collect::<Result<_, _>>()
            .map_err(io::Error::from)?;
        match opened.len() == sealed.len() {
            true => Ok(opened),
            false => Err(OpenerError::Early(output.status)),
        }
    }
}

/// Why the child ends without having done its work.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The fleet's key can't be used.
    #[error(transparent)]
    Key(#[from] SealError),
    /// What came in, or where the answer goes.
    #[error("settings to be opened: {0}")]
    Io(#[from] io::Error),
}

/// The child's work: opens each bundle of `from` with the key of `key_file`, and answers to `to`.
///
/// # Errors
/// [`AnswerError`]; a bundle that can't be opened is an answer.
pub fn answer(key_file: &Path, from: impl BufRead, mut to: impl Write) -> Result<(), AnswerError> {
    let key = FleetKey::load(key_file)?;
    for line in from.lines() {
        let answer = match serde_json::from_str::<SealedBundle>(&line?) {
            Ok(sealed) => match key.open(&sealed) {
                Ok(bundle) => Line::Opened(bundle),
                Err(error) => Line::Refused(error.to_string()),
            },
            Err(error) => Line::Refused(error.to_string()),
        };
        serde_json::to_writer(&mut to, &answer).map_err(io::Error::from)?;
        to.write_all(b"\n")?;
    }
    Ok(to.flush()?)
}
