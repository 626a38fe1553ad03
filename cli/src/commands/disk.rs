//! `understudy disk`: what recordings need of a disk. Needs no host.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use serde::Serialize;
use understudy_core::{room::Load, words::size};

use crate::{client::Connection, failure::Failure};

#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("known").required(true).args(["days", "disk"]),
    after_help = "For example: understudy disk --cameras 90 --bitrate 2M --days 30"
)]
pub(crate) struct DiskArgs {
    /// How many cameras are recorded
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cameras: u32,
    /// What each sends, in bits per second, sound included, e.g. 2M or 500k
    #[arg(long, value_name = "BITS", value_parser = bitrate)]
    bitrate: u64,
    /// For how many hours of a day they are recorded
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=24))]
    hours: u32,
    /// How large must the disk be so that recordings of so many days stay?
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: Option<u32>,
    /// For how many days are recordings kept on a disk of this size, e.g. 8TB or 7.2TiB?
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    disk: Option<u64>,
    /// What is kept free on it, as ingest.keep_free_mib says
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = bytes)]
    keep_free: u64,
}

#[derive(Serialize)]
struct Answer {
    bytes_per_hour: u64,
    days: u32,
    bytes: u64,
}

pub(crate) fn run(connection: &Connection, arguments: &DiskArgs) -> Result<(), Failure> {
    let load = Load {
        cameras: arguments.cameras,
        bits_per_second: arguments.bitrate,
        each_day: Duration::from_hours(u64::from(arguments.hours)),
    };
    let answer = match (arguments.days, arguments.disk) {
        (None, Some(bytes)) => Answer {
            bytes_per_hour: load.bytes_per_hour(),
            days: load.days_on(bytes, arguments.keep_free).unwrap_or(0),
            bytes,
        },
        (days, _) => Answer {
            bytes_per_hour: load.bytes_per_hour(),
            days: days.unwrap_or(1),
            bytes: load.bytes_for(days.unwrap_or(1), arguments.keep_free),
        },
    };
    connection
        .output()
        .item(&answer, |answer| shown(arguments, answer))
}

fn shown(arguments: &DiskArgs, answer: &Answer) -> String {
    let what = format!(
        "{} camera(s) of {} bit/s, {} hours a day",
        arguments.cameras, arguments.bitrate, arguments.hours
    );
    let outcome = if arguments.disk.is_some() {
        format!("a disk of {} keeps {} day(s)", size(answer.bytes), answer.days)
    } else {
        format!("{} day(s) need a disk of {}", answer.days, size(answer.bytes))
    };
    format!(
        "{what}: {} an hour\n{outcome}, {} of it kept free\n\
         (with 1 % for the files' format and 5 % for the file system; cameras whose bit rate varies need what they \
         send on average: `understudy server list SERVER` shows what is really recorded)",
        size(answer.bytes_per_hour),
        size(arguments.keep_free)
    )
}

fn bytes(text: &str) -> Result<u64, String> {
    let parsed: ByteSize = text
        .parse()
        .map_err(|_| format!("{text:?} is no size: 8TB, 7.2TiB or 500GB is"))?;
    Ok(parsed.as_u64())
}

fn bitrate(text: &str) -> Result<u64, String> {
    let parsed: Result<ByteSize, _> = text.parse();
    match parsed.map(|bits| bits.as_u64()) {
        Ok(bits) if (1_000..=1_000_000_000).contains(&bits) => Ok(bits),
        _ => Err(format!(
            "{text:?} is no bit rate of a camera: 2M or 500k is, from 1k to 1000M"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_bit_rates_are_read_as_people_write_them() {
        assert_eq!(bytes("8TB"), Ok(8_000_000_000_000));
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        assert_eq!((bitrate("2M"), bitrate("500k")), (Ok(2_000_000), Ok(500_000)));
        for wrong in ["", "fast", "-2M", "2", "2T"] {
            assert!(bitrate(wrong).is_err(), "{wrong}");
        }
        assert!(bytes("much").is_err());
    }
}
