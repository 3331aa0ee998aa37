//! Which source wins over which, and what is told of what is wrong.

use std::collections::HashMap;

use super::*;

/// Keys as in a file, and their values.
fn environment(pairs: &[(&str, &str)]) -> Environment {
    let name = |key: &str| format!("ROLLCALL_{}", key.to_uppercase().replace('.', "__"));
    let pairs: HashMap<String, String> = pairs
        .iter()
        .map(|(key, value)| (name(key), (*value).to_owned()))
        .collect();
    Environment::with_prefix("ROLLCALL")
        .prefix_separator("_")
        .separator("__")
        .source(Some(pairs))
}

/// Why the start is refused with these.
fn refusal(pairs: &[(&str, &str)]) -> String {
    let refused = build(None, environment(pairs), &[]);
    let error = refused.expect_err(&format!("{pairs:?}"));
    let message = error.to_string();
    // With its causes it says nothing twice.
    assert_eq!(format!("{:#}", anyhow::Error::from(error)), message);
    message
}

#[test]
fn later_sources_win_over_earlier_ones() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("rollcall.toml");
    std::fs::write(
        &file,
        "instance = \"file\"\n[mqtt]\nworkers = 3\nmax_inflight = 9\n",
    )
    .expect("file");
    let environment = environment(&[
        ("mqtt.workers", "5"),
        ("mqtt.listen", "127.0.0.1:0"),
        ("journal.max_bytes", "3MiB"),
        ("events.extended", "true"),
    ]);
    let flags = [("redis.url", "redis://flag".to_owned())];
    let config = build(Some(&file), environment, &flags).expect("sound");
    assert_eq!(config.instance, "file");
    assert_eq!(config.mqtt.workers, 5);
    assert_eq!(config.mqtt.max_inflight, 9);
    assert_eq!(config.mqtt.listen[0].to_string(), "127.0.0.1:0");
    assert_eq!(config.journal.max_bytes.as_u64(), 3 << 20);
    assert!(config.events.extended);
    assert_eq!(config.redis.url.to_string(), "redis://flag");
}

#[test]
fn addresses_are_one_or_many_wherever_they_come_from() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("rollcall.toml");
    let many =
        ["127.0.0.1:1", "[::1]:2", "unix:/run/a.sock"].map(|it| it.parse().expect("an address"));
    let text = "[mqtt]\nlisten = [\"127.0.0.1:1\", \"[::1]:2\", \"unix:/run/a.sock\"]\n";
    std::fs::write(&file, text).expect("file");
    let config = build(Some(&file), environment(&[]), &[]).expect("sound");
    assert_eq!(config.mqtt.listen, many);
    let listen = |text| environment(&[("mqtt.listen", text)]);
    let config = build(None, listen("127.0.0.1:1, [::1]:2, unix:/run/a.sock"), &[]).expect("sound");
    assert_eq!(config.mqtt.listen, many);
    let config = build(Some(&file), listen("127.0.0.1:1"), &[]).expect("sound");
    assert_eq!(config.mqtt.listen, many[..1]);
    let config = build(None, listen(""), &[]).expect("sound");
    assert_eq!(config.mqtt.listen, []);
    for wrong in ["127.0.0.1:1,", "localhost", "unix:mqtt.sock"] {
        let error = build(None, listen(wrong), &[]).expect_err(wrong);
        assert!(format!("{error:#}").contains("mqtt.listen"), "{error:#}");
    }
}

