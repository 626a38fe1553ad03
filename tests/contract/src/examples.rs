//! One example of each event, as it is sent.

use serde_json::{Value, json};
use understudy_core::contract::event::Event;

const FAILOVER: &str = "0199c2a1-7d3e-7c11-9f53-2b9e6d1c8a40";

/// The fields of each event that is about a failover.
fn of_failovers() -> Vec<(&'static str, Value)> {
    let (failover, server, stand_in) = (FAILOVER, "recorder-1", "standby-1");
    let progress = json!({
        "segments_total": 96, "segments_done": 96, "bytes_total": 412_316_672, "bytes_done": 412_316_672,
        "bytes_per_second": 52_428_800, "recorded_ms_total": 5_400_000, "recorded_ms_done": 5_400_000,
    });
    let reason = json!({
        "kind": "disconnection",
        "summary": "recorder-1 has not been heard for 10.2 s",
        "evidence": [{ "at": 1_790_000_000_000_i64, "observer": "monitor", "seen": "no heartbeat on any path" }],
    });
    let dropped = json!([{ "camera": "gate-3", "change": "edited", "fields": ["name"] }]);
    vec![
        (
            "failover.started",
            json!({
                "failover": failover, "server": server, "stand_in": stand_in, "reason": reason,
                "silent_ms": 10_200, "disabled": ["yard-7"],
            }),
        ),
        (
            "failover.waiting",
            json!({
                "failover": failover, "server": server, "reason": reason,
                "waits_for": "standby-1 serves recorder-2",
            }),
        ),
        (
            "failover.serving",
            json!({
                "failover": failover, "server": server, "stand_in": stand_in, "filming": 11, "lost": ["gate-3"],
            }),
        ),
        (
            "failover.restoring",
            json!({ "failover": failover, "server": server, "stand_in": stand_in }),
        ),
        (
            "failover.progress",
            json!({ "failover": failover, "server": server, "progress": progress }),
        ),
        (
            "failover.completed",
            json!({
                "failover": failover, "server": server, "stand_in": stand_in, "progress": progress,
                "damaged": [{
                    "path": "yard-7/2026/09/21/10/yard-7-1790000000000.mp4", "camera": "yard-7",
                    "start": 1_790_000_000_000_i64, "end": 1_790_000_060_000_i64,
                    "reason": "its hash is not that of the index",
                }],
                "damaged_count": 1, "dropped": dropped,
            }),
        ),
        (
            "failover.aborted",
            json!({ "failover": failover, "server": server, "why": "anna removed recorder-1", "dropped": dropped }),
        ),
    ]
}

/// The fields of each event that is about a server, a licence or a camera.
fn of_servers() -> Vec<(&'static str, Value)> {
    let (failover, server, stand_in) = (FAILOVER, "recorder-1", "standby-1");
    vec![
        ("server.disconnected", json!({ "server": server })),
        ("server.recovered", json!({ "server": server })),
        (
            "server.storage_degraded",
            json!({
                "server": server,
                "storage": { "state": "degraded", "evidence": "md0: one of two disks is gone" },
            }),
        ),
        (
            "server.unprotected",
            json!({ "server": server, "why": "standby-1 serves recorder-2" }),
        ),
        ("server.protected", json!({ "server": server })),
        (
            "server.replaced",
            json!({
                "server": server, "successor": stand_in, "server_name": "North gate", "failover": failover,
                "by": "anna",
            }),
        ),
        (
            "server.returned",
            json!({ "server": server, "replaced_by": stand_in }),
        ),
        (
            "server.conflict",
            json!({ "server": server, "epoch": { "term": 1, "number": 42 } }),
        ),
        (
            "server.maintenance_begun",
            json!({ "server": server, "until": 1_790_001_800_000_i64, "why": "a new disk", "by": "anna" }),
        ),
        (
            "server.maintenance_ended",
            json!({ "server": server, "why": "its time is over" }),
        ),
        (
            "license.transferred",
            json!({ "failover": failover, "from": server, "to": stand_in, "devices": 12 }),
        ),
        (
            "license.short",
            json!({ "server": server, "missing": 2, "cameras": ["yard-7", "yard-8"] }),
        ),
        ("license.enough", json!({ "server": server })),
        (
            "camera.lost",
            json!({
                "camera": "gate-3", "server": server, "fault": "unauthorized",
                "detail": "it refused the user name or the password",
            }),
        ),
        (
            "camera.recovered",
            json!({ "camera": "gate-3", "server": server }),
        ),
    ]
}

/// Headers and body of an example of the event `name`, as it would be sent.
///
/// # Panics
/// If there is none: whoever adds an event adds an example here.
#[must_use]
pub fn example(name: &str) -> (Value, Value) {
    let mut all = of_failovers().into_iter().chain(of_servers());
    let data = all.find(|(known, _)| *known == name);
    let (_, data) =
        data.unwrap_or_else(|| panic!("add an example of {name} to tests/contract/src/examples.rs"));
    let event: Event = serde_json::from_value(json!({ "name": name, "data": data }))
        .unwrap_or_else(|error| panic!("the example of {name}: {error}"));
    let mut sent = serde_json::to_value(&event).expect("an event is JSON");
    let headers = json!({
        "cloudEvents:specversion": "1.0",
        "cloudEvents:type": name,
        "cloudEvents:source": "/understudy/orchestrator",
        "cloudEvents:id": "0199c2a1-7d40-7f02-8a3c-5f0e4b7d9c21",
        "cloudEvents:time": "2026-09-21T14:13:20.000Z",
        "cloudEvents:subject": event.subject(),
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    });
    (headers, sent["data"].take())
}
