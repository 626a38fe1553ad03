//! Pictures: a key frame decoded and kept as a JPEG file of the archive, with a row in its index, so that it
//! is handed back with the recordings. Uses the frame that the camera's one session has brought already.

use std::{fs, io, path::PathBuf};

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::{AppSink, AppSrc};
use tokio::sync::Semaphore;
use understudy_core::{
    contract::segment::Segment,
    ids::{CameraId, FailoverId},
    time::Timestamp,
};

use crate::{
    archive::{Archive, ArchiveError, Filter, Kind, Name, Verdict},
    camera::frame::{VideoCodec, VideoFrame},
};

/// How long decoding one picture may take.
const DECODING: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The camera is not filmed, or nothing came of it yet.
    #[error("the camera shows no picture at the moment")]
    NoPicture,
    /// What it sent could not be decoded.
    #[error("the picture could not be decoded: {0}")]
    Decode(String),
    /// It is not what was kept.
    #[error("the picture is damaged: {0}")]
    Damaged(String),
    /// It could not be written, or read again.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// It could not be indexed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// A picture's name among those of its camera; none for what is no picture.
#[must_use]
pub fn id(segment: &Segment) -> Option<&str> {
    let name = Name::parse(&segment.path)?;
    let file = segment.path.rsplit('/').next()?;
    (name.kind == Kind::Snapshot).then(|| file.strip_suffix(".jpg"))?
}

/// Whether the name can be a picture's: of nothing else, a path is made.
fn path(camera: &CameraId, id: &str) -> Option<String> {
    let path = format!("{camera}/snapshots/{id}.jpg");
    Name::parse(&path).is_some().then_some(path)
}

/// The pictures of a camera that an archive has, newest first.
///
/// # Errors
/// What the index says.
pub async fn list(
    archive: &Archive,
    camera: CameraId,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> Result<Vec<Segment>, ArchiveError> {
    let filter = Filter {
        camera: Some(camera),
        to,
        kind: Some(Kind::Snapshot),
        ..Filter::default()
    };
    let mut pictures = archive.segments(filter).await?;
    // A picture has no length: it begins and ends at the same time.
    pictures.retain(|picture| from.is_none_or(|from| picture.start >= from));
    pictures.reverse();
    Ok(pictures)
}

/// A picture, read whole and compared with what the index says of it; none if the archive has none of that name.
///
/// # Errors
/// [`SnapshotError::Damaged`] if it is not what was kept; else what disk and index say.
pub async fn read(archive: &Archive, camera: &CameraId, id: &str) -> Result<Option<Vec<u8>>, SnapshotError> {
    let Some(path) = path(camera, id) else {
        return Ok(None);
    };
    let pictures = list(archive, camera.clone(), None, None).await?;
    let Some(picture) = pictures.into_iter().find(|picture| picture.path == path) else {
        return Ok(None);
    };
    if let Verdict::Damaged(why) = archive.verify(&picture).await? {
        return Err(SnapshotError::Damaged(why));
    }
    let path = archive.file(&picture.path)?;
    let read = tokio::fs::read(&path).await;
    read.map(Some)
        .map_err(|source| SnapshotError::Write { path, source })
}

/// Decodes a key frame and keeps it; `threads` bounds how many are decoded at once.
pub(crate) async fn keep(
    archive: &Archive,
    camera: CameraId,
    frame: VideoFrame,
    failover: Option<FailoverId>,
    threads: &Semaphore,
) -> Result<Segment, SnapshotError> {
    let archive = archive.clone();
    let _permit = threads.acquire().await.map_err(|_| ArchiveError::Ended)?;
    let work = move || store(&archive, camera, &frame, failover, &jpeg(&frame)?);
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(ArchiveError::Ended.into()))
}

fn store(
    archive: &Archive,
    camera: CameraId,
    frame: &VideoFrame,
    failover: Option<FailoverId>,
    jpeg: &[u8],
) -> Result<Segment, SnapshotError> {
    let cannot = |path: PathBuf| move |source| SnapshotError::Write { path, source };
    let new = archive
        .create(Kind::Snapshot, &camera, frame.wall, failover.as_ref())
        .map_err(cannot(archive.folder().to_owned()))?;
    let temporary = archive.incoming().join(new.path.replace('/', "_"));
    let written = fs::write(&temporary, jpeg).and_then(|()| fs::rename(&temporary, &new.file));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        let _ = archive.discard(&new.path);
        return Err(cannot(new.file)(error));
    }
    let segment = Segment {
        path: new.path,
        camera,
        recorded_by: archive.server().clone(),
        failover,
        start: new.start,
        end: new.start,
        bytes: jpeg.len() as u64,
        frames: 1,
        blake3: blake3::hash(jpeg).to_hex().to_string(),
    };
    archive.close(&segment)?;
    Ok(segment)
}

/// Decodes one key frame into a JPEG. Blocks for as long as that takes.
fn jpeg(frame: &VideoFrame) -> Result<Vec<u8>, SnapshotError> {
    let failed = |error: &dyn ToString| SnapshotError::Decode(error.to_string());
    let (elements, media, stream_format) = match frame.format.codec {
        VideoCodec::H264 => ("h264parse ! avdec_h264", "video/x-h264", "avc"),
        VideoCodec::H265 => ("h265parse ! avdec_h265", "video/x-h265", "hvc1"),
    };
    let description = format!(
        "appsrc name=in format=time ! {elements} ! videoconvert ! jpegenc ! appsink name=out sync=false"
    );
    let pipeline = gst::parse::launch(&description).map_err(|error| failed(&error))?;
    let pipeline = pipeline
        .downcast::<gst::Pipeline>()
        .map_err(|_| failed(&"no pipeline"))?;
    let source = pipeline
        .by_name("in")
        .and_then(|element| element.downcast::<AppSrc>().ok());
    let sink = pipeline
        .by_name("out")
        .and_then(|element| element.downcast::<AppSink>().ok());
    let (Some(source), Some(sink)) = (source, sink) else {
        return Err(failed(&"no pipeline"));
    };
    let caps = gst::Caps::builder(media)
        .field("stream-format", stream_format)
        .field("alignment", "au")
        .field(
            "codec_data",
            gst::Buffer::from_slice(frame.format.configuration.clone()),
        )
        .build();
    source.set_caps(Some(&caps));
    let mut buffer = gst::Buffer::from_slice(frame.data.clone());
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(gst::ClockTime::ZERO);
    }
    let decoded = pipeline
        .set_state(gst::State::Playing)
        .map_err(|error| failed(&error))
        .and_then(|_| source.push_buffer(buffer).map_err(|error| failed(&error)))
        .and_then(|_| source.end_of_stream().map_err(|error| failed(&error)))
        .and_then(|_| {
            sink.try_pull_sample(DECODING)
                .ok_or_else(|| failed(&"nothing came of it"))
        });
    let _ = pipeline.set_state(gst::State::Null);
    let sample = decoded?;
    let bytes = sample.buffer().and_then(|buffer| buffer.map_readable().ok());
    bytes
        .map(|bytes| bytes.to_vec())
        .ok_or_else(|| failed(&"an empty picture"))
}
