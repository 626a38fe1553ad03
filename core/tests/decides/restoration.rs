//! What is fetched at failback, and what is not.

use std::collections::BTreeSet;

use understudy_core::{
    contract::segment::{Manifest, Segment},
    ids::{CameraId, FailoverId},
    restoration::plan,
    time::Timestamp,
};

use crate::rig::server_id;

fn failover() -> FailoverId {
    FailoverId::new("f1").expect("an id")
}

fn segment(path: &str, start: i64) -> Segment {
    Segment {
        path: path.to_owned(),
        camera: CameraId::new("cam-1").expect("an id"),
        recorded_by: server_id("failover-1"),
        failover: Some(failover()),
        start: Timestamp(start),
        end: Timestamp(start + 60_000),
        bytes: 100,
        frames: 900,
        blake3: format!("hash of {path}"),
    }
}

fn manifest(segments: Vec<Segment>) -> Manifest {
    Manifest {
        failover: failover(),
        server: server_id("failover-1"),
        complete: true,
        segments,
        begun: None,
    }
}

#[test]
fn only_what_is_missing_is_fetched_oldest_first() {
    let new = segment("cam-1/2026-01-01/c.mp4", 3);
    let old = segment("cam-1/2026-01-01/b.mp4", 2);
    let here = segment("cam-1/2026-01-01/a.mp4", 1);
    let have = BTreeSet::from([
        (here.path.clone(), here.blake3.clone()),
        (old.path.clone(), "another hash".to_owned()),
    ]);
    let manifest = manifest(vec![new.clone(), here.clone(), old.clone(), old.clone()]);
    let plan = plan(&manifest, &have);
    assert_eq!(plan.fetch, [old, new]);
    assert_eq!(plan.done, [here]);
}

#[test]
fn what_is_known_counts_as_delivered() {
    let segments = vec![segment("cam-1/a.mp4", 1), segment("cam-1/b.mp4", 2)];
    let known = segments
        .iter()
        .map(|each| (each.path.clone(), each.blake3.clone()));
    let plan = plan(&manifest(segments.clone()), &known.collect());
    assert!(plan.is_complete());
    assert_eq!(plan.progress().bytes_done, 200);
    assert_eq!(plan.progress().segments_done, 2);
    assert_eq!(plan.progress().recorded_ms_done, 120_000);
}

#[test]
fn g5_the_recorded_time_is_counted_and_a_clock_that_was_set_back_takes_none_away() {
    let here = segment("cam-1/a.mp4", 1);
    let mut odd = segment("cam-1/b.mp4", 100_000);
    odd.end = Timestamp(0);
    let have = BTreeSet::from([(here.path.clone(), here.blake3.clone())]);
    let manifest = manifest(vec![here, segment("cam-1/c.mp4", 2), odd]);
    let progress = plan(&manifest, &have).progress();
    assert_eq!(
        (progress.recorded_ms_done, progress.recorded_ms_total),
        (60_000, 120_000)
    );
}

#[test]
fn a_path_that_leads_elsewhere_is_refused() {
    for path in [
        "../a.mp4",
        "/etc/passwd",
        "cam-1/../../a",
        "cam-2/a.mp4",
        "cam-1",
        "cam-1//a",
        "cam-1\\..\\a/b",
    ] {
        let plan = plan(&manifest(vec![segment(path, 1)]), &BTreeSet::new());
        assert_eq!((plan.fetch.len(), plan.refused.len()), (0, 1), "{path}");
    }
}

#[test]
fn what_arrived_is_erased_up_to_where_it_did() {
    use understudy_core::restoration::may_erase;
    assert!(may_erase(Some(3), Some(3)), "nothing was filmed since");
    assert!(!may_erase(Some(4), Some(3)), "it has begun again since");
    assert!(!may_erase(None, Some(3)), "what is not known is kept");
    assert!(may_erase(Some(4), None) && may_erase(None, None), "dropped");
}
