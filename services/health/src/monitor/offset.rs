//! How far a server's wall clock is from the host's, told from when its beats were sent and when they came.
//!
//! A beat says nothing of how long it was under way; the quickest of the last few was least late, so it comes
//! closest. Nothing is concluded from it: it is shown, and alerted on.

use std::collections::VecDeque;

use understudy_core::time::Timestamp;

/// Of how many beats the quickest counts: eight seconds' worth of an agent at its default, on one path.
const BEATS: usize = 16;

/// A difference of two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ahead {
    millis: i64,
}

impl Ahead {
    pub(super) fn as_secs_f64(self) -> f64 {
        self.millis as f64 / 1000.0
    }
}

/// One server's clock.
#[derive(Debug, Default)]
pub(super) struct Offset {
    beats: VecDeque<Ahead>,
}

impl Offset {
    /// A beat that was sent at `sent` by the server's clock came at `heard` by the host's. Returns how far the
    /// server's is ahead; negative if it is behind, and always a little less than the truth.
    pub(super) fn heard(&mut self, sent: Timestamp, heard: Timestamp) -> Ahead {
        let millis = sent.as_millis().saturating_sub(heard.as_millis());
        let newest = Ahead { millis };
        if self.beats.len() == BEATS {
            self.beats.pop_front();
        }
        self.beats.push_back(newest);
        self.beats.iter().max().copied().unwrap_or(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beats that were under way for so many milliseconds, of a clock that is `ahead`.
    fn after(offset: &mut Offset, ahead: i64, delays: &[i64]) -> f64 {
        let told = delays.iter().enumerate().map(|(number, delay)| {
            let sent = 1_000_000 + i64::try_from(number).expect("few beats") * 500;
            offset.heard(Timestamp(sent + ahead), Timestamp(sent + delay))
        });
        told.last().expect("a beat at least").as_secs_f64()
    }

    #[test]
    fn the_quickest_beat_counts_and_not_those_that_were_held_up() {
        let mut offset = Offset::default();
        assert_eq!(after(&mut offset, 2_000, &[400, 3, 900]), 1.997);
        assert_eq!(after(&mut Offset::default(), -2_000, &[400, 3, 900]), -2.003);
    }

    #[test]
    fn a_clock_that_is_set_shows_within_sixteen_beats() {
        let mut offset = Offset::default();
        assert_eq!(after(&mut offset, 60_000, &[5; 40]), 59.995);
        assert_eq!(after(&mut offset, 0, &[5; BEATS]), -0.005);
    }

    #[test]
    fn a_time_that_makes_no_sense_is_only_far_off() {
        let mut offset = Offset::default();
        assert!(offset.heard(Timestamp(i64::MAX), Timestamp(-1)).as_secs_f64() > 1e12);
        assert!(
            Offset::default()
                .heard(Timestamp(i64::MIN), Timestamp(1))
                .as_secs_f64()
                < -1e12
        );
    }
}
