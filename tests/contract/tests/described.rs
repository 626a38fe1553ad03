//! The committed description is the one that the types make, every event has an example that fits, AsyncAPI's own
//! parser takes it, and no consumer of a released version would break.

use std::process::Command;

use serde_json::{Value, json};
use understudy_contract::{
    REGENERATE,
    check::{Checker, Message},
    compatible, document, examples, folder,
};
use understudy_runtime::testing::left_out;

fn example(name: &str) -> Message {
    let (headers, body) = examples::example(name);
    Message {
        routing_key: format!("east.{name}"),
        content_type: "application/json".to_owned(),
        headers: headers
            .as_object()
            .expect("headers")
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        body: body.to_string().into_bytes(),
    }
}

fn names(document: &Value) -> Vec<String> {
    document["channels"]
        .as_object()
        .expect("channels")
        .keys()
        .cloned()
        .collect()
}

#[test]
fn the_committed_description_is_that_of_the_types() {
    let made = document::yaml(&document::document()).expect("YAML");
    let file = folder().join("asyncapi.yaml");
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = made
        .lines()
        .zip(committed.lines().chain(std::iter::repeat("")))
        .enumerate()
        .find(|(_, (made, committed))| made != committed);
    assert!(
        made == committed,
        "{} is not what the types make (first difference: {differs:?}); make it anew: {REGENERATE}",
        file.display()
    );
}

#[test]
fn every_event_has_an_example_that_fits_its_schema() {
    let document = document::document();
    let checker = Checker::new(&document).expect("schemas");
    let names = names(&document);
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        assert_eq!(checker.check(&example(&name)), Ok(name.clone()));
    }
}

fn with(message: &mut Message, change: fn(&mut Value)) {
    let mut body = serde_json::from_slice(&message.body).expect("JSON");
    change(&mut body);
    message.body = body.to_string().into_bytes();
}

#[test]
fn a_message_that_is_not_as_described_is_told() {
    let checker = Checker::new(&document::document()).expect("schemas");
    let wrong = |change: fn(&mut Message), says: &str| {
        let mut message = example("failover.started");
        change(&mut message);
        let said = checker.check(&message).expect_err(says).join("\n");
        assert!(said.contains(says), "{says:?} is missing in {said}");
    };
    wrong(|message| message.body = b"{".to_vec(), "no JSON");
    wrong(
        |message| message.routing_key = "failover.started".to_owned(),
        "routing key",
    );
    wrong(|message| message.content_type = String::new(), "content type");
    wrong(
        |message| drop(message.headers.remove("cloudEvents:id")),
        "cloudEvents:id",
    );
    wrong(
        |message| {
            drop(
                message
                    .headers
                    .insert("cloudEvents:time".to_owned(), json!("yesterday")),
            )
        },
        "yesterday",
    );
    wrong(
        |message| {
            drop(
                message
                    .headers
                    .insert("cloudEvents:type".to_owned(), json!("failover.begun")),
            )
        },
        "not described",
    );
    wrong(
        |message| drop(message.headers.insert("colour".to_owned(), json!("red"))),
        "colour",
    );
    wrong(
        |message| with(message, |body| body["colour"] = json!("red")),
        "colour",
    );
    wrong(
        |message| with(message, |body| body["server"] = json!("Not an id!")),
        "Not an id!",
    );
    wrong(
        |message| with(message, |body| body["reason"]["kind"] = json!("boredom")),
        "boredom",
    );
}

#[test]
fn asyncapis_own_parser_takes_the_description() {
    let project = folder().ancestors().nth(2).expect("docs/events").to_owned();
    let modules = project.join("target/tools/asyncapi/node_modules");
    if !modules.join("@asyncapi/parser").is_dir() {
        return left_out("AsyncAPI's parser: scripts/tools could not install it (npm)");
    }
    let script = project.join("tests/contract/src/parse.cjs");
    let run = |file: &std::path::Path| {
        let run = Command::new("node")
            .arg(&script)
            .arg(file)
            .env("NODE_PATH", &modules)
            .output();
        let run = run.expect("node runs");
        (
            run.status.success(),
            String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned(),
        )
    };
    let (taken, said) = run(&folder().join("asyncapi.yaml"));
    let messages = names(&document::document()).len();
    assert!(taken && said.contains(&format!("{messages} messages")), "{said}");
    assert!(!said.contains("error") && !said.contains("warning"), "{said}");

    // And it is able to refuse one.
    let mut wrong = document::document();
    wrong["channels"]["failover.started"]["messages"]["failover.started"]["$ref"] =
        json!("#/components/messages/none");
    let file = std::env::temp_dir().join(format!("understudy-asyncapi-{}.json", std::process::id()));
    std::fs::write(&file, wrong.to_string()).expect("a temporary file");
    let (taken, said) = run(&file);
    std::fs::remove_file(&file).expect("it was there");
    assert!(!taken, "{said}");
}

#[test]
fn no_consumer_of_a_released_version_would_break() {
    let released = compatible::released().expect("released documents");
    assert!(!released.is_empty());
    for (version, before) in released {
        let broken = compatible::broken(&before, &document::document());
        assert!(
            broken.is_empty(),
            "consumers of {version} would break; add, and don't change (docs/events/README.md):\n{}",
            broken.join("\n")
        );
    }
}
