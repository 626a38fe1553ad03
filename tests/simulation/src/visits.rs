//! Which faults struck in which phase of a failover: what was never visited was never tested.

use std::fmt;

use understudy_core::contract::api::Phase;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $words:literal),+ $(,)?) => {
        /// What can go wrong, and what people do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$doc])* $name),+
        }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Fault] = &[$(Fault::$name),+];

            /// Whether there is anything for it to strike in a phase: files are fetched only while restoring, and
            /// while a failover server is still sought none has made any, and there is nobody to be cut off from. What
            /// people ask for strikes only where it is not refused: what is failed over can't be started or drained
            /// before it is handed back.
            #[must_use]
            pub fn belongs_to(self, phase: Phase) -> bool {
                match self {
                    Self::FetchingDies | Self::StopRestoration => phase.hands_back(),
                    Self::Start => phase.hands_back() || phase.is_final(),
                    Self::Drain => phase.is_final(),
                    Self::Replace => matches!(phase, Phase::Selecting | Phase::TakingOver | Phase::Serving),
                    Self::DamagedFile | Self::Offer | Self::Mode | Self::Apart => phase != Phase::Selecting,
                    _ => true,
                }
            }

            /// In words.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self {
                    $(Fault::$name => $words),+
                }
            }
        }
    };
}

faults! {
    /// The host's process, between two effects.
    HostDies = "host dies between two effects",
    /// The licence service's process, between two effects.
    LedgerDies = "ledger dies between two effects",
    /// A recording service, between two effects.
    ServiceDies = "service dies between two effects",
    /// A server's sync service, between two files.
    FetchingDies = "sync dies between two files",
    /// A recording service, while nothing special goes on.
    ServiceCrash = "service crashes",
    /// The host, while nothing special goes on.
    HostCrash = "host crashes",
    /// The licence service, for a while.
    LedgerDown = "ledger is down",
    /// The monitor.
    MonitorRestart = "monitor restarts",
    /// A server's power.
    PowerCut = "power cut",
    /// A server is reached by nobody.
    CutOff = "server cut off",
    /// A server has no way to the broker.
    OffBroker = "server off the broker",
    /// A whole domain is reached by nobody.
    DomainCutOff = "domain cut off",
    /// A volume lost a disk.
    VolumeDegraded = "volume degraded",
    /// A file can't be read.
    DamagedFile = "corrupted recording",
    /// A camera does not answer.
    CameraLost = "camera lost",
    /// A packet never arrives.
    Loss = "packet lost",
    /// A packet arrives twice.
    Duplicate = "packet duplicated",
    /// A packet arrives late, and so after later ones.
    Delay = "packet delayed",
    /// A recording service does nothing for longer than a lease.
    Frozen = "service frozen",
    /// A server does nothing for longer than a lease.
    MachineFrozen = "server frozen",
    /// The host does nothing for longer than a lease.
    HostFrozen = "host frozen",
    /// A server gets a turn only now and then.
    Slow = "server slow",
    /// What a server sends arrives nowhere.
    Mute = "server to host cut",
    /// What the host sends does not arrive at a server.
    Deaf = "host to server cut",
    /// Two servers don't reach each other; the host reaches both.
    Apart = "servers cut from each other",
    /// A server reaches no camera.
    NoCameras = "server cut from its cameras",
    /// A node of the broker is gone; what was queued is there still.
    BrokerLost = "broker lost, queues survive",
    /// A node of the broker is gone, and what was queued with it.
    BrokerEmptied = "broker lost with its queues",
    /// The broker takes nothing.
    BrokerAlarm = "broker alarm",
    /// A packet of long ago arrives.
    DayOld = "old packet arrives",
    /// A wall clock is set.
    ClockJump = "clock set",
    /// A clock runs fast or slow.
    ClockDrift = "clock runs wrong",
    /// A volume takes nothing any more.
    DiskFault = "disk fault",
    /// A volume has no room left.
    DiskFull = "disk full",
    /// Retention makes room on a full volume, and takes the oldest recording.
    MakesRoom = "retention makes room",
    /// An assignment on disk can't be read.
    DamagedAssignment = "corrupted assignment",
    /// Settings on disk can't be read.
    DamagedBundle = "corrupted settings",
    /// The host goes on from a backup.
    Restored = "restored database",
    /// A server is copied.
    Cloned = "cloned server",
    /// A server is of a version that knows fewer fields.
    OldVersion = "old version reports",
    /// A camera refuses a second session.
    OneSession = "one-session camera refuses",
    /// A person starts a failover.
    Start = "operator starts",
    /// A person stops a failover.
    Stop = "operator stops",
    /// A person stops a restoration.
    StopRestoration = "operator stops restoration",
    /// A person adds, edits or removes a camera.
    Edit = "operator edits",
    /// A person pairs.
    Pair = "operator pairs",
    /// A person switches a camera off or on.
    Switch = "operator switches a camera",
    /// A person sets other failover settings.
    SetPolicy = "operator sets the policy",
    /// A person removes a server, and adds it again.
    Remove = "operator removes and adds",
    /// A person switches a server off, and on again later.
    SwitchOff = "operator switches a server off",
    /// A person drains a server.
    Drain = "operator drains",
    /// A person makes a failover server inactive, and a failover server again, which erases it.
    Mode = "operator switches a mode",
    /// A person puts a server into maintenance, or ends it.
    Maintain = "operator maintains",
    /// A camera was changed in itself, and a person says so.
    Device = "operator changes a device",
    /// A person answers what is offered at a failover's end.
    Offer = "operator answers offers",
    /// A person has another server take a recording server's place for good.
    Replace = "operator replaces",
}

/// The phases in which each fault has to strike.
const PHASES: &[Phase] = &[
    Phase::Selecting,
    Phase::TakingOver,
    Phase::Serving,
    Phase::Restoring,
    Phase::Replacing,
    Phase::Completed,
    Phase::Aborted,
];

/// How often each fault struck in each phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visits(Vec<u64>);

impl Default for Visits {
    fn default() -> Self {
        Self(vec![0; Fault::ALL.len() * PHASES.len()])
    }
}

impl Visits {
    /// A fault struck in a phase.
    pub fn visit(&mut self, fault: Fault, phase: Phase) {
        if let Some(column) = PHASES.iter().position(|each| *each == phase) {
            self.0[fault as usize * PHASES.len() + column] += 1;
        }
    }

    /// Adds those of another schedule.
    pub fn add(&mut self, other: &Self) {
        for (own, others) in self.0.iter_mut().zip(&other.0) {
            *own += others;
        }
    }

    /// The pairs that were never visited.
    #[must_use]
    pub fn missing(&self) -> Vec<(Phase, Fault)> {
        let all = Fault::ALL
            .iter()
            .flat_map(|fault| PHASES.iter().map(|phase| (*phase, *fault)));
        all.zip(&self.0)
            .filter(|((phase, fault), visits)| **visits == 0 && fault.belongs_to(*phase))
            .map(|(pair, _)| pair)
            .collect()
    }
}

impl fmt::Display for Visits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:32}", "visits")?;
        for phase in PHASES {
            write!(f, "{:>12}", format!("{phase:?}"))?;
        }
        for (fault, row) in Fault::ALL.iter().zip(self.0.chunks(PHASES.len())) {
            write!(f, "\n{:32}", fault.words())?;
            for visits in row {
                write!(f, "{visits:>12}")?;
            }
        }
        Ok(())
    }
}
