//! The Helm chart: real `helm`, and Kubernetes' own schemas, strictly. No cluster is at hand: that pods start is
//! not shown here.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;
use understudy_deployment::{project, run, tool};
use understudy_runtime::testing::left_out;

/// The Kubernetes versions that the chart is for: the oldest and the newest whose schemas are at hand.
const VERSIONS: [&str; 2] = ["1.27", "1.35"];

/// The least that works: the Secret, and those of the broker's addresses.
const LEAST: [&str; 3] = [
    "secretName=understudy",
    "broker.secretName=brokers",
    "broker.serversSecretName=servers",
];

/// One account of the broker for all.
const SHARED: [&str; 2] = ["secretName=understudy", "broker.shared=true"];

/// Whether a tool that no package of Debian brings could be had.
fn here(name: &str) -> bool {
    let runs = tool(name).arg("--help").output().is_ok();
    if !runs {
        left_out(format!("the chart: {name} could not be had"));
    }
    runs
}

fn chart() -> PathBuf {
    project().join("infra/kubernetes")
}

/// Sets of values: the least that works, and everything that can be switched.
fn sets() -> Vec<Vec<&'static str>> {
    let more = [
        vec![],
        vec![
            "serviceMonitor.enabled=true",
            "serviceMonitor.labels.release=prometheus",
            "networkPolicy.metricsFrom[0].matchLabels.name=monitoring",
            "networkPolicy.apiFrom[0].matchLabels.name=control-room",
            "recorders.replicas=3",
            "standbys.replicas=2",
            "recorders.storage.className=fast",
            "host.storage.className=safe",
            "recorders.nodeSelector.disk=large",
            "imagePullSecrets[0].name=registry",
            "console.hosts[0]=video.example.org",
            "notifier.receivers[0].name=control-room",
            "notifier.receivers[0].to=mailto:control-room@example.org",
            "notifier.receivers[0].quiet=22:00-06:00",
            "notifier.receivers[0].gather_ms=2000",
            "notifier.receivers[0].events[0]=failover.*",
            "notifier.receivers[1].name=hook",
            "notifier.receivers[1].to_file=/run/secrets/understudy/hook.url",
            "notifier.settings.smtp_host=mail.example.org",
            "notifier.settings.smtp_port=587",
            "notifier.settings.mail_from=understudy@example.org",
            "notifier.secrets[0]=hook.url",
            "notifier.storage.className=safe",
            "telemetry.otlpEndpoint=http://collector.observability:4318",
            "telemetry.traceRatio=0.25",
            "image.tag=0.1.0@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "recorders.tolerations[0].key=video",
            "recorders.tolerations[0].operator=Exists",
            "host.resources.limits.cpu=2",
        ],
        vec![
            "networkPolicy.enabled=false",
            "hostNetwork=true",
            "license.licensing=off",
        ],
    ];
    let least = more.into_iter().map(|more| [LEAST.to_vec(), more].concat());
    least.chain([SHARED.to_vec()]).collect()
}

fn helm(command: &[&str], values: &[&str]) -> anyhow::Result<String> {
    let mut arguments: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
    arguments.push(chart().display().to_string());
    for value in values {
        arguments.extend(["--set".to_owned(), (*value).to_owned()]);
    }
    run("helm", arguments)
}

fn rendered(values: &[&str]) -> anyhow::Result<String> {
    helm(&["template", "site", "--namespace", "video"], values)
}

/// The parts of what is rendered: one for each thing that Kubernetes would make.
fn things(text: &str) -> Vec<&str> {
    text.split("\n---\n")
        .filter(|part| part.contains("\nkind: "))
        .collect()
}

#[test]
fn a1_helm_and_the_schemas_of_kubernetes_take_each_set_of_values() -> anyhow::Result<()> {
    if !here("helm") || !here("kubernetes-validate") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    for values in sets() {
        helm(&["lint", "--strict"], &values)?;
        let text = rendered(&values)?;
        // Its schema is its operator's, not Kubernetes'.
        let known: Vec<&str> = things(&text)
            .into_iter()
            .filter(|thing| !thing.contains("\nkind: ServiceMonitor"))
            .collect();
        let count = |kind: &str| {
            let kind = format!("\nkind: {kind}\n");
            things(&text)
                .into_iter()
                .filter(|thing| thing.contains(&kind))
                .count()
        };
        let has = |value: &str| values.contains(&value);
        let policies = match has("networkPolicy.enabled=false") {
            true => 0,
            false => 4,
        };
        // The operator scrapes by a service of its own.
        let monitored = usize::from(has("serviceMonitor.enabled=true"));
        for (kind, expected) in [
            ("Deployment", 4),
            ("StatefulSet", 2),
            ("PersistentVolumeClaim", 2),
            ("Service", 4 + monitored),
            ("ConfigMap", 1),
            ("PodDisruptionBudget", 1),
            ("NetworkPolicy", policies),
            ("ServiceMonitor", monitored),
        ] {
            ensure!(
                count(kind) == expected,
                "{} of {kind}, not {expected}: {values:?}",
                count(kind)
            );
        }
        let file = folder.path().join("rendered.yaml");
        fs::write(&file, known.join("\n---\n"))?;
        for version in VERSIONS {
            let words = ["--strict", "--quiet", "-k", version].map(str::to_owned);
            let complaints = run(
                "kubernetes-validate",
                words.into_iter().chain([file.display().to_string()]),
            )?;
            // It only warns of what it knows no schema of.
            ensure!(!complaints.contains("WARN"), "{version}: {complaints}");
        }
    }
    Ok(())
}

