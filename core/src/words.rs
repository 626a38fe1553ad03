//! Amounts as a person reads them.

/// A length of recordings, to the minute, or to the second if it is short.
#[must_use]
pub fn length(millis: u64) -> String {
    let seconds = millis / 1_000;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A size, in powers of 1024 (IEC 80000-13).
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut tenths = bytes.saturating_mul(10) / 1_024;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_lengths_can_be_read() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1_536), "1.5 KiB");
        assert_eq!(size(5 * 1_024 * 1_024 * 1_024), "5.0 GiB");
        assert_eq!(size(1 << 60), "1048576.0 TiB");
        assert_eq!(
            (length(59_999), length(61_000), length(90_000_000)),
            ("59 s".into(), "1 min 1 s".into(), "25 h 0 min".into())
        );
    }
}
