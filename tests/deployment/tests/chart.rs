//! The Helm chart: real `helm`, and Kubernetes' own schemas, strictly. No cluster is at hand: that pods start is
//! not shown here.

use std::{fs, path::PathBuf};

use anyhow::ensure;
use understudy_deployment::{project, run, tool};
use understudy_runtime::testing::left_out;

/// The Kubernetes versions that the chart is for: the oldest and the newest whose schemas are at hand.
const VERSIONS: [&str; 2] = ["1.27", "1.35"];

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
    vec![
        vec!["secretName=understudy"],
        vec![
            "secretName=understudy",
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
            "secretName=understudy",
            "networkPolicy.enabled=false",
            "hostNetwork=true",
            "license.licensing=off",
        ],
    ]
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
    let text = rendered(&["secretName=understudy"])?;
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
        let Err(refused) = rendered(&["secretName=understudy", value]) else {
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
    let text = rendered(&["secretName=understudy"])?;
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
