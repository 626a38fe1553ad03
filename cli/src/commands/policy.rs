//! `understudy policy`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::Method;
use understudy_core::{
    ids::ServerId,
    policy::{Failback, Policy, Range},
};

use crate::{
    client::{Connection, understood},
    confirm::Consent,
    failure::Failure,
    output::seconds,
};

#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// The recording server
    server: ServerId,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    consent: Consent,
}

/// What is left out stays; without any, shows the settings.
#[derive(Debug, Default, Args)]
struct Changes {
    /// Whether a failover starts by itself at all
    #[arg(long, value_name = "on|off")]
    automatic: Option<Switch>,
    /// Start when the server is not heard
    #[arg(long, value_name = "on|off")]
    on_disconnection: Option<Switch>,
    /// For how long it must not be heard: 1s to 60m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    disconnection: Option<Duration>,
    /// Start when its recording volume is degraded or damaged
    #[arg(long, value_name = "on|off")]
    on_storage: Option<Switch>,
    /// Whether a volume that stays full although retention should have made room counts as damaged
    #[arg(long, value_name = "on|off")]
    full_is_damage: Option<Switch>,
    /// Start when its recording service is abnormal
    #[arg(long, value_name = "on|off")]
    on_package: Option<Switch>,
    /// End by itself when the reason has cleared
    #[arg(long, value_name = "on|off")]
    stop_automatically: Option<Switch>,
    /// Everything, or everything but recording
    #[arg(long)]
    range: Option<RangeArg>,
    /// Whether recordings made meanwhile are handed back, or removed
    #[arg(long)]
    failback: Option<FailbackArg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RangeArg {
    Full,
    LiveOnly,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailbackArg {
    Keep,
    Remove,
}

/// A duration as people write it: `10s`, `5m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| format!("{text:?} is no duration: 10s or 5m is"))?;
    Duration::try_from(span).map_err(|_| "a duration can't be negative".into())
}

pub(crate) async fn run(connection: &Connection, arguments: PolicyArgs) -> Result<(), Failure> {
    let (api, output) = (connection.client()?, connection.output());
    let path = format!("servers/{}/failover-policy", arguments.server);
    let before = api.get(&path).await?;
    let policy: Policy = understood(before.clone())?;
    let wanted = arguments.changes.apply(policy.clone());
    let answer = if wanted == policy {
        before
    } else {
        match arguments
            .consent
            .send(&api, Method::PUT, &path, Some(&wanted))
            .await?
        {
            Some(answer) => answer,
            None => return output.done("nothing was changed"),
        }
    };
    output.answer(answer, |policy: Policy| shown(&policy))
}

impl Changes {
    fn apply(&self, mut policy: Policy) -> Policy {
        let set = |value: &mut bool, switch: Option<Switch>| {
            if let Some(switch) = switch {
                *value = switch == Switch::On;
            }
        };
        set(&mut policy.automatic, self.automatic);
        set(&mut policy.on_disconnection, self.on_disconnection);
        set(&mut policy.on_storage, self.on_storage);
        set(&mut policy.full_is_damage, self.full_is_damage);
        set(&mut policy.on_package, self.on_package);
        set(&mut policy.stop_automatically, self.stop_automatically);
        if let Some(duration) = self.disconnection {
            policy.disconnection_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        }
        if let Some(range) = self.range {
            policy.range = match range {
                RangeArg::Full => Range::Full,
                RangeArg::LiveOnly => Range::LiveOnly,
            };
        }
        if let Some(failback) = self.failback {
            policy.failback = match failback {
                FailbackArg::Keep => Failback::Keep,
                FailbackArg::Remove => Failback::Remove,
            };
        }
        policy
    }
}

fn shown(policy: &Policy) -> String {
    let word = |on: bool| if on { "on" } else { "off" };
    let range = match policy.range {
        Range::Full => "full",
        Range::LiveOnly => "live-only",
    };
    let failback = match policy.failback {
        Failback::Keep => "keep",
        Failback::Remove => "remove",
    };
    [
        format!("automatic           {}", word(policy.automatic)),
        format!("on-disconnection    {}", word(policy.on_disconnection)),
        format!("disconnection       {}", seconds(policy.disconnection_ms)),
        format!("on-storage          {}", word(policy.on_storage)),
        format!("full-is-damage      {}", word(policy.full_is_damage)),
        format!("on-package          {}", word(policy.on_package)),
        format!("stop-automatically  {}", word(policy.stop_automatically)),
        format!("range               {range}"),
        format!("failback            {failback}"),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_what_is_left_out_of_a_policy_stays() {
        let changes = Changes {
            automatic: Some(Switch::On),
            disconnection: Some(duration("2m").expect("two minutes")),
            ..Changes::default()
        };
        let before = Policy {
            on_package: true,
            ..Policy::default()
        };
        let after = changes.apply(before.clone());
        assert_eq!(
            after,
            Policy {
                automatic: true,
                disconnection_ms: 120_000,
                ..before
            }
        );
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("1s"), Ok(Duration::from_secs(1)));
        for wrong in ["10", "soon", "-5s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
