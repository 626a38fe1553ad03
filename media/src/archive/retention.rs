//! What has to go. Pure: segments and limits in, segments to delete out; nothing is deleted here.

use understudy_core::{camera::Retention, contract::segment::Segment, time::Timestamp};

/// Which of one camera's segments break its limits, oldest first.
///
/// `oldest` are that camera's oldest ones, in their order, `total_bytes` the size of all of them. A segment
/// counts as old by its end. What another server has still to fetch is not among them, and counts towards no
/// limit: only a full disk takes it.
#[must_use]
pub fn beyond_limits(
    oldest: &[Segment],
    total_bytes: u64,
    retention: Retention,
    now: Timestamp,
) -> &[Segment] {
    let oldest_kept = retention.max_age_seconds.map(|age| {
        let age_ms = i64::try_from(age).unwrap_or(i64::MAX).saturating_mul(1000);
        now.as_millis().saturating_sub(age_ms)
    });
    let mut bytes_left = total_bytes;
    let kept = oldest.iter().position(|segment| {
        let too_old = oldest_kept.is_some_and(|limit| segment.end.as_millis() < limit);
        let too_much = retention.max_bytes.is_some_and(|limit| bytes_left > limit);
        bytes_left = bytes_left.saturating_sub(segment.bytes);
        !too_old && !too_much
    });
    &oldest[..kept.unwrap_or(oldest.len())]
}

/// Which of the `oldest` segments go so that `bytes_missing` become free.
#[must_use]
pub fn to_make_room(oldest: &[Segment], bytes_missing: u64) -> &[Segment] {
    let mut freed = 0;
    let kept = oldest.iter().position(|segment| {
        let enough = freed >= bytes_missing;
        freed += segment.bytes;
        enough
    });
    &oldest[..kept.unwrap_or(oldest.len())]
}

#[cfg(test)]
mod tests {
    use understudy_core::ids::{CameraId, ServerId};

    use super::*;

    fn segment(end_s: i64, bytes: u64) -> Segment {
        Segment {
            path: format!("{end_s}"),
            camera: CameraId::new("cam-001").expect("valid"),
            recorded_by: ServerId::new("recorder-1").expect("valid"),
            failover: None,
            start: Timestamp((end_s - 60) * 1000),
            end: Timestamp(end_s * 1000),
            bytes,
            frames: 900,
            blake3: String::new(),
        }
    }

    #[test]
    fn e1_what_is_older_than_its_age_goes() {
        let all = [segment(60, 1), segment(120, 1), segment(180, 1)];
        let retention = Retention {
            max_age_seconds: Some(100),
            max_bytes: None,
        };
        assert_eq!(beyond_limits(&all, 3, retention, Timestamp(200_000)), &all[..1]);
        assert!(beyond_limits(&all, 3, Retention::default(), Timestamp(i64::MAX)).is_empty());
    }

    #[test]
    fn e1_the_oldest_go_until_the_rest_fits() {
        let all = [segment(60, 10), segment(120, 10), segment(180, 10)];
        let retention = Retention {
            max_age_seconds: None,
            max_bytes: Some(15),
        };
        assert_eq!(beyond_limits(&all, 30, retention, Timestamp(0)), &all[..2]);
    }

    #[test]
    fn a_full_disk_takes_no_more_than_is_missing() {
        let all = [segment(60, 10), segment(120, 10), segment(180, 10)];
        assert_eq!(to_make_room(&all, 15), &all[..2]);
        assert_eq!(to_make_room(&all, 25), &all);
        assert!(to_make_room(&all, 0).is_empty());
    }
}