#[test]
fn a_wrong_value_is_told_by_its_key() {
    for (key, value) in [
        ("mqtt.workers", "many"),
        ("mqtt.workers", "100000"),
        ("mqtt.sys.interval", "1ms"),
        ("http.trusted_proxies", "0.0.0.0/0"),
        ("grpc.trusted_proxies", "10.0.0.1,proxy"),
        ("mqtt.commit_interval", "2s"),
        ("storage.url", "mysql://db/rollcall"),
        ("storage.max_connections", "1"),
        ("storage.connect_timeout", "1ms"),
        ("storage.statement_timeout", "1h"),
        ("users.password_rule", "("),
        ("users.access_token_duration", "0s"),
        ("users.refresh_token_duration", "367d"),
        ("users.reset_token_duration", "2d"),
        ("users.reset_endpoint", "x"),
        ("mail.from", "nobody"),
        ("mail.port", "0"),
        ("mail.timeout", "0s"),
        ("mail.give_up_after", "8d"),
        ("users.max_guesses", "0"),
        ("users.max_guesses_in_all", "0"),
        ("users.hashers", "0"),
        ("users.max_hashing", "0"),
        ("users.timeout", "0s"),
        ("things.timeout", "0s"),
        ("users.reset_hosts", "https://a.example,b.example"),
        ("users.reset_hosts", "https://a.example/login"),
        ("users.authority", "users:7000"),
        ("things.authority", "redis://things:7000"),
        ("things.url", "http://things/api"),
        ("grpc.tls.client_ca", "ca.pem"),
        ("http.tls.client_crl", "crl"),
        ("grpc.client.server_name", "no name"),
        ("events.exclude", "*.VIEW"),
        ("access.ttl", "0s"),
        ("grpc.timeout", "0s"),
        ("redis.batch", "0"),
        ("redis.retry_min", "0s"),
        ("redis.retry_max", "1ms"),
        ("redis.connect_timeout", "0s"),
        ("redis.response_timeout", "0s"),
        ("redis.max_stream_age", "1ms"),
        ("bootstrap.group", ""),
        ("bootstrap.failed_fetch_window", "0s"),
        ("lease.ttl", "100ms"),
        ("lease.ttl", "2h"),
    ] {
        let message = refusal(&[(key, value)]);
        assert!(message.contains(key), "{key}={value}: {message}");
    }
}

#[test]
fn an_unknown_key_and_one_that_is_missing_are_named() {
    for (key, value, told) in [
        ("mqtt.workerz", "5", "workerz"),
        ("mqttt.workers", "5", "mqttt"),
        ("mqtt.connect_timeout", "5 parsecs", "connect_timeout"),
        ("grpc.listen", "localhost:7000", "127.0.0.1:7000"),
        ("http.listen", "9005", "127.0.0.1:7000"),
        ("grpc.tls.certificate", "a.pem", "grpc.tls.key"),
        ("grpc.tls.key", "a.key", "grpc.tls.certificate"),
        ("http.tls.certificate", "a.pem", "http.tls.key"),
        ("grpc.client.certificate", "a", "grpc.client.key"),
        ("grpc.client.key", "a", "grpc.client.certificate"),
        ("events.exclude", "*.view,things", "\"things\""),
    ] {
        let message = refusal(&[(key, value)]);
        assert!(message.contains(told), "{key}={value}: {message}");
    }
}

#[test]
fn what_is_none_of_the_words_is_told_which_there_are() {
    for (key, words) in [
        ("log.format", "`text` or `json`"),
        ("mqtt.access", "`things` or `open`"),
        ("mqtt.durability", "`disk`, `process`, `memory`"),
        ("mqtt.tls.min_version", "`1.2` or `1.3`"),
        (
            "mqtt.tls.client_certificate",
            "`none`, `optional`, `required`",
        ),
        (
            "mqtt.tls.certificate_login",
            "`with_key` or `instead_of_key`",
        ),
        ("mqtt.limits.rate_action", "`delay` or `disconnect`"),
        ("mqtt.listeners.tls.transport", "`tcp`, `tls`, `ws`, `wss`"),
        ("mqtt.listeners.tls.access", "`things` or `open`"),
        ("mqtt.listeners.tls.tls.min_version", "`1.2` or `1.3`"),
        ("users.registration", "`open` or `admin`"),
        ("mail.encryption", "`starttls`, `tls`, `none`"),
        ("things.show_keys", "`always` or `once`"),
        ("journal.durability", "`disk` or `process`"),
        ("journal.when_full", "`refuse` or `drop_oldest`"),
    ] {
        let message = refusal(&[(key, "other")]);
        assert!(message.contains(words), "{key}: {message}");
        assert!(message.contains(key), "{key}: {message}");
    }
}

#[test]
fn a_password_is_written_or_in_a_file() {
    for key in ["admin.password", "mail.password"] {
        let file = format!("{key}_file");
        let message = refusal(&[(key, "a password"), (&file, "a file")]);
        assert!(message.contains(key), "{message}");
    }
    let message = refusal(&[
        ("mail.host", "mail.example"),
        ("mail.user", "postman"),
        ("mail.encryption", "none"),
    ]);
    assert!(message.contains("mail.encryption"), "{message}");
}

#[test]
fn every_default_has_its_reason() {
    let mut explained = false;
    for line in DEFAULTS.lines() {
        match line.trim() {
            "" => explained = false,
            comment if comment.starts_with('#') => explained = true,
            section if section.starts_with('[') => explained = true,
            key => assert!(explained, "no comment above {key}"),
        }
    }
}
