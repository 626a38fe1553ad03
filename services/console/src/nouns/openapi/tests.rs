//! The document against the table of routes, and against the types that are really sent.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};
use understudy_core::{
    assignment::Epoch,
    camera::Camera,
    contract::{
        api::{
            CameraEdit, CameraField, CameraView, ChangeKind, Considered, DeadLetterView, DeadLettersView,
            DomainView, FailoverReason, FailoverView, LicenseHappening, LicenseKeyView, LicenseKind,
            LicensesView, Offer, OfferState, Phase, Problem, ReasonKind, ReplacementCandidate,
            ReplacementView, ServerEdit, ServerState, ServerView, SnapshotView, SnapshotsView, StandsIn,
            Step, TemporaryChange, Unreached,
        },
        heartbeat::{DamagedSegment, Evidence, Progress, RightToAct, Room},
    },
    ids::ServerId,
    maintenance::Maintenance,
    policy::{Pairing, Policy},
    server::{Mode, Server},
    time::Timestamp,
};

use super::DOCUMENT;
use crate::routes;

fn document() -> Value {
    serde_json::from_str(DOCUMENT).expect("the document is JSON")
}

#[test]
fn every_path_is_described_and_no_other() {
    let document = document();
    let described: BTreeSet<(String, String, String)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods").iter();
            methods
                .filter(|(method, _)| *method != "parameters")
                .map(|(method, operation)| {
                    let id = operation["operationId"].as_str().unwrap_or_default();
                    (path.clone(), method.to_uppercase(), id.to_owned())
                })
        })
        .collect();
    let there = routes::table().into_iter().map(|route| {
        (
            route.path.to_owned(),
            route.method.to_string(),
            format!("{:?}", route.operation),
        )
    });
    assert_eq!(described, there.collect());
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.trim_start_matches('#');
                    assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                }
                fields.values().for_each(|field| walk(field, document));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, document)),
            _ => {}
        }
    }
    walk(&document(), &document());
}

/// What is sent has to have exactly the fields that are described, and each the described type.
fn holds(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document
            .pointer(reference.trim_start_matches('#'))
            .expect("a reference that leads somewhere");
        return holds(document, schema, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let null = choices.iter().any(|choice| choice["type"] == "null");
        if value.is_null() {
            return assert!(null, "{at} is null");
        }
        let choice = choices.iter().find(|choice| {
            let kind = &choice["properties"]["kind"]["const"];
            choice["type"] != "null" && (kind.is_null() || *kind == value["kind"])
        });
        return holds(document, choice.expect("a choice that fits"), value, at);
    }
    assert!(
        type_fits(&schema["type"], value),
        "{at} is {value}, described as {}",
        schema["type"]
    );
    if let Some(possible) = schema["enum"].as_array() {
        assert!(
            possible.contains(value),
            "{at} is {value}, described as one of {possible:?}"
        );
    }
    match value {
        Value::Array(items) => items
            .iter()
            .for_each(|item| holds(document, &schema["items"], item, at)),
        Value::Object(fields) => {
            let Some(described) = schema["properties"].as_object() else {
                return;
            };
            for (name, field) in fields {
                let at = format!("{at}.{name}");
                holds(
                    document,
                    described
                        .get(name)
                        .unwrap_or_else(|| panic!("{at} is not described")),
                    field,
                    &at,
                );
            }
            for name in schema["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
            {
                assert!(
                    fields.contains_key(name),
                    "{at}.{name} is described as always there"
                );
            }
        }
        _ => {}
    }
}

fn type_fits(types: &Value, value: &Value) -> bool {
    let fits = |name: &Value| match name.as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some("null") => value.is_null(),
        // A constant: checked by whoever chose it.
        _ => true,
    };
    types
        .as_array()
        .map_or_else(|| fits(types), |types| types.iter().any(fits))
}

