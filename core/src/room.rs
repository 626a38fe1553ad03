//! How much room recordings take on a disk, and for how long it lasts (K2).
//!
//! What a person plans with comes from here, and so does what a failover server says of itself. The sizes are those of
//! streams as cameras send them: nothing is ever transcoded.

use std::time::Duration;

use crate::{contract::heartbeat::Room, ids::ServerId};

/// What fragmented MP4 adds to the streams in it, in thousandths: less than one per cent was found, in files with a
/// fragment every quarter of a second.
const CONTAINER_PER_MILLE: u128 = 10;
/// What is left for the file system and for files of the moment, in thousandths.
const SLACK_PER_MILLE: u128 = 50;

/// What is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// How many cameras.
    pub cameras: u32,
    /// What each sends, in bits per second, sound included.
    pub bits_per_second: u64,
    /// For how long of each day they are recorded: up to 24 hours.
    pub each_day: Duration,
}

impl Load {
    /// Bytes of files that an hour of recording makes.
    #[must_use]
    pub fn bytes_per_hour(&self) -> u64 {
        narrow(self.bytes_in(Duration::from_hours(1)))
    }

    /// Bytes that a disk has to have so that recordings of so many days stay, beside what is kept free on it.
    #[must_use]
    pub fn bytes_for(&self, days: u32, keep_free: u64) -> u64 {
        let files = self.bytes_in(self.each_day) * u128::from(days);
        narrow(files + files * SLACK_PER_MILLE / 1000 + u128::from(keep_free))
    }

    /// The whole days whose recordings stay on a disk of so many bytes; none if nothing is recorded.
    #[must_use]
    pub fn days_on(&self, bytes: u64, keep_free: u64) -> Option<u32> {
        let day = self.bytes_in(self.each_day);
        let room = u128::from(bytes.saturating_sub(keep_free)) * 1000 / (1000 + SLACK_PER_MILLE);
        let days = room.checked_div(day)?;
        Some(u32::try_from(days).unwrap_or(u32::MAX))
    }

    fn bytes_in(&self, time: Duration) -> u128 {
        let bits = u128::from(self.cameras) * u128::from(self.bits_per_second) * time.as_millis() / 1000;
        bits * (1000 + CONTAINER_PER_MILLE) / 1000 / 8
    }
}

fn narrow(bytes: u128) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// For which of `recording`, with what each of them writes, the room of a failover server lasts the shortest, and for
/// how long; none as long as nobody's rate is known.
#[must_use]
pub fn shortest<'a>(
    room: &Room,
    recording: impl Iterator<Item = (&'a ServerId, u64)>,
) -> Option<(&'a ServerId, Duration)> {
    // The first of equal ones, by id, whatever order they come in.
    let busiest = recording
        .filter(|(_, rate)| *rate > 0)
        .max_by(|(a, of_a), (b, of_b)| of_a.cmp(of_b).then_with(|| b.cmp(a)));
    busiest.map(|(server, rate)| (server, Duration::from_secs(room.bytes / rate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERABYTE: u64 = 1_000_000_000_000;

    fn load(hours: u64) -> Load {
        Load {
            cameras: 90,
            bits_per_second: 2_000_000,
            each_day: Duration::from_hours(hours),
        }
    }

    #[test]
    fn k2_days_of_retention_need_so_much_and_so_much_lasts_for_the_days() {
        let load = load(24);
        assert_eq!(
            load.bytes_per_hour(),
            81_810_000_000,
            "90 × 2 Mbit/s × 3600 s / 8, and 1 %"
        );
        let needed = load.bytes_for(30, 1 << 30);
        assert!((61 * TERABYTE..63 * TERABYTE).contains(&needed), "{needed}");
        assert_eq!(load.days_on(needed, 1 << 30), Some(30));
        assert_eq!(
            load.days_on(needed - needed / 30, 1 << 30),
            Some(28),
            "no day is half there"
        );
        assert_eq!(super::Load { cameras: 0, ..load }.days_on(needed, 0), None);
        assert_eq!(load.days_on(0, 1 << 30), Some(0));
    }

    #[test]
    fn k2_half_a_day_needs_half() {
        assert_eq!(load(12).bytes_for(10, 0), load(24).bytes_for(5, 0));
    }

    #[test]
    fn k2_the_busiest_server_decides_for_how_long_a_failover_server_can_stand_in() {
        let id = |name: &str| ServerId::new(name).expect("an id");
        let (quiet, busy, other) = (id("quiet"), id("busy"), id("other"));
        let room = Room {
            bytes: 7_200_000,
            bytes_per_second: None,
        };
        let rates = [(&quiet, 10), (&busy, 1_000), (&other, 1_000)];
        let hours = Some((&busy, Duration::from_hours(2)));
        assert_eq!(shortest(&room, rates.into_iter()), hours);
        assert_eq!(
            shortest(&room, rates.into_iter().rev()),
            hours,
            "in whatever order"
        );
        assert_eq!(shortest(&room, [(&quiet, 0)].into_iter()), None);
    }
}
