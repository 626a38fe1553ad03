//! A configuration that is wrong is refused with the place and the way out.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use understudy_runtime::{ConfigError, HostConfig, LogFormat, RuntimeConfig, Secret, load};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    runtime: RuntimeConfig,
    host: HostConfig,
    license: License,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct License {
    issuers: Vec<String>,
    limit: Option<u32>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
}

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("understudy.toml");
    std::fs::write(&file, text).unwrap();
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(Some(&file), environment)
}

fn refusal(text: &str, environment: &[(&str, &str)]) -> String {
    read(text, environment).expect_err("it is wrong").to_string()
}

#[test]
fn the_environment_lies_over_the_file_which_lies_over_the_defaults() {
    let file = "[runtime]\nlog = \"json\"\nlevel = \"warn\"\n[license]\nissuers = [\"aa\"]\n";
    let config = read(file, &[]).unwrap();
    assert_eq!(
        (config.runtime.log, config.runtime.level.as_str()),
        (LogFormat::Json, "warn")
    );
    assert_eq!(config.host, HostConfig::default());

    let environment = [
        ("UNDERSTUDY_RUNTIME__LEVEL", "debug"),
        ("UNDERSTUDY_HOST__DATA", "/data"),
        ("UNDERSTUDY_LICENSE__ISSUERS", "bb, cc"),
        ("UNDERSTUDY_LICENSE__LIMIT", "7"),
        ("UNDERSTUDY_LICENSE__PASSWORD", "12345"),
        ("UNDERSTUDY_API", "a flag's, not ours"),
        ("PATH", "/bin"),
    ];
    let config = read(file, &environment).unwrap();
    assert_eq!(
        (config.runtime.log, config.runtime.level.as_str()),
        (LogFormat::Json, "debug")
    );
    assert_eq!(config.host.data, Path::new("/data"));
    assert_eq!(config.license.issuers, ["bb", "cc"]);
    assert_eq!(config.license.limit, Some(7));
    assert_eq!(config.license.password.unwrap().expose(), "12345");
    let config = read(file, &[("UNDERSTUDY_LICENSE__ISSUERS", r#"["dd"]"#)]).unwrap();
    assert_eq!(config.license.issuers, ["dd"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() {
    let error = refusal("# fine\n[runtime]\nlevle = \"info\"\n", &[]);
    assert!(
        error.contains("understudy.toml line 3: unknown key runtime.levle"),
        "{error}"
    );
    assert!(error.contains("did you mean runtime.level?"), "{error}");

    let error = refusal("[licence]\nissuers = []\n", &[]);
    assert!(
        error.contains("line 1: unknown key licence; did you mean license?"),
        "{error}"
    );

    let error = refusal("", &[("UNDERSTUDY_RUNTIME__LEVLE", "info")]);
    assert!(
        error.contains("environment variable UNDERSTUDY_RUNTIME__LEVLE: unknown key runtime.levle"),
        "{error}"
    );
    assert!(
        error.contains("did you mean UNDERSTUDY_RUNTIME__LEVEL?"),
        "{error}"
    );

    let error = refusal("", &[("UNDERSTUDY_RUNTIME_LEVEL", "info")]);
    assert!(
        error.contains("did you mean UNDERSTUDY_RUNTIME__LEVEL?"),
        "{error}"
    );

    let error = refusal("[runtime]\nzzz = 1\n", &[]);
    assert!(
        error.ends_with("unknown key runtime.zzz"),
        "nothing resembles it: {error}"
    );
}

#[test]
fn a_wrong_value_is_refused_with_its_place() {
    let error = refusal("[runtime]\nlisten = \"everywhere\"\n", &[]);
    assert!(
        error.contains("understudy.toml line 2: runtime.listen"),
        "{error}"
    );
    let error = refusal("", &[("UNDERSTUDY_LICENSE__LIMIT", "many")]);
    assert!(
        error.contains("environment variable UNDERSTUDY_LICENSE__LIMIT: license.limit"),
        "{error}"
    );
    let error = refusal("[runtime\n", &[]);
    assert!(
        error.contains("no valid TOML") && error.contains("line 1"),
        "{error}"
    );
    let missing = load::<Config>(Some(Path::new("/no/such.toml")), std::iter::empty());
    assert!(missing.unwrap_err().to_string().contains("/no/such.toml"));
}
