//! What has to go. Pure: segments and limits in, segments to delete out; nothing is deleted here.

use understudy_core::{camera::Retention, contract::segment::Segment, time::Timestamp};

/// Which of one camera's segments break its limits, oldest first.
///
/// `segments` are that camera's, oldest first. A segment counts as old by its end. Segments for which
/// `is_held` says that another server still has to fetch them are never taken here, and count towards no
/// limit: only a full disk takes them.
pub fn beyond_limits<'a>(
    segments: &'a [Segment],
    retention: Retention,
    now: Timestamp,
    is_held: impl Fn(&Segment) -> bool,
) -> Vec<&'a Segment> {
    let own: Vec<&Segment> = segments.iter().filter(|segment| !is_held(segment)).collect();
    let oldest_kept = retention
        .max_age_seconds
        .map(|age| now.as_millis().saturating_sub(i64::try_from(age).unwrap_or(i64::MAX).saturating_mul(1000)));
    let mut bytes_left: u64 = own.iter().map(|segment| segment.bytes).sum();
    own.into_iter()
        .take_while(|segment| {
            let too_old = oldest_kept.is_some_and(|limit| segment.end.as_millis() < limit);
            let too_much = retention.max_bytes.is_some_and(|limit| bytes_left > limit);
            bytes_left -= segment.bytes;
            too_old || too_much
        })
        .collect()
}

/// Which segments of all cameras go so that `bytes_missing` become free: the oldest first, and those that
/// another server still has to fetch after all others.
pub fn to_make_room<'a>(
    segments: &'a [Segment],
    bytes_missing: u64,
    is_held: impl Fn(&Segment) -> bool,
) -> Vec<&'a Segment> {
    let mut order: Vec<&Segment> = segments.iter().collect();
    order.sort_by_key(|segment| (is_held(segment), segment.end, &segment.path));
    let mut freed = 0;
    order
        .into_iter()
        .take_while(|segment| {
            let needed = freed < bytes_missing;
            freed += segment.bytes;
            needed
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use understudy_core::ids::{CameraId, FailoverId, ServerId};

    use super::*;

    fn segment(end_s: i64, bytes: u64, failover: Option<&str>) -> Segment {
        Segment {
            path: format!("{end_s}"),
            camera: CameraId::new("cam-001").expect("valid"),
            recorded_by: ServerId::new("recorder-1").expect("valid"),
            failover: failover.map(|id| FailoverId::new(id).expect("valid")),
            start: Timestamp((end_s - 60) * 1000),
            end: Timestamp(end_s * 1000),
            bytes,
            frames: 900,
            blake3: String::new(),
        }
    }

    fn ends(segments: &[&Segment]) -> Vec<i64> {
        segments.iter().map(|segment| segment.end.as_millis() / 1000).collect()
    }

    fn held(segment: &Segment) -> bool {
        segment.failover.is_some()
    }

    #[test]
    fn e1_what_is_older_than_its_age_goes() {
        let all = [segment(60, 1, None), segment(120, 1, None), segment(180, 1, None)];
        let retention = Retention { max_age_seconds: Some(100), max_bytes: None };
        assert_eq!(ends(&beyond_limits(&all, retention, Timestamp(200_000), held)), [60]);
        assert!(beyond_limits(&all, Retention::default(), Timestamp(i64::MAX), held).is_empty());
    }

    #[test]
    fn e1_the_oldest_go_until_the_rest_fits() {
        let all = [segment(60, 10, None), segment(120, 10, None), segment(180, 10, None)];
        let retention = Retention { max_age_seconds: None, max_bytes: Some(15) };
        assert_eq!(ends(&beyond_limits(&all, retention, Timestamp(0), held)), [60, 120]);
    }

    #[test]
    fn g2_what_is_not_handed_back_yet_outlives_every_limit() {
        let all = [segment(60, 10, Some("f")), segment(120, 10, None)];
        let retention = Retention { max_age_seconds: Some(1), max_bytes: Some(0) };
        assert_eq!(ends(&beyond_limits(&all, retention, Timestamp(1_000_000), held)), [120]);
    }

    #[test]
    fn g2_a_full_disk_takes_what_is_not_handed_back_last() {
        let all = [segment(60, 10, Some("f")), segment(120, 10, None), segment(180, 10, None)];
        assert_eq!(ends(&to_make_room(&all, 15, held)), [120, 180]);
        assert_eq!(ends(&to_make_room(&all, 25, held)), [120, 180, 60]);
        assert!(to_make_room(&all, 0, held).is_empty());
    }
}