#[test]
fn a1_the_schemas_are_strict_enough_to_find_a_slip() -> anyhow::Result<()> {
    if !here("helm") || !here("kubernetes-validate") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let text = rendered(&LEAST)?;
    let file = folder.path().join("rendered.yaml");
    fs::write(
        &file,
        text.replace("readOnlyRootFilesystem:", "readonlyRootFilesystem:"),
    )?;
    let checked = run(
        "kubernetes-validate",
        ["--strict".to_owned(), file.display().to_string()],
    );
    ensure!(checked.is_err(), "a misspelt field was taken");
    Ok(())
}

#[test]
fn a1_values_that_can_not_work_are_refused_by_name() -> anyhow::Result<()> {
    if !here("helm") || !here("kubernetes-validate") {
        return Ok(());
    }
    for (value, named) in [
        ("secretName=", "/secretName"),
        ("broker.secretName=", "/broker/secretName"),
        ("broker.serversSecretName=", "/broker/serversSecretName"),
        ("broker.serversSecretName=Servers", "/broker/serversSecretName"),
        // Servers would see the host's addresses, or the fleet's key and the API's token.
        ("broker.serversSecretName=brokers", "broker.serversSecretName"),
        ("broker.serversSecretName=understudy", "broker.serversSecretName"),
        ("broker.shared=true", "/broker/secretName"),
        ("broker.shared=yes", "/broker/shared"),
        ("broker.url=amqp://rabbitmq", "/broker"),
        ("notifier.secrets[0]=console.token", "/notifier/secrets/0"),
        ("notifier.secrets[0]=broker.url", "/notifier/secrets/0"),
        ("database.kind=postgresql", "/database/kind"),
        ("recorders.replicas=-1", "/recorders/replicas"),
        ("standbys.maxCameras=0", "/standbys/maxCameras"),
        ("recorders.storage.size=much", "/recorders/storage/size"),
        ("license.issuers[0]=me", "/license/issuers/0"),
        ("domain=East Wing", "/domain"),
        ("notifier.receivers[0].name=a b", "/notifier/receivers/0"),
        ("notifier.receivers[0].name=hook", "/notifier/receivers/0"),
        ("notifier.settings.smtp_password=hunter2", "/notifier/settings"),
        ("recorderz.replicas=1", "recorderz"),
        (
            "telemetry.otlpEndpoint=https://collector",
            "/telemetry/otlpEndpoint",
        ),
        ("telemetry.traceRatio=2", "/telemetry/traceRatio"),
        ("externalDatabase.host=postgres", "/externalDatabase"),
        ("secretName=My Secret", "/secretName"),
        ("image.tag=two words", "/image/tag"),
        ("image.repository=Upper/Case", "/image/repository"),
        ("imagePullSecrets[0].names=registry", "/imagePullSecrets/0"),
        (
            "host.resources.limits.memory=lots",
            "/host/resources/limits/memory",
        ),
        ("recorders.resources.limit.memory=1Gi", "/recorders/resources"),
        (
            "recorders.resources.requests.cpu=two",
            "/recorders/resources/requests/cpu",
        ),
        (
            "recorders.tolerations[0].effect=Never",
            "/recorders/tolerations/0/effect",
        ),
        ("host.storage.className=Not Fast", "/host/storage/className"),
        ("console.hosts[0]=https://video.example.org", "/console/hosts/0"),
        (
            "networkPolicy.apiFrom[0].labels.name=x",
            "/networkPolicy/apiFrom/0",
        ),
        ("serviceMonitor.interval=0s", "/serviceMonitor/interval"),
    ] {
        let Err(refused) = rendered(&[&LEAST[..], &[value]].concat()) else {
            anyhow::bail!("{value} was taken");
        };
        ensure!(refused.to_string().contains(named), "{value}: {refused}");
    }
    Ok(())
}

