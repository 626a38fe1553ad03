//! What is under way between processes: lost, repeated, delayed and so reordered.

use std::time::Duration;

use rand::{Rng, rngs::StdRng};
use understudy_core::{
    assignment::Assignment,
    authority::Claim,
    contract::{
        heartbeat::{Heartbeat, RestorationReport, ServerReport},
        rpc::LicenseRequest,
    },
    failover::Failover,
    ids::{FailoverId, ServerId},
    settings::{Bundle, BundleHash},
};

use crate::{visits::Fault, world::takes_part};

/// From here on a packet is late, and is overtaken by others.
const LATE: Duration = Duration::from_millis(200);

/// Something under way.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Beat(Heartbeat),
    Assignment(Assignment),
    Bundle(ServerId, Bundle),
    Report(ServerReport),
    Claim(Claim),
    Restoration(RestorationReport),
    AskBundle(ServerId, BundleHash),
    License(LicenseRequest),
    LicenseAnswer {
        failover: FailoverId,
        given_back: bool,
        devices: u32,
    },
}

impl Packet {
    /// The server that it is for; none if it is for the host or the licence service.
    pub(crate) fn receiver(&self) -> Option<&ServerId> {
        match self {
            Self::Assignment(assignment) => Some(&assignment.server),
            Self::Bundle(server, _) => Some(server),
            _ => None,
        }
    }

    /// Whether it matters to a failover: it is of one of its servers, or about its licences.
    pub(crate) fn concerns(&self, failover: &Failover) -> bool {
        match self {
            Self::Beat(beat) => takes_part(failover, &beat.server),
            Self::Assignment(assignment) => takes_part(failover, &assignment.server),
            Self::Bundle(server, _) | Self::AskBundle(server, _) => takes_part(failover, server),
            Self::Report(report) => takes_part(failover, &report.server),
            Self::Claim(claim) => takes_part(failover, &claim.server),
            Self::Restoration(report) => failover.id == report.failover,
            Self::License(
                LicenseRequest::Transfer { failover: id, .. }
                | LicenseRequest::Replace { failover: id, .. }
                | LicenseRequest::GiveBack { failover: id },
            )
            | Self::LicenseAnswer { failover: id, .. } => failover.moves.iter().any(|each| each.id == *id),
            Self::License(_) => false,
        }
    }

    /// Whether the licence service takes part: it runs beside the host.
    pub(crate) fn is_about_licences(&self) -> bool {
        matches!(self, Self::License(_) | Self::LicenseAnswer { .. })
    }
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
        packet: &Packet,
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

    /// The same, but nothing arrives before `until`.
    pub(crate) fn hold(&mut self, packet: Packet, until: Duration) {
        self.under_way.push((until, packet));
    }

    /// What came through the broker is gone with it, or comes late.
    pub(crate) fn broker_is_lost(&mut self, queues_survive: bool) {
        if !queues_survive {
            self.under_way
                .retain(|(_, packet)| matches!(packet, Packet::Beat(_)));
        }
    }

    /// The host and the licence service were down for longer than any request of theirs is worth.
    pub(crate) fn requests_expire(&mut self) {
        self.under_way.retain(|(_, packet)| !packet.is_about_licences());
    }

    /// Arrives at once.
    pub(crate) fn deliver_now(&mut self, packet: Packet, now: Duration) {
        self.under_way.push((now, packet));
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
