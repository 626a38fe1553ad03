//! What the recording volume refused while it was recorded to (row C3): whoever probes it touches one small file, and
//! a disk may be bad elsewhere.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::errno::Errno;
use understudy_core::{
    contract::heartbeat::{VOLUME_ERRORS_COUNT_FOR, VolumeErrors},
    time::Monotonic,
};
use understudy_runtime::clock;

/// So many of the newest are known.
const NEWEST: usize = 16;
/// Errors within this time of one another are one fault.
const ONE_FAULT: Duration = Duration::from_millis(900);

/// What a volume ends an operation with that it does not carry out (errno(3)): of disks and what leads to them as Linux'
/// block layer names it (`blk_errors` in block/blk-core.c), of file systems, of network mounts, of FUSE.
const REFUSALS: [Errno; 14] = [
    Errno::EIO,
    Errno::ENODATA,
    Errno::ENOLINK,
    Errno::ETIMEDOUT,
    Errno::EILSEQ,
    Errno::EREMOTEIO,
    Errno::ENXIO,
    Errno::ENODEV,
    Errno::EROFS,
    Errno::EUCLEAN,
    Errno::EBADMSG,
    Errno::ESTALE,
    Errno::ENOTCONN,
    Errno::ESHUTDOWN,
];

/// The newest refusals. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    newest: Arc<Mutex<Newest>>,
}

#[derive(Debug, Default)]
struct Newest {
    at: VecDeque<Monotonic>,
    words: String,
}

impl Refusals {
    /// Notes what an operation on the volume ended with, if that is the volume's fault: not that it is full, nor that
    /// this process lacks something.
    pub(crate) fn note(&self, error: &io::Error) {
        let refused = error
            .raw_os_error()
            .map(Errno::from_raw)
            .filter(|error| REFUSALS.contains(error));
        if let Some(error) = refused {
            self.refused(words(error));
        }
    }

    /// The same of what somebody has put into words, as GStreamer does: the system's own stand at their end.
    pub(crate) fn note_words(&self, said: &str) {
        let refused = REFUSALS.map(words);
        if let Some(words) = refused.into_iter().find(|words| said.ends_with(words.as_str())) {
            self.refused(words);
        }
    }

    fn refused(&self, words: String) {
        let now = clock::now().monotonic;
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.words = words;
        // One fault meets each file that is written at that moment, and the volume as a whole.
        if newest.at.front().is_none_or(|at| now.since(*at) >= ONE_FAULT) {
            newest.at.push_front(now);
            newest.at.truncate(NEWEST);
        }
    }

    /// What was refused in the last ten minutes; none if nothing was.
    #[must_use]
    pub fn lately(&self) -> Option<VolumeErrors> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now().monotonic;
        let ages = newest.at.iter().map(|at| now.since(*at));
        let ages_ms: Vec<u64> = ages
            .take_while(|age| *age < VOLUME_ERRORS_COUNT_FOR)
            .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
            .collect();
        (!ages_ms.is_empty()).then(|| VolumeErrors {
            ages_ms,
            newest: newest.words.clone(),
        })
    }
}

/// As the system says it, e.g. "Input/output error".
fn words(error: Errno) -> String {
    let said = io::Error::from(error).to_string();
    said.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c3_what_the_volume_refuses_is_counted_and_what_is_not_its_fault_is_not() {
        let refusals = Refusals::default();
        for harmless in [Errno::ENOSPC, Errno::EDQUOT, Errno::EMFILE, Errno::EACCES] {
            refusals.note(&io::Error::from(harmless));
            let said = format!("Error while writing to file descriptor 7: {}", words(harmless));
            refusals.note_words(&said);
        }
        assert_eq!(refusals.lately(), None);
        for _ in 0..10 {
            refusals.clone().note(&io::Error::from(Errno::ENODATA));
            refusals.note_words("Error while writing to file descriptor 7: Input/output error");
        }
        let lately = refusals.lately().expect("refused");
        assert_eq!(lately.ages_ms.len(), 1, "one fault");
        assert_eq!(lately.newest, "Input/output error");
    }
}
