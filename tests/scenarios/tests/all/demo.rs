//! The demo itself, as a person runs it.

use std::process::Command;

use understudy_demo::report::Report;
use understudy_runtime::testing::left_out;
use understudy_scenarios::executable;

fn demo(failure: &str) -> anyhow::Result<(Report, String)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("report.json");
    let output = Command::new(executable())
        .args(["demo", "--cameras", "12", "--failure", failure, "--report"])
        .arg(&path)
        .env("TMPDIR", folder.path())
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let left: Vec<_> = std::fs::read_dir(folder.path())?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert_eq!(left, std::slice::from_ref(&path), "it cleans up after itself");
    Ok((serde_json::from_str(&std::fs::read_to_string(&path)?)?, told))
}

#[test]
fn f5_g2_e10_the_demo_kills_a_server_and_loses_nothing_but_the_takeover() -> anyhow::Result<()> {
    let (report, told) = demo("kill")?;
    assert_eq!((report.cameras, report.failure.as_str()), (12, "kill"));
    assert_eq!(report.figures.broken, Vec::<String>::new(), "{told}");
    // A second of silence counts from the last beat, which was up to an interval before the kill.
    assert!(
        report.figures.detection_seconds >= 0.7 && report.figures.takeover_seconds > 0.0,
        "{report:?}"
    );
    assert!(
        report.figures.frames_lost > 0 && report.figures.frames_recorded > 0,
        "a kill costs something: {report:?}"
    );
    assert_eq!(
        report.figures.frames_sent,
        report.figures.frames_recorded + report.figures.frames_lost
    );
    assert_eq!(report.segments_mismatched, 0);
    assert_eq!(report.licenses.during.get("failover-1"), Some(&12), "{report:?}");
    Ok(())
}

#[test]
fn c6_g1_the_demo_fails_over_by_hand() -> anyhow::Result<()> {
    let (report, told) = demo("manual")?;
    assert_eq!(report.failure, "manual");
    assert_eq!(report.figures.broken, Vec::<String>::new(), "{told}");
    assert!(
        report.figures.detection_seconds.abs() < f64::EPSILON,
        "{report:?}"
    );
    assert!(report.settings_restored);
    Ok(())
}

#[test]
fn j8_g1_the_demo_drains_a_server_without_a_frame_lost() -> anyhow::Result<()> {
    let (report, told) = demo("planned")?;
    assert_eq!(report.failure, "planned");
    assert_eq!(report.figures.broken, Vec::<String>::new(), "{told}");
    assert_eq!(report.figures.frames_lost, 0, "{report:?}");
    assert!(
        report.figures.frames_recorded > 0 && report.overlap_seconds > 0.0,
        "{report:?}"
    );
    assert!(report.settings_restored);
    Ok(())
}

#[test]
fn c2_g1_g2_e10_the_demo_cuts_a_server_off_that_films_on_and_merges_what_both_filmed() -> anyhow::Result<()> {
    let (report, told) = demo("partition")?;
    assert_eq!(report.failure, "partition");
    assert_eq!(report.figures.broken, Vec::<String>::new(), "{told}");
    assert!(report.figures.detection_seconds >= 0.7, "{report:?}");
    assert_eq!(
        report.figures.frames_lost, 0,
        "nobody stopped filming: {report:?}"
    );
    // It filmed for eight seconds more on the failover server before the line came back.
    assert!(report.overlap_seconds >= 6.0, "{report:?}");
    assert_eq!(report.segments_mismatched, 0);
    Ok(())
}

#[test]
fn c3_g1_g2_e10_the_demo_breaks_a_volume_and_gets_the_recordings_back_onto_it() -> anyhow::Result<()> {
    let able = tempfile::tempdir()?;
    let volume = understudy_demo::volume::Volume::mounted_at(
        &able.path().join("point"),
        &able.path().join("image"),
        64 << 20,
    );
    if let Err(why) = volume {
        let output = Command::new(executable())
            .args(["demo", "--cameras", "2", "--failure", "storage"])
            .output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("takes root"), "{told}");
        left_out(format!("a demo that breaks a volume: {why}"));
        return Ok(());
    }
    drop(volume);
    let (report, told) = demo("storage")?;
    assert_eq!(report.failure, "storage");
    assert_eq!(report.figures.broken, Vec::<String>::new(), "{told}");
    assert!(report.figures.detection_seconds > 0.0, "{report:?}");
    assert_eq!(report.segments_mismatched, 0);
    assert!(report.settings_restored);
    Ok(())
}
