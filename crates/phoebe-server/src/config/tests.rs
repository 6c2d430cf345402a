//! Tests of the settings as a whole: sources, errors, printing, arbitrary input.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn from_file(text: &str) -> Result<Resolved, ConfigError> {
    from(text, &[], Vec::new())
}

fn from(
    text: &str,
    environment: &[(&str, &str)],
    flags: Vec<Flag>,
) -> Result<Resolved, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).expect("written");
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    load(&Sources { file: Some(path), search: Vec::new(), environment, flags })
}

fn complaint(text: &str) -> String {
    from_file(text).expect_err("refused").to_string()
}

fn port_flag(text: &str) -> Vec<Flag> {
    vec![Flag { name: "--port", key: ("server", "port"), text: text.to_owned() }]
}

fn repository_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn defaults_are_the_documented_ones() {
    let resolved = load(&Sources::default()).expect("defaults");
    assert_eq!(resolved.settings, Settings::default());
    assert_eq!(resolved.settings.server.port, 8001);
    assert_eq!(resolved.settings.port_pool.end, 7560);
    assert_eq!(resolved.file, None);
    assert!(resolved.notes().is_empty());
}

#[test]
fn existing_files_load_unchanged() {
    let text = r#"
        [server]
        host = "127.0.0.1"
        port = 8001
        workers = 4
        [auth]
        mode = "internal"
        password = ""
        jwt_secret_key = "a long random text"
        jwt_algorithm = "HS256"
        jwt_expire_minutes = 1440
        jwt_issuer = ""
        enabled = true
        api_keys = ["phoebe_1", "phoebe_2"]
        [port_pool]
        start = 6560
        end = 6590
        [session]
        idle_timeout_seconds = 1800
        [database]
        path = "data/sessions.db"
        log_exclude_commands = "ping, get_value"
        log_include_commands = ""
        [resources]
        max_workers_per_user = 0
        [logging]
        level = "WARNING"
        format = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
    "#;
    let resolved = from_file(text).expect("accepted");
    let settings = &resolved.settings;
    assert_eq!(settings.auth.mode, AuthMode::Jwt);
    assert_eq!(settings.auth.api_keys[1].expose(), "phoebe_2");
    assert_eq!(settings.database.log_exclude_commands, ["ping", "get_value"]);
    assert!(settings.database.log_include_commands.is_empty());
    assert_eq!(settings.logging.format, LogFormat::Text);
    let notes = resolved.notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("[server] workers"), "{notes:?}");
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_both() {
    let file = "[server]\nport = 1\nhost = \"::1\"\n[database]\nlog_include_commands = [\"ping\"]";
    let variables = [
        ("PHOEBE_SERVER__SERVER__PORT", "2"),
        ("PHOEBE_SERVER__DATABASE__LOG_INCLUDE_COMMANDS", "ping,run_compute"),
        ("PHOEBE_SERVER_CONFIG", "/is/not/read/where/a/flag/names/a/file"),
        ("PHOEBE_SERVERLESS", "x"),
    ];
    let resolved = from(file, &variables, port_flag("3")).expect("accepted");
    assert_eq!(resolved.settings.server.port, 3);
    assert_eq!(resolved.settings.server.host, "::1");
    assert_eq!(resolved.settings.database.log_include_commands, ["ping", "run_compute"]);
    assert_eq!(resolved.origins.get("server", "port").to_string(), "--port");
    assert!(resolved.origins.get("server", "host").to_string().ends_with("config.toml:3"));
    let origin = resolved.origins.get("database", "log_include_commands").to_string();
    assert_eq!(origin, "environment PHOEBE_SERVER__DATABASE__LOG_INCLUDE_COMMANDS");
    assert_eq!(resolved.origins.get("server", "workers").to_string(), "default");
}

#[test]
fn the_token_secret_has_a_variable_of_its_own() {
    let short = ("PHOEBE_JWT_SECRET_KEY", "from the short one");
    let resolved = from("[auth]\nmode = \"jwt\"", &[short], Vec::new()).expect("accepted");
    assert_eq!(resolved.settings.auth.jwt_secret_key.expose(), "from the short one");
    let long = ("PHOEBE_SERVER__AUTH__JWT_SECRET_KEY", "from the long one");
    let resolved = from("", &[long, short], Vec::new()).expect("accepted");
    assert_eq!(resolved.settings.auth.jwt_secret_key.expose(), "from the long one");
}

