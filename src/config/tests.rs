//! What is wrong in a configuration is said in one sentence that names the setting.

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

fn refusal(name: &'static str, value: &str) -> String {
    let settings = [("ari.password", "x".to_owned()), (name, value.to_owned())];
    Config::with(None, &settings).unwrap_err().to_string()
}

#[test]
fn a_wrong_setting_is_named() {
    for (name, value) in [
        ("http.address", "8080"),
        ("http.session_hours", "0"),
        ("database.url", "mysql://x"),
        ("database.realtime_url", "sqlite://x"),
        ("ari.address", "localhost"),
        ("ari.password", ""),
        ("ari.application", "a b"),
        ("log.filter", "=,="),
        ("metrics.address", "9464"),
        ("metrics.address", "localhost:9464"),
        ("metrics.address", "127.0.0.1:8080"),
        ("internal.token", "short"),
        ("calls.most_in_setup", "0"),
        ("calls.audit_seconds", "0"),
        ("journal.sync_interval_ms", "0"),
        ("journal.most_mb", "63"),
        ("capacity.store", "disk"),
        ("capacity.key_prefix", "a:b"),
        ("capacity.patience_ms", "0"),
        ("capacity.patience_ms", "401"),
        ("capacity.lease_seconds", "60"),
        ("capacity.verify_minutes", "0"),
        ("capacity.when_away", "hope"),
        ("capacity.instances", "65"),
        ("shutdown.calls", "drop"),
        ("shutdown.wait_seconds", "0"),
    ] {
        let refusal = refusal(name, value);
        assert!(refusal.contains(name), "{refusal}");
    }
    // A share of what everybody has isn't known without their number.
    assert!(refusal("capacity.when_away", "share").contains("capacity.instances"));
    assert!(refusal("http.adress", "127.0.0.1:1").contains("adress"));
}

#[test]
fn what_is_given_is_told_from_what_is_default() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "[database]\nurl = \"postgres://a@b/c\"\n").unwrap();
    let given = |name| Config::given(Some(file.path()), name).unwrap();
    assert_eq!(given("database.url").as_deref(), Some("postgres://a@b/c"));
    assert_eq!(given("capacity.redis_url"), None);
}

#[test]
fn a_limit_per_address_behind_a_proxy_is_warned_of() {
    let settings = |limit: &str| {
        [
            ("ari.password", "x".to_owned()),
            ("http.secure_cookies", "true".to_owned()),
            ("http.failed_sign_ins_per_address", limit.to_owned()),
        ]
    };
    let warnings = |limit| Config::with(None, &settings(limit)).unwrap().warnings();
    assert!(warnings("50")[0].contains("failed_sign_ins_per_address"));
    assert!(warnings("0").is_empty());
}

#[test]
fn a_password_of_digits_stays_what_it_is() {
    use secrecy::ExposeSecret;
    let config = Config::with(None, &[("ari.password", "1e5".to_owned())]).unwrap();
    assert_eq!(config.ari.password.expose_secret(), "1e5");
}

/// What the service would say of this file in this environment.
fn read(file: &str, environment: &[(String, String)]) -> Result<Config, String> {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    let defaults = config::File::from_str(DEFAULTS, config::FileFormat::Toml);
    let environment = environment.iter().cloned().collect();
    let builder = config::Config::builder().add_source(defaults);
    let environment = Config::environment().source(Some(environment));
    let read = || {
        let layers = Config::layers_over(builder, Some(path.path()), environment)?;
        layers.build()?.try_deserialize::<Config>()?.validated()
    };
    read().map_err(|error: ConfigError| error.to_string())
}

/// Every setting, by section and name.
fn names() -> Vec<(String, String)> {
    let defaults = config::File::from_str(DEFAULTS, config::FileFormat::Toml);
    let defaults = config::Config::builder().add_source(defaults).build().unwrap();
    let sections: std::collections::BTreeMap<String, serde_json::Map<String, serde_json::Value>> =
        defaults.try_deserialize().unwrap();
    let of = |(section, names): (String, serde_json::Map<String, serde_json::Value>)| {
        let with_section = |name: &String| (section.clone(), name.clone());
        names.keys().map(with_section).collect::<Vec<_>>()
    };
    sections.into_iter().flat_map(of).collect()
}

fn assert_one_sentence(said: &str) {
    let is_one = said.chars().count() < 700 && !said.chars().any(char::is_control);
    assert!(is_one && !said.is_empty(), "{said:?}");
}

#[test]
fn what_no_parser_can_read_is_refused_in_one_sentence() {
    for file in ["[http", "a = ", "[http]\naddress = \"1\n", "\u{0}", "[a]\n[a]\n", "= 1"] {
        let said = read(file, &[]).unwrap_err();
        assert_one_sentence(&said);
        assert!(said.starts_with("the settings in ") && said.contains("can't be read"), "{said}");
    }
    assert_one_sentence(&read(&format!("\"a\\nb{}\" = 1", "x".repeat(9_999)), &[]).unwrap_err());
    assert!(read(&format!("[log]\nfilter = {}1", "[".repeat(100_000)), &[]).is_err());
}

#[test]
fn a_file_that_is_none_of_settings_is_refused_with_its_name_and_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let [pipe, long, torn] = ["pipe", "long", "torn"].map(|name| folder.path().join(name));
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    std::fs::write(&long, "#".repeat((1 << 20) + 1)).unwrap();
    std::fs::write(&torn, "[http\n").unwrap();
    for (file, problem) in [
        (Path::new("/dev/zero"), "it isn't a regular file"),
        (Path::new("/"), "it isn't a regular file"),
        (&pipe, "it isn't a regular file"),
        (&long, "it is larger than 1 MiB"),
        (&torn, "table"),
        (Path::new("/nowhere/capconduit.toml"), "No such file"),
    ] {
        let said = Config::load(Some(file)).unwrap_err().to_string();
        assert!(said.contains(&*file.to_string_lossy()) && said.contains(problem), "{said}");
        assert_one_sentence(&said);
    }
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        any::<String>(),
        "\"[ -~]{0,40}\"",
        "[0-9.:a-z/@-]{0,30}".prop_map(|text| format!("\"{text}\"")),
        Just("true".to_owned()),
        Just("[1, [2, {a = 3}]]".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_file_and_no_environment_is_more_than_one_sentence(
        noise in prop_oneof![Just(String::new()), any::<String>(), "[\\[\\]a-z=\"{}.,0-9 \n]{0,80}"],
        settings in proptest::collection::vec((any::<prop::sample::Index>(), value()), 0..4),
        variables in proptest::collection::vec((any::<prop::sample::Index>(), value()), 0..4),
    ) {
        let names = names();
        let mut file = "[ari]\npassword = \"x\"\n".to_owned();
        for (which, value) in settings {
            let (section, name) = which.get(&names);
            if section != "ari" {
                file = format!("{section}.{name} = {value}\n{file}");
            }
        }
        file.push_str(&noise);
        let environment: Vec<_> = variables
            .into_iter()
            .map(|(which, value)| {
                let (section, name) = which.get(&names);
                (format!("CAPCONDUIT__{section}__{name}").to_uppercase(), value)
            })
            .collect();
        if let Err(said) = read(&file, &environment) {
            assert_one_sentence(&said);
        }
    }
}
