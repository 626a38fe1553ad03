//! What the recording volume refused while it was recorded to (row C3): whoever probes it touches one small file, and
//! a disk may be bad elsewhere.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::errno::Errno;
use understudy_core::{contract::heartbeat::VolumeErrors, time::Monotonic};
use understudy_runtime::clock;

/// So many of the newest are known.
const NEWEST: usize = 16;
/// For how long one is spoken of.
const MEMORY: Duration = Duration::from_secs(10 * 60);

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
        if is_refusal(error) {
            let words = error.to_string();
            self.refused(words.split(" (os error").next().unwrap_or_default());
        }
    }

    /// Notes a refusal, in the system's words.
    pub(crate) fn refused(&self, words: &str) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.at.push_front(clock::now().monotonic);
        newest.at.truncate(NEWEST);
        words.clone_into(&mut newest.words);
    }

    /// What was refused in the last ten minutes; none if nothing was.
    #[must_use]
    pub fn lately(&self) -> Option<VolumeErrors> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now().monotonic;
        let ages = newest.at.iter().map(|at| now.since(*at));
        let ages_ms: Vec<u64> = ages
            .take_while(|age| *age < MEMORY)
            .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
            .collect();
        (!ages_ms.is_empty()).then(|| VolumeErrors {
            ages_ms,
            newest: newest.words.clone(),
        })
    }
}

/// Whether it is the volume that does not do its work (errno(3)).
fn is_refusal(error: &io::Error) -> bool {
    let refusals = [
        Errno::EIO,
        Errno::EROFS,
        Errno::ENXIO,
        Errno::ENODEV,
        Errno::EUCLEAN,
        Errno::EBADMSG,
        Errno::EREMOTEIO,
        Errno::ESTALE,
        Errno::ENOTCONN,
        Errno::ESHUTDOWN,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| refusals.contains(&Errno::from_raw(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c3_what_the_volume_refuses_is_counted_and_what_is_not_its_fault_is_not() {
        let refusals = Refusals::default();
        for harmless in [Errno::ENOSPC, Errno::EDQUOT, Errno::EMFILE, Errno::EACCES] {
            refusals.note(&io::Error::from(harmless));
        }
        assert_eq!(refusals.lately(), None);
        for _ in 0..2 * NEWEST {
            refusals.clone().note(&io::Error::from(Errno::EIO));
        }
        let lately = refusals.lately().expect("refused");
        assert_eq!(lately.ages_ms.len(), NEWEST);
        assert!(lately.ages_ms.is_sorted(), "{lately:?}");
        assert!(lately.newest == "Input/output error", "{lately:?}");
    }
}
