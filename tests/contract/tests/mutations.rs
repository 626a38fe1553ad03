//! The rule of compatibility finds what would break somebody, and lets through what would not.

use serde_json::{Value, json};
use understudy_contract::{compatible::broken, document};

const STARTED: &str = "/components/schemas/failover.started";

fn at<'a>(document: &'a mut Value, pointer: &str) -> &'a mut Value {
    document
        .pointer_mut(pointer)
        .unwrap_or_else(|| panic!("{pointer} is there"))
}

fn remove(document: &mut Value, pointer: &str, field: &str) -> Value {
    let object = at(document, pointer).as_object_mut().expect("an object");
    object
        .remove(field)
        .unwrap_or_else(|| panic!("{pointer} has {field}"))
}

fn no_longer_required(document: &mut Value, pointer: &str, field: &str) {
    let required = at(document, pointer)["required"].as_array_mut().expect("a list");
    let before = required.len();
    required.retain(|each| each != field);
    assert_eq!(required.len(), before - 1, "{field} was required");
}

fn require(document: &mut Value, pointer: &str, field: &str) {
    at(document, pointer)["required"]
        .as_array_mut()
        .expect("a list")
        .push(json!(field));
}

/// What is said of a change.
fn said(change: impl FnOnce(&mut Value)) -> String {
    let before = document::document();
    let mut now = before.clone();
    change(&mut now);
    assert_ne!(before, now, "the change changes something");
    broken(&before, &now).join("\n")
}

#[track_caller]
fn breaks(says: &str, change: impl FnOnce(&mut Value)) {
    let said = said(change);
    assert!(said.contains(says), "{says:?} is missing in {said:?}");
}

#[track_caller]
fn fine(change: impl FnOnce(&mut Value)) {
    assert_eq!(said(change), "");
}

#[test]
fn the_same_breaks_nobody() {
    assert_eq!(
        broken(&document::document(), &document::document()),
        Vec::<String>::new()
    );
}

#[test]
fn what_is_gone_or_renamed_is_found() {
    breaks("camera.lost: the event is gone", |now| {
        remove(now, "/channels", "camera.lost");
    });
    breaks("camera.lost: the message is gone", |now| {
        let message = remove(now, "/components/messages", "camera.lost");
        now["components"]["messages"]["camera.went"] = message;
    });
    breaks("failover.started.silent_ms: the field is gone", |now| {
        let fields = format!("{STARTED}/properties");
        let field = remove(now, &fields, "silent_ms");
        at(now, &fields)["silence_ms"] = field;
    });
    breaks("failover.started.reason.summary: the field is gone", |now| {
        remove(now, "/components/schemas/FailoverReason/properties", "summary");
    });
    breaks(
        "failover.started.reason.evidence[].seen: the field is gone",
        |now| {
            remove(now, "/components/schemas/Evidence/properties", "seen");
        },
    );
    breaks("cloudEvents:subject: the field is gone", |now| {
        remove(
            now,
            "/components/messages/camera.lost/headers/properties",
            "cloudEvents:subject",
        );
    });
    breaks("the word \"silent\" is gone", |now| {
        let words = at(now, "/components/schemas/CameraFault/oneOf")
            .as_array_mut()
            .expect("words");
        words.retain(|word| word["const"] != "silent");
    });
}

#[test]
fn what_is_of_another_kind_is_found() {
    breaks("failover.started.silent_ms: its type", |now| {
        at(now, &format!("{STARTED}/properties/silent_ms"))["type"] = json!("string");
    });
    breaks("failover.started.silent_ms: its type", |now| {
        at(now, &format!("{STARTED}/properties/silent_ms"))["type"] = json!(["integer", "null"]);
    });
    breaks("failover.started.silent_ms: it was limited", |now| {
        at(now, &format!("{STARTED}/properties/silent_ms"))["format"] = json!("uint128");
    });
    breaks("failover.started.disabled[]: its type", |now| {
        at(now, &format!("{STARTED}/properties/disabled"))["items"] = json!({ "type": "integer" });
    });
    breaks("server: it was limited", |now| {
        at(now, "/components/schemas/ServerId")["pattern"] = json!("^[a-z]$");
    });
    breaks("its address", |now| {
        at(now, "/channels/camera.lost")["address"] = json!("{domain}.camera.went");
    });
    breaks("its exchange", |now| {
        at(now, "/channels/camera.lost/bindings/amqp/exchange")["name"] = json!("facts");
    });
    breaks("its content type", |now| {
        at(now, "/components/messages/camera.lost")["contentType"] = json!("text/plain");
    });
}

#[test]
fn what_may_be_missing_stays_so_and_nothing_else_may() {
    breaks("failover.started.silent_ms: it may be missing", |now| {
        no_longer_required(now, STARTED, "silent_ms");
    });
    breaks("failover.completed.given_up: it is required", |now| {
        require(now, "/components/schemas/failover.completed", "given_up");
    });
    breaks("failover.started.weather: it is required", |now| {
        at(now, &format!("{STARTED}/properties"))["weather"] = json!({ "type": "string" });
        require(now, STARTED, "weather");
    });
}

#[test]
fn what_is_added_breaks_nobody() {
    fine(|now| at(now, &format!("{STARTED}/properties"))["weather"] = json!({ "type": "string" }));
    fine(|now| {
        let words = at(now, "/components/schemas/CameraFault/oneOf")
            .as_array_mut()
            .expect("words");
        words.push(json!({ "type": "string", "const": "stolen", "description": "It is gone." }));
    });
    fine(|now| {
        for place in ["/channels", "/components/messages", "/components/schemas"] {
            at(now, place)["camera.stolen"] = at(now, place)["camera.lost"].clone();
        }
    });
    fine(|now| at(now, STARTED)["description"] = json!("In other words."));
    fine(|now| at(now, "/info")["version"] = json!("9.9.9"));
}
