//! What a camera can be told to do wrong, at run time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a camera behaves; all well by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Behaviour {
    /// Clients connect and play, and nothing comes.
    pub mute: bool,
    /// Connections are closed about this often, in seconds.
    pub drop_every: Option<f64>,
    /// No password is right.
    pub refuse_password: bool,
    /// How many sessions it allows at once.
    pub max_sessions: Option<u32>,
    /// It sends random bytes.
    pub garbage: Option<Garbage>,
    /// It closes connections without an answer.
    pub unreachable: bool,
    /// It offers a codec that nobody records.
    pub unsupported_codec: Option<Unsupported>,
    /// `RTP-Info` names a time that has nothing to do with the packets.
    pub wrong_rtp_info: bool,
    /// This part of all packets of video that go by UDP is lost on the way, from 0 to 1.
    pub udp_loss: f64,
}

/// What random bytes stand in place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Garbage {
    /// Of RTP packets; RTSP goes on as it should.
    Rtp,
    /// Of everything.
    Rtsp,
}

/// What it offers instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unsupported {
    /// Motion JPEG (RFC 2435).
    Mjpeg,
    /// A name that nobody knows.
    Unknown,
}

/// A change of behaviour: what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BehaviourChange {
    /// See [`Behaviour::mute`].
    pub mute: Option<bool>,
    /// `true` closes all connections now, a number closes them about that often (in seconds), `false` ends that.
    pub drop: Option<Switch<f64>>,
    /// See [`Behaviour::refuse_password`].
    pub refuse_password: Option<bool>,
    /// A number, or `false` for any number.
    pub max_sessions: Option<Switch<u32>>,
    /// `"rtp"` (also `true`), `"rtsp"` or `false`.
    pub garbage: Option<Switch<Garbage>>,
    /// See [`Behaviour::unreachable`]. Connections that stand are closed.
    pub unreachable: Option<bool>,
    /// `"mjpeg"` (also `true`), `"unknown"` or `false`.
    pub unsupported_codec: Option<Switch<Unsupported>>,
    /// See [`Behaviour::wrong_rtp_info`].
    pub wrong_rtp_info: Option<bool>,
    /// See [`Behaviour::udp_loss`].
    pub udp_loss: Option<f64>,
    /// Sends nothing for so many seconds, then goes on with the frame that is due.
    pub stall: Option<f64>,
}

/// On, off, or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Switch<T> {
    /// On as it usually is, or off.
    On(bool),
    /// On in a certain way.
    Value(T),
}

/// What a change asks for beyond the new behaviour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AtOnce {
    pub(crate) close_connections: bool,
    pub(crate) stall: Option<Duration>,
}

/// The longest stall or interval that is taken: a day, so that no sum of times overflows.
const LONGEST_SECONDS: f64 = 86_400.0;

impl Behaviour {
    /// Takes a change on.
    pub(crate) fn apply(&mut self, change: &BehaviourChange) -> AtOnce {
        let mut at_once = AtOnce::default();
        set(&mut self.mute, change.mute);
        set(&mut self.refuse_password, change.refuse_password);
        set(&mut self.unreachable, change.unreachable);
        set(&mut self.wrong_rtp_info, change.wrong_rtp_info);
        switch(&mut self.garbage, change.garbage, Some(Garbage::Rtp));
        switch(
            &mut self.unsupported_codec,
            change.unsupported_codec,
            Some(Unsupported::Mjpeg),
        );
        switch(&mut self.max_sessions, change.max_sessions, Some(1));
        switch(&mut self.drop_every, change.drop, None);
        self.udp_loss = change.udp_loss.unwrap_or(self.udp_loss).clamp(0.0, 1.0);
        self.drop_every = self.drop_every.map(|seconds| seconds.clamp(0.1, LONGEST_SECONDS));
        at_once.close_connections = change.drop == Some(Switch::On(true)) || change.unreachable == Some(true);
        at_once.stall = change
            .stall
            .map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_SECONDS)));
        at_once
    }
}

fn set(field: &mut bool, to: Option<bool>) {
    *field = to.unwrap_or(*field);
}

fn switch<T>(field: &mut Option<T>, to: Option<Switch<T>>, usual: Option<T>) {
    match to {
        None => {}
        Some(Switch::On(true)) => *field = usual,
        Some(Switch::On(false)) => *field = None,
        Some(Switch::Value(value)) => *field = Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(json: &str) -> BehaviourChange {
        serde_json::from_str(json).expect("a change of behaviour")
    }

    #[test]
    fn changes_add_up_and_can_be_taken_back() {
        let mut behaviour = Behaviour::default();
        behaviour.apply(&change(
            r#"{"mute":true,"garbage":true,"max_sessions":2,"drop":1.5}"#,
        ));
        behaviour.apply(&change(r#"{"unsupported_codec":"unknown","garbage":"rtsp"}"#));
        assert!(behaviour.mute);
        assert_eq!(behaviour.garbage, Some(Garbage::Rtsp));
        assert_eq!(behaviour.max_sessions, Some(2));
        assert_eq!(behaviour.drop_every, Some(1.5));
        behaviour.apply(&change(
            r#"{"mute":false,"garbage":false,"max_sessions":false,"drop":false,"unsupported_codec":false}"#,
        ));
        assert_eq!(behaviour, Behaviour::default());
    }

    #[test]
    fn some_changes_act_at_once() {
        let mut behaviour = Behaviour::default();
        assert!(behaviour.apply(&change(r#"{"drop":true}"#)).close_connections);
        assert!(
            behaviour
                .apply(&change(r#"{"unreachable":true}"#))
                .close_connections
        );
        assert_eq!(
            behaviour.apply(&change(r#"{"stall":2}"#)).stall,
            Some(Duration::from_secs(2))
        );
        assert_eq!(behaviour.drop_every, None);
    }

    #[test]
    fn unknown_behaviours_are_refused() {
        assert!(serde_json::from_str::<BehaviourChange>(r#"{"mutee":true}"#).is_err());
    }
}