#[test]
fn phoebes_variable_of_a_passband_folder_is_the_default_of_the_setting() {
    let variable = ("PHOEBE_PBDIR", "/srv/passbands");
    let resolved = from("", &[variable], Vec::new()).expect("accepted");
    assert_eq!(resolved.settings.worker.passband_dir, Some("/srv/passbands".into()));
    let printed = print::with_origins(&resolved);
    let line = printed.lines().find(|line| line.starts_with("passband_dir")).expect("there");
    assert!(line.contains("/srv/passbands") && line.ends_with("# from environment PHOEBE_PBDIR"));
    let named = "[worker]\npassband_dir = \"/mine\"";
    let resolved = from(named, &[variable], Vec::new()).expect("accepted");
    assert_eq!(resolved.settings.worker.passband_dir, Some("/mine".into()));
    assert!(resolved.notes().is_empty(), "{:?}", resolved.notes());
}

#[test]
fn a_variable_of_phoebe_without_effect_is_reported() {
    let variables = [
        ("PHOEBE_ENABLE_MPI", "TRUE"),
        ("PHOEBE_JWT_SECRET_KEY", "secret"),
        ("PHOEBE_SERVER_CONFIG", ""),
        ("PHOEBE_PBDIR", "/srv"),
        ("PATH", "/bin"),
    ];
    let notes = from("", &variables, Vec::new()).expect("accepted").notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("the variable PHOEBE_ENABLE_MPI has no effect"), "{notes:?}");
}

#[test]
fn a_named_file_must_exist_and_others_are_searched_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing.toml");
    let present = folder.path().join("present.toml");
    std::fs::write(&present, "[server]\nport = 7").expect("written");
    let by_flag = Sources { file: Some(missing.clone()), ..Sources::default() };
    let text = load(&by_flag).expect_err("refused").to_string();
    assert!(text.contains("missing.toml") && text.contains("--config"), "{text}");
    let variable = (OsString::from("PHOEBE_SERVER_CONFIG"), missing.clone().into_os_string());
    let by_variable = Sources { environment: vec![variable], ..Sources::default() };
    let text = load(&by_variable).expect_err("refused").to_string();
    assert!(text.contains("$PHOEBE_SERVER_CONFIG"), "{text}");
    let found = load(&Sources { search: vec![missing, present.clone()], ..Sources::default() });
    let found = found.expect("accepted");
    assert_eq!((found.settings.server.port, found.file), (7, Some(present)));
}

