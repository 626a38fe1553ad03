//! Cameras that send by UDP: everything is recorded while nothing is lost, and what is lost costs pictures, never a
//! file or a session.

use understudy_core::camera::{Camera, Transport};
use understudy_media::archive::{Verdict, mp4};
use understudy_simulator::{BehaviourChange, Codec, SimulatorConfig, numbering};

use crate::rig::{Rig, ffprobe, numbers, until};

fn by_udp(rig: &Rig) -> Vec<Camera> {
    let mut cameras = rig.cameras(1);
    for camera in &mut cameras {
        camera.transport = Transport::Udp;
    }
    cameras
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_every_frame_of_a_udp_camera_with_sound_is_recorded() -> anyhow::Result<()> {
    let rig = Rig::start(SimulatorConfig {
        audio: true,
        ..SimulatorConfig::default()
    })
    .await?;
    rig.film(by_udp(&rig)).await;
    rig.until_segments(1, 2).await?;
    rig.studio.stop_filming().await;
    let mut recorded = Vec::new();
    for segment in rig.segments(1).await? {
        let file = rig.archive.file(&segment.path)?;
        let (codecs, frames) = ffprobe(&file)?;
        assert_eq!(codecs.into_iter().collect::<Vec<_>>(), ["aac", "h264"]);
        assert_eq!(frames, segment.frames);
        recorded.extend(numbers(&file)?);
    }
    assert_eq!(
        recorded,
        (recorded[0]..recorded[0] + recorded.len() as u64).collect::<Vec<_>>()
    );
    assert_eq!(rig.studio.damaged_pictures(), 0);
    rig.end().await;
    Ok(())
}

/// Loses one packet in thirty, and looks at what became of it.
async fn losses_cost_pictures_only(codec: Codec) -> anyhow::Result<()> {
    let rig = Rig::start(SimulatorConfig {
        codec,
        ..SimulatorConfig::default()
    })
    .await?;
    let lossy = BehaviourChange {
        udp_loss: Some(0.03),
        ..BehaviourChange::default()
    };
    rig.simulator.change("cam-001", &lossy)?;
    rig.film(by_udp(&rig)).await;
    rig.until_segments(1, 3).await?;
    until("pictures were damaged", || rig.studio.damaged_pictures() > 5).await?;
    rig.studio.stop_filming().await;
    let mut last = None;
    let mut gaps = 0;
    for segment in rig.segments(1).await? {
        assert_eq!(rig.archive.verify(&segment).await?, Verdict::Whole);
        let file = rig.archive.file(&segment.path)?;
        // ffprobe decodes every picture, and says nothing: none builds on one that is missing.
        assert_eq!(ffprobe(&file)?.1, segment.frames);
        let mut samples = mp4::samples(&file)?;
        while let Some((sample, bytes)) = samples.next_video()? {
            let number = numbering::frame_number(&bytes).expect("a number").number;
            if last.is_some_and(|last| number != last + 1) {
                gaps += 1;
                assert!(
                    sample.key,
                    "picture {number} of {} follows {last:?}",
                    segment.path
                );
            }
            last = Some(number);
        }
    }
    assert!(gaps > 0, "nothing was lost");
    let sessions = rig.simulator.sent("cam-001", 0)?.sessions;
    assert_eq!(sessions.len(), 1, "a loss ended the session");
    rig.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_what_udp_loses_of_h264_costs_pictures_up_to_the_next_key_frame_only() -> anyhow::Result<()> {
    losses_cost_pictures_only(Codec::H264).await
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_what_udp_loses_of_h265_costs_pictures_up_to_the_next_key_frame_only() -> anyhow::Result<()> {
    losses_cost_pictures_only(Codec::H265).await
}
