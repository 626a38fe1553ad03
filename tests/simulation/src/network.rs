//! What is under way between processes: lost, repeated, delayed and so reordered.

use std::time::Duration;

use rand::{Rng, rngs::StdRng};
use understudy_core::{
    assignment::Assignment,
    contract::{
        heartbeat::{Heartbeat, RestorationReport, ServerReport},
        rpc::LicenseRequest,
    },
    ids::{FailoverId, ServerId},
    settings::{Bundle, BundleHash},
};

use crate::visits::Fault;

/// From here on a packet is late, and is overtaken by others.
const LATE: Duration = Duration::from_millis(200);

/// Something under way.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Beat(Heartbeat),
    Assignment(Assignment),
    Bundle(ServerId, Bundle),
    Report(ServerReport),
    Restoration(RestorationReport),
    AskBundle(ServerId, BundleHash),
    License(LicenseRequest),
    LicenseAnswer {
        failover: FailoverId,
        given_back: bool,
        devices: u32,
    },
}

/// The weather of a network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) loss: f64,
    pub(crate) repeat: f64,
    pub(crate) delay_ms: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    under_way: Vec<(Duration, Packet)>,
}

impl Network {
    /// Answers what happened to it.
    pub(crate) fn send(
        &mut self,
        packet: Packet,
        weather: Weather,
        now: Duration,
        rng: &mut StdRng,
    ) -> Vec<Fault> {
        let twice = rng.gen_bool(weather.repeat);
        let mut happened = Vec::new();
        happened.extend(twice.then_some(Fault::Duplicate));
        for _ in 0..=u8::from(twice) {
            if rng.gen_bool(weather.loss) {
                happened.push(Fault::Loss);
                continue;
            }
            let delay = Duration::from_millis(rng.gen_range(0..=weather.delay_ms));
            happened.extend((delay > LATE).then_some(Fault::Delay));
            self.under_way.push((now + delay, packet.clone()));
        }
        happened
    }

    /// What arrives now, in any order.
    pub(crate) fn arrivals(&mut self, now: Duration) -> Vec<Packet> {
        let (due, later) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.under_way = later;
        let mut due: Vec<(Duration, Packet)> = due;
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().map(|(_, packet)| packet).collect()
    }
}