fn check(name: &str, value: &impl Serialize) {
    let document = document();
    let value = serde_json::to_value(value).expect("it can be sent");
    let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
    holds(&document, &schema, &value, name);
    // And nothing is described that is never sent, but for what only comes in or is left out when empty.
    let described = document["components"]["schemas"][name]["properties"]
        .as_object()
        .expect("an object");
    for field in described.keys() {
        assert!(
            value.get(field).is_some(),
            "{name}.{field} is described and not sent"
        );
    }
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("an id")
}

fn server() -> Server {
    Server {
        id: id("recorder-1"),
        name: "Gate".into(),
        domain: id("east"),
        mode: Mode::Recording,
        max_cameras: 90,
        sync_address: "http://192.0.2.1:7000".into(),
        enabled: true,
    }
}

fn camera() -> Camera {
    serde_json::from_value(json!({
        "id": "gate", "name": "Gate", "server": "recorder-1", "url": "rtsp://192.0.2.1/gate",
        "credentials": {"username": "viewer", "password": "secret"}, "max_sessions": 2, "transport": "udp"
    }))
    .expect("a camera")
}

#[test]
fn servers_and_cameras_are_as_described() {
    let epoch = Some(Epoch { term: 1, number: 2 });
    check("Server", &server());
    check(
        "ServerView",
        &ServerView {
            server: server(),
            label: "Gate (1/90)".into(),
            state: ServerState::FailedOver,
            cameras: 1,
            filming: 1,
            identity: Some(id("recorder-1")),
            bears_name: Some("Gate".into()),
            assigned: epoch,
            reached: epoch,
            protected: true,
            paired_with: vec![id("standby-1")],
            failover: Some(id("failover-1")),
            package: serde_json::from_value(json!({"state": "crashed", "evidence": "gone"}))
                .expect("a package"),
            storage: serde_json::from_value(json!({"state": "damaged", "evidence": "gone", "full": true}))
                .expect("a volume"),
            warnings: vec!["one".into()],
            maintenance: Some(Maintenance {
                until: Timestamp(2),
                since: Timestamp(1),
                why: "a disk".into(),
                by: "anna".into(),
            }),
            right_to_act: Some(RightToAct {
                held: false,
                since: Some(Timestamp(1)),
                why: "it bears no identity".into(),
            }),
            room: Some(Room {
                bytes: 1,
                bytes_per_second: Some(2),
            }),
            stands_in: Some(StandsIn {
                server: id("recorder-1"),
                for_ms: 3,
            }),
        },
    );
    check("Camera", &camera());
    let lost = json!({"state": "lost", "fault": "held_elsewhere", "detail": "no session"});
    check(
        "CameraView",
        &CameraView {
            camera: camera(),
            filmed_by: Some(id("standby-1")),
            status: Some(serde_json::from_value(lost).expect("a status")),
            relay: Some("rtsp://127.0.0.1:8555/door".into()),
            temporary: true,
        },
    );
    check(
        "CameraEdit",
        &CameraEdit {
            name: Some("Door".into()),
            max_sessions: Some(1),
            transport: Some(understudy_core::camera::Transport::Udp),
            in_device: Some(true),
            ..CameraEdit::default()
        },
    );
}

#[test]
fn dead_letters_are_as_described() {
    let letter = DeadLetterView {
        time: Some(Timestamp(1)),
        body: Some("{}".into()),
        headers: [("traceparent".to_owned(), String::new())].into(),
        ..DeadLetterView::default()
    };
    check("DeadLetterView", &letter);
    let letters = vec![letter];
    check("DeadLettersView", &DeadLettersView { total: 1, letters });
}

#[test]
fn d2_snapshots_are_as_described() {
    let snapshot = SnapshotView {
        id: "2026-11-23T00-00-00.000-standby-1".into(),
        camera: id("gate"),
        at: Timestamp(1),
        taken_by: id("standby-1"),
        held_by: id("recorder-1"),
        failover: Some(id("failover-1")),
        bytes: 20_000,
        blake3: "00".into(),
    };
    check("SnapshotView", &snapshot);
    let unreached = Unreached {
        server: id("standby-1"),
        why: "it is away".into(),
    };
    check(
        "SnapshotsView",
        &SnapshotsView {
            snapshots: vec![snapshot],
            unreached: vec![unreached],
        },
    );
}