#[test]
fn all_errors_of_a_file_are_reported_with_line_and_nearest_key() {
    let text = complaint(
        "port = 3\n[server]\nhots = \"x\"\n  port = 99999\n[sesion]\n[auth]\nmode = \"jtw\"\n\
         idle_timeout_secs = 4\n[logging]\nlevel = \"INFOO\"\nformat = \"jsno\"\n[worker]\n\
         start = 1979-05-27",
    );
    let expected = [
        "config.toml:1:1: port is outside a section; it belongs in [server]",
        "config.toml:3:1: unknown key hots in [server]; did you mean host?",
        "config.toml:4:10: [server] port: expected a whole number from 0 to 65535, found 99999",
        "config.toml:5:2: unknown section [sesion]; did you mean [session]?",
        "config.toml:7:8: [auth] mode: expected \"none\" or",
        "did you mean \"jwt\"?",
        "config.toml:8:1: unknown key idle_timeout_secs in [auth]; did you mean [session] \
         idle_timeout_seconds?",
        "config.toml:10:9: [logging] level",
        "did you mean \"INFO\"?",
        "config.toml:11:10: [logging] format",
        "did you mean \"json\"?",
        "config.toml:13:9: [worker] start: expected \"fork\" or \"spawn\", found datetime",
    ];
    let mut rest = text.as_str();
    for part in expected {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is not next in:\n{text}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn invalid_toml_is_reported_with_its_line() {
    let text = complaint("[server]\nport = 1\nhost = \"unfinished\n[auth]\n");
    assert!(text.contains("config.toml:3:"), "{text}");
    let text = complaint("[server]\nport = 1\nport = 2\n");
    assert!(text.contains("config.toml:3:") && text.contains("duplicate"), "{text}");
    let text = complaint("[server]\nport = 99999999999999999999999\n");
    assert!(text.contains("config.toml:2:"), "{text}");
}

#[test]
fn wrong_variables_and_flags_are_named() {
    let refused = |name: &str, value: &str| {
        from("", &[(name, value)], Vec::new()).expect_err("refused").to_string()
    };
    let text = refused("PHOEBE_SERVER__SERVER__PRT", "1");
    assert!(text.contains("PHOEBE_SERVER__SERVER__PRT") && text.contains("did you mean port?"));
    assert!(refused("PHOEBE_SERVER__SERVER__PORT", "many").contains("PHOEBE_SERVER__SERVER__PORT"));
    assert!(refused("PHOEBE_SERVER__PORT", "1").contains("SECTION__KEY"));
    let text = from("", &[], port_flag("x")).expect_err("refused").to_string();
    assert!(text.starts_with("--port: [server] port"), "{text}");
}

#[test]
fn invalid_combinations_are_refused_with_the_remedy() {
    let cases = [
        ("[port_pool]\nstart = 7\nend = 7", "must be less than end"),
        ("[server]\nhost = \"0.0.0.0\"", "allow_unauthenticated_network = true"),
        ("[auth]\nmode = \"jwt\"", "PHOEBE_JWT_SECRET_KEY"),
        ("[auth]\nmode = \"external\"\njwt_secret_key = \"test\"", "generate-key"),
        ("[auth]\nmode = \"external\"\njwks = \"k\"\njwt_public_key = \"p\"", "one kind of key"),
        (
            "[auth]\nmode = \"external\"\njwks = \"k\"\njwt_secret_key = \"s\"",
            "jwt_secret_key and jwks",
        ),
        (
            "[auth]\nmode = \"jwt\"\njwt_secret_key = \"-----BEGIN PUBLIC KEY-----\"",
            "jwt_public_key",
        ),
        (
            "[auth]\nmode = \"jwt\"\njwt_secret_key = \"s\"\njwt_audience = \"me\"",
            "mode = \"external\"",
        ),
        (
            "[auth]\nmode = \"jwt\"\njwt_secret_key = \"s\"\njwt_algorithm = \"RS256\"",
            "mode = \"external\"",
        ),
        ("[auth]\njwt_algorithm = \"none\"", "HS256"),
        ("[auth]\nmode = \"password\"", "[auth] password"),
        ("[auth]\nenabled = true", "generate-key"),
        ("[auth]\nenabled = true\napi_keys = [\"\"]", "empty"),
        ("[server]\ntls_cert = \"a.pem\"", "without tls_key"),
        ("[server]\ntls_key = \"a.pem\"", "without tls_cert"),
    ];
    for (text, way_out) in cases {
        let told = complaint(text);
        assert!(told.contains(way_out) && told.contains("config.toml:"), "{text}: {told}");
    }
}

#[test]
fn the_network_needs_authentication_or_explicit_permission() {
    let open = "[server]\nhost = \"0.0.0.0\"\n";
    assert!(from_file(&format!("{open}allow_unauthenticated_network = true")).is_ok());
    assert!(from_file(&format!("{open}[auth]\nmode = \"password\"\npassword = \"p\"")).is_ok());
    assert!(from_file(&format!("{open}[auth]\nenabled = true\napi_keys = \"k\"")).is_ok());
    for host in ["localhost", "127.0.0.5", "::1", "[::1]"] {
        assert!(from_file(&format!("[server]\nhost = \"{host}\"")).is_ok(), "{host}");
    }
}

#[test]
fn secrets_are_printed_nowhere() {
    let text = "[auth]\nmode = \"jwt\"\njwt_secret_key = \"hush-hush\"\napi_keys = [\"hush-key\"]";
    let resolved = from_file(text).expect("accepted");
    let printed = print::with_origins(&resolved);
    assert!(printed.contains("jwt_secret_key = \"********\""), "{printed}");
    assert!(!printed.contains("hush") && !format!("{resolved:?}").contains("hush"));
    assert!(complaint(&format!("{text}\npassword = 1")).contains("secret text"));
    assert!(!complaint(&format!("{text}\njwt_issuer = \"hush")).contains("hush-"));
    assert!(complaint("[auth]\npassword = \"********\"").contains("mask"));
}

#[test]
fn the_reference_and_the_example_are_current() {
    let hint = "run `phoebe-server config --reference > docs/settings.md` and \
                `phoebe-server config --example > config.example.toml`";
    assert!(repository_file("docs/settings.md") == reference::markdown(), "{hint}");
    assert!(repository_file("config.example.toml") == reference::example(), "{hint}");
}

#[test]
fn the_example_has_the_defaults_also_without_comment_signs() {
    let example = reference::example();
    assert_eq!(from_file(&example).expect("accepted").settings, Settings::default());
    let uncommented = example.replace("\n#", "\n").replace("\n ", "\n# ");
    assert_eq!(from_file(&uncommented).expect("accepted").settings, Settings::default());
}

/// An address or a range.
fn range(address: [u8; 4], number: u16) -> ipnet::IpNet {
    let bits = (number % 33) as u8;
    ipnet::IpNet::new(address.into(), bits).expect("at most 32 bits").trunc()
}

#[test]
fn proxies_are_addresses_or_ranges() {
    let file = "[server]\ntrusted_proxies = [\"10.1.2.3/8\", \"::1\", \"::ffff:192.0.2.1\"]\n";
    let settings = from_file(file).expect("accepted").settings;
    let displayed: Vec<String> =
        settings.server.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(displayed, ["10.0.0.0/8", "::1/128", "192.0.2.1/32"]);
    let error = from_file("[server]\ntrusted_proxies = [\"10.0.0.0/33\"]\n").expect_err("refused");
    assert!(error.to_string().contains("10.0.0.0/33"), "{error}");
}

/// Valid combinations of settings without secrets.
fn settings() -> impl Strategy<Value = Settings> {
    let server = (any::<u16>(), any::<[u8; 4]>(), 1..65_536_u64, ".*", any::<bool>());
    let pool = (1..u16::MAX - 1).prop_flat_map(|start| (Just(start), start + 1..u16::MAX));
    let commands = proptest::collection::vec("[^,\\s]([^,]*[^,\\s])?", 0..4);
    let numbers = (0.0..1e9_f64, 0.1..3600.0_f64, 1..usize::MAX >> 2, any::<bool>());
    (server, pool, commands, "[^\0]+", numbers).prop_map(
        |((port, address, max_body_mb, issuer, spawn), (start, end), commands, path, numbers)| {
            let mut settings = Settings::default();
            settings.server.port = port;
            settings.server.trusted_proxies = vec![range(address, port)];
            settings.server.max_body_mb = max_body_mb;
            settings.auth.jwt_issuer = issuer;
            settings.port_pool = PortPoolSettings { start, end };
            settings.database.path = PathBuf::from(&path);
            settings.database.log_include_commands = commands;
            settings.session.idle_timeout_seconds = numbers.0;
            settings.session.start_timeout_seconds = numbers.1;
            settings.resources.queue_depth = numbers.2;
            settings.worker.accelerate = numbers.3;
            settings.worker.python = spawn.then(|| PathBuf::from(path));
            settings.worker.start = if spawn { WorkerStart::Spawn } else { WorkerStart::Fork };
            settings
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_reads_as_the_same_settings(settings in settings()) {
        let resolved = Resolved {
            settings,
            origins: Origins::default(),
            file: None,
            ignored_variables: Vec::new(),
            passed_over: Vec::new(),
        };
        let printed = print::with_origins(&resolved);
        let read = from_file(&printed).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(read.settings, resolved.settings);
    }

    #[test]
    fn any_text_is_settings_or_an_error(text in ".*") {
        let _ = from_file(&text);
    }

    #[test]
    fn any_likely_text_is_settings_or_an_error(
        lines in proptest::collection::vec(
            "(\\[(server|auth|port_pool|worker)\\]|\
              (port|host|mode|start|api_keys|level) *= *[-\\[\\]\"'0-9a-fé.,{}]{0,9})",
            0..8,
        ),
    ) {
        let _ = from_file(&lines.join("\n"));
    }

    #[test]
    fn any_value_of_a_variable_is_settings_or_an_error(
        value in "[^\0]*", index in 0..100_usize,
    ) {
        let keys: Vec<&Key> = Settings::SECTIONS.iter().flat_map(|section| section.keys).collect();
        let key = keys[index % keys.len()];
        let name = format!("PHOEBE_SERVER__{}__{}", key.section, key.name).to_uppercase();
        if let Err(error) = from("", &[(&name, &value)], Vec::new()) {
            prop_assert!(error.to_string().contains(&name) || error.to_string().contains("[auth]"));
        }
    }
}