#[test]
fn a1_containers_have_no_rights_that_they_don_t_need() -> anyhow::Result<()> {
    if !here("helm") || !here("kubernetes-validate") {
        return Ok(());
    }
    let text = rendered(&LEAST)?;
    let workloads: Vec<&str> = things(&text)
        .into_iter()
        .filter(|thing| thing.contains("\nkind: Deployment") || thing.contains("\nkind: StatefulSet"))
        .collect();
    assert_eq!(
        workloads.len(),
        6,
        "host, monitor, console, notifier, recorders, standbys"
    );
    let mut containers = 0;
    for workload in workloads {
        let count = |what: &str| workload.matches(what).count();
        let here = count("image: ");
        for right in [
            "readOnlyRootFilesystem: true",
            "allowPrivilegeEscalation: false",
            "capabilities: { drop: [ALL] }",
            "livenessProbe:",
            "readinessProbe:",
        ] {
            assert_eq!(count(right), here, "{right} in {workload}");
        }
        assert_eq!(count("runAsNonRoot: true"), 1);
        assert_eq!(count("automountServiceAccountToken: false"), 1);
        // The API's token is the console's alone, and the fleet's key nothing of those who talk to the outside.
        let (console, monitor) = (count("name: console"), count("name: monitor"));
        let notifier = count("name: notifier");
        assert_eq!(count("key: console.token") > 0, console > 0, "{workload}");
        assert_eq!(
            count("key: fleet.key") > 0,
            console + monitor + notifier == 0,
            "{workload}"
        );
        // The fleet's token is for those who beat, hear, and give recordings to one another.
        let servers = count("name: agent");
        assert_eq!(count("key: fleet.token") > 0, monitor + servers > 0, "{workload}");
        containers += here;
    }
    assert_eq!(containers, 11);
    Ok(())
}

/// Deployments and stateful sets: each with its containers.
fn workloads(text: &str) -> anyhow::Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rendered.yaml");
    fs::write(&file, text)?;
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let said = run("python/bin/python", ["-c", script, &file.display().to_string()])?;
    let things: Vec<Value> = serde_json::from_str(&said)?;
    let kinds = ["Deployment", "StatefulSet"];
    Ok(things
        .into_iter()
        .filter(|thing| kinds.contains(&thing["kind"].as_str().unwrap_or_default()))
        .collect())
}

fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_default()
}

/// What one container finds in a file: which key of which Secret, and where.
#[derive(Debug)]
struct Seen {
    secret: String,
    key: String,
    at: String,
}

/// Every key of a Secret that a container of a workload's pod sees.
fn seen(workload: &Value, container: &Value, pod_name: &str) -> anyhow::Result<Vec<Seen>> {
    let pod = &workload["spec"]["template"]["spec"];
    let claims = list(&workload["spec"], "volumeClaimTemplates");
    for variable in list(container, "env") {
        ensure!(variable["valueFrom"]["secretKeyRef"].is_null(), "{variable}");
    }
    ensure!(container["envFrom"].is_null(), "{container}");
    let mut found = Vec::new();
    for mount in list(container, "volumeMounts") {
        let volume = list(pod, "volumes")
            .iter()
            .find(|volume| volume["name"] == mount["name"]);
        let Some(volume) = volume else {
            let claimed = |claim: &Value| claim["metadata"]["name"] == mount["name"];
            ensure!(claims.iter().any(claimed), "{mount} is of no volume");
            continue;
        };
        ensure!(
            volume["projected"].is_null() && volume["csi"].is_null(),
            "{volume}"
        );
        if volume["secret"].is_null() {
            continue;
        }
        let mut see = |key: &str, at: String| {
            found.push(Seen {
                secret: text(&volume["secret"], "secretName").to_owned(),
                key: key.to_owned(),
                at,
            });
        };
        let at = text(mount, "mountPath");
        let one = match (text(mount, "subPath"), text(mount, "subPathExpr")) {
            ("", expression) => expression.replace("$(UNDERSTUDY_SERVER__ID)", pod_name),
            (path, _) => path.to_owned(),
        };
        let items = list(&volume["secret"], "items");
        for item in items {
            ensure!(item["key"] == item["path"], "{item} has another name");
        }
        if one.is_empty() {
            ensure!(!items.is_empty(), "all of a Secret is seen at {at}");
            for item in items {
                see(text(item, "key"), format!("{at}/{}", text(item, "path")));
            }
        } else {
            ensure!(
                items.is_empty() || items.iter().any(|item| item["key"] == one.as_str()),
                "{one} is not there"
            );
            see(&one, at.to_owned());
        }
    }
    Ok(found)
}