#[test]
fn protection_and_licences_are_as_described() {
    check("Policy", &Policy::default());
    let document = document();
    for pairing in [
        Pairing::All,
        Pairing::Servers([id::<ServerId>("standby-1")].into()),
    ] {
        let value = serde_json::to_value(&pairing).expect("it can be sent");
        holds(
            &document,
            &document["components"]["schemas"]["Pairing"],
            &value,
            "Pairing",
        );
    }
    check(
        "DomainView",
        &DomainView {
            id: id("east"),
            recording_servers: vec![id("recorder-1")],
            failover_servers: vec![id("standby-1")],
            gaps: vec!["one".into()],
        },
    );
    let key = LicenseKeyView {
        id: id("key-1"),
        label: "ninety".into(),
        devices: 90,
        holder: id("standby-1"),
        owner: id("recorder-1"),
    };
    check(
        "LicensesView",
        &LicensesView {
            keys: vec![key],
            devices: BTreeMap::from([(id("standby-1"), 90)]),
            transferred: [id("failover-1")].into(),
            unlicensed: Some(BTreeMap::from([(id("recorder-1"), vec![id("gate")])])),
            needed: true,
        },
    );
    check(
        "LicenseHappening",
        &LicenseHappening {
            at: Timestamp(1),
            key: id("key-1"),
            devices: 90,
            what: LicenseKind::GivenBack,
            from: Some(id("standby-1")),
            to: Some(id("recorder-1")),
            failover: None,
        },
    );
    check("Problem", &Problem::to_be_confirmed("much", "token".to_owned()));
    check(
        "ServerEdit",
        &ServerEdit {
            mode: Some(Mode::Failover),
            ..ServerEdit::default()
        },
    );
}

#[test]
fn replacements_are_as_described() {
    let candidate = ReplacementCandidate {
        server: id("standby-1"),
        name: "Spare".into(),
        mode: Mode::Failover,
        offered: true,
        why: "it fits".into(),
    };
    check("ReplacementCandidate", &candidate);
    check(
        "ReplacementView",
        &ReplacementView {
            server: id("recorder-1"),
            failover: Some(id("failover-1")),
            refused: String::new(),
            candidates: vec![candidate],
        },
    );
}

#[test]
fn failovers_are_as_described() {
    let at = Timestamp(1);
    let evidence = vec![Evidence {
        at,
        observer: "monitor".into(),
        seen: "nothing".into(),
    }];
    let damaged = DamagedSegment {
        path: "a".into(),
        camera: id("gate"),
        start: at,
        end: at,
        reason: "hash".into(),
    };
    check(
        "FailoverView",
        &FailoverView {
            id: id("failover-1"),
            server: id("recorder-1"),
            stand_in: Some(id("standby-1")),
            phase: Phase::TakingOver,
            reason: FailoverReason {
                kind: ReasonKind::Disconnection,
                summary: "silent".into(),
                evidence,
            },
            planned: true,
            replaces: Some(id("recorder-9")),
            reason_cleared: false,
            waits_for: String::new(),
            started_at: at,
            ended_at: Some(at),
            detection_ms: 1_000,
            takeover_ms: Some(300),
            disabled: vec![id("gate")],
            progress: Progress::default(),
            unread: vec![id("standby-1")],
            damaged: vec![damaged],
            damaged_count: 1,
            overlay: vec![TemporaryChange {
                camera: Some(id("gate")),
                change: ChangeKind::Edited,
                fields: [CameraField::Url].into(),
                offer: Some(Offer {
                    state: OfferState::Open,
                    url: Some("rtsp://192.0.2.9/gate".into()),
                    username: None,
                }),
            }],
            selection: vec![Considered {
                server: id("standby-1"),
                chosen: true,
                why: "it fits".into(),
            }],
            licenses_settled: true,
            steps: vec![Step {
                at,
                phase: Phase::Selecting,
                what: "decided".into(),
            }],
            first_frames: [(id("gate"), at)].into(),
            trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        },
    );
}