/// Each address of the broker that is seen by a container of a release of these values, as (Secret, key, service),
/// after it was held to: one for each container, where it looks for it.
fn addresses(values: &[&str]) -> anyhow::Result<Vec<(String, String, String)>> {
    let mut found = Vec::new();
    for workload in workloads(&rendered(values)?)? {
        let pod = &workload["spec"]["template"]["spec"];
        ensure!(pod["initContainers"].is_null(), "who sees what there?");
        let name = text(&workload["metadata"], "name");
        let pods = match text(&workload, "kind") {
            "StatefulSet" => workload["spec"]["replicas"].as_u64().context("replicas")?,
            _ => 1,
        };
        for number in 0..pods {
            for container in list(pod, "containers") {
                let service = text(container, "name");
                let all = seen(&workload, container, &format!("{name}-{number}"))?;
                let brokers = all
                    .into_iter()
                    .filter(|seen| seen.secret != "understudy" || seen.key == "broker.url")
                    .collect::<Vec<_>>();
                let [broker] = &brokers[..] else {
                    anyhow::bail!("{service} sees {brokers:?}");
                };
                let setting = list(container, "env")
                    .iter()
                    .find(|variable| variable["name"] == "UNDERSTUDY_BROKER__URL_FILE");
                let setting = setting.map(|setting| text(setting, "value"));
                ensure!(
                    setting == Some(broker.at.as_str()),
                    "{service} looks in {setting:?}: {broker:?}"
                );
                found.push((broker.secret.clone(), broker.key.clone(), service.to_owned()));
            }
        }
    }
    Ok(found)
}

#[test]
fn a1_each_process_sees_its_own_address_of_the_broker_and_no_other() -> anyhow::Result<()> {
    if !here("helm") || !here("python/bin/python") {
        return Ok(());
    }
    for values in sets() {
        let found = addresses(&values)?;
        if values == SHARED {
            ensure!(
                found
                    .iter()
                    .all(|(secret, key, _)| secret == "understudy" && key == "broker.url"),
                "{found:?}"
            );
            continue;
        }
        for (secret, key, service) in &found {
            let server = ["agent", "ingest", "sync"].contains(&service.as_str());
            let expected = match server {
                true => ("servers", format!("{service}.main.site-understudy-")),
                false => ("brokers", format!("{service}.url")),
            };
            ensure!(
                secret == expected.0 && key.starts_with(&expected.1),
                "{service} sees {key} of {secret}"
            );
        }
        let keys: BTreeSet<&String> = found.iter().map(|(_, key, _)| key).collect();
        ensure!(keys.len() == found.len(), "two processes see the same: {found:?}");
        // Neither do their pods have more at hand.
        for workload in workloads(&rendered(&values)?)? {
            let pod = &workload["spec"]["template"]["spec"];
            let services: BTreeSet<String> = list(pod, "containers")
                .iter()
                .map(|container| format!("{}.url", text(container, "name")))
                .collect();
            for volume in list(pod, "volumes") {
                let secret = &volume["secret"];
                let keys: BTreeSet<String> = list(secret, "items")
                    .iter()
                    .map(|item| text(item, "key").to_owned())
                    .collect();
                match secret["secretName"].as_str() {
                    Some("brokers") => ensure!(keys == services, "{services:?} have {keys:?}"),
                    // Whole: whoever adds a server starts no other one again.
                    Some("servers") => {
                        ensure!(keys.is_empty() && services.contains("agent.url"), "{keys:?}");
                    }
                    Some(_) => ensure!(!keys.is_empty() && !keys.contains("broker.url"), "{keys:?}"),
                    None => {}
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a1_the_accounts_that_are_to_be_made_are_those_that_are_looked_for() -> anyhow::Result<()> {
    if !here("helm") || !here("python/bin/python") {
        return Ok(());
    }
    let values = [
        &LEAST[..],
        &["recorders.replicas=2", "standbys.replicas=3", "domain=east-2"],
    ]
    .concat();
    let notes = helm(&["install", "site", "--dry-run=client"], &values)?;
    let start = "infra/rabbitmq/accounts --at amqp://RABBITMQ:5672 accounts ";
    let names = notes
        .lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix(start)?
                .strip_suffix(" >definitions.json")
        })
        .with_context(|| format!("no command in {notes}"))?;
    let folder = tempfile::tempdir()?;
    let output = std::process::Command::new(project().join("infra/rabbitmq/accounts"))
        .args(["--at", "amqp://RABBITMQ:5672"])
        .arg(folder.path())
        .args(names.split_whitespace())
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let made = |kind: &str| -> anyhow::Result<BTreeSet<String>> {
        let entries = fs::read_dir(folder.path().join("addresses").join(kind))?;
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    let found = addresses(&values)?;
    let wanted = |wanted: &str| -> BTreeSet<String> {
        let of = found.iter().filter(|(secret, ..)| secret == wanted);
        of.map(|(_, key, _)| key.clone()).collect()
    };
    assert_eq!(made("host")?, wanted("brokers"));
    assert_eq!(made("servers")?, wanted("servers"));
    assert_eq!(wanted("servers").len(), 15, "three for each of five servers");
    Ok(())
}
