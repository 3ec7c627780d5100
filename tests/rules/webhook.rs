//! Where a webhook may go, how it is signed, and when it is tried again.

use coinslot::testing::rules::hire::webhook::{check, signature, Outcome, Target, Webhook};

fn may(url: &str, development: bool) -> Result<(), &'static str> {
    let (scheme, rest) = url.split_once("//").unwrap();
    let (credentials, host) = rest.rsplit_once('@').map_or((false, rest), |(_, host)| (true, host));
    check(Target { scheme, host, has_credentials: credentials }, development)
}

#[test]
fn the_public_internet_is_allowed_over_https() {
    for host in [
        "example.com",
        "hooks.example.co.uk",
        "example.com.",
        "xn--bcher-kva.example",
        "1.1.1.1",
        "172.15.0.1",
        "172.32.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "169.253.0.1",
        "192.167.0.1",
        "198.17.0.1",
        "[2606:4700:4700::1111]",
        "[2a00:1450:4001::200e]",
        "[::ffff:8.8.8.8]",
        "[64:ff9b::808:808]",
        "[2002:808:808::1]",
    ] {
        assert_eq!(may(&format!("https://{host}"), false), Ok(()), "{host}");
        assert!(may(&format!("http://{host}"), false).is_err(), "http {host}");
        assert!(may(&format!("http://{host}"), true).is_err(), "in development http is for this machine alone: {host}");
        assert!(may(&format!("https://user@{host}"), false).is_err(), "credentials {host}");
    }
    for scheme in ["ftp:", "file:", "ws:", "data:", "javascript:"] {
        assert!(check(Target { scheme, host: "example.com", has_credentials: false }, false).is_err(), "{scheme}");
    }
}

#[test]
fn what_is_ones_own_is_refused() {
    for host in [
        "localhost",
        "localhost.",
        "a.localhost",
        "printer",
        "router.local",
        "metadata.google.internal",
        "db.corp",
        "nas.home",
        "pi.lan",
        "1.0.0.10.in-addr.arpa",
        "x.onion",
        "",
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.127.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[fc00::1]",
        "[fd12:3456::1]",
        "[ff02::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::a00:1]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2002:a9fe:a9fe::1]",
        "[2001:db8::1]",
        "[2001::1]",
        "[2001:10::1]",
        "[3fff::1]",
        "[4000::1]",
    ] {
        assert!(may(&format!("https://{host}"), false).is_err(), "{host}");
    }
}

#[test]
fn development_reaches_this_machine_and_no_other() {
    for host in ["localhost", "127.0.0.1", "127.0.0.2", "[::1]"] {
        assert_eq!(may(&format!("http://{host}"), true), Ok(()), "{host}");
        assert_eq!(may(&format!("https://{host}"), true), Ok(()), "{host}");
        assert!(may(&format!("http://{host}"), false).is_err(), "{host}");
    }
    for host in ["10.0.0.1", "169.254.169.254", "router.local", "[fe80::1]", "a.localhost"] {
        assert!(may(&format!("http://{host}"), true).is_err(), "{host}");
        assert!(may(&format!("https://{host}"), true).is_err(), "{host}");
    }
}

/// Made with the package `standardwebhooks`.
#[test]
fn a_message_is_signed_as_standard_webhooks_has_it() {
    let told = signature(b"0123456789abcdef0123456789abcdef", "msg_1", 1_700_000_000, r#"{"event":"task_completed"}"#);
    assert_eq!(told.unwrap(), SIGNED);
}

const SIGNED: &str = "v1,OJfynYvYDq9+1lwcgbXMmqrZdmfAybC5vXk9qXKbM9Q=";

const HOUR: u64 = 3_600_000;

#[test]
fn a_message_is_tried_again_for_hours_and_then_given_up() {
    let mut webhook = Webhook::new("run_1", "task_failed", 1_000);
    assert_eq!(webhook.due, Some(1_000));
    let mut now = 1_000;
    let mut waits = vec![];
    while let Some(due) = webhook.due {
        waits.push(due - now);
        now = due;
        webhook.tried(Outcome::Status(500), now);
    }
    assert_eq!(webhook.attempts as usize, waits.len());
    assert_eq!(webhook.attempts, 10);
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "each wait is as long as the one before: {waits:?}");
    let all: u64 = waits.iter().sum();
    assert!((8 * HOUR..20 * HOUR).contains(&all), "within the day that a task is kept: {all}");
    let told = webhook.describe("https://example.com/hook");
    assert_eq!(told["state"], "dead");
    assert_eq!(told["last"], "HTTP 500");
    assert_eq!(told["next_attempt_at"], serde_json::Value::Null);
}

#[test]
fn what_an_answer_means() {
    let after = |outcome| {
        let mut webhook = Webhook::new("run_1", "task_completed", 0);
        webhook.tried(outcome, 5);
        let told = webhook.describe("u");
        (told["state"].as_str().unwrap().to_owned(), webhook.due.is_some())
    };
    for status in [200, 201, 202, 204, 299] {
        assert_eq!(after(Outcome::Status(status)), ("delivered".to_owned(), false), "{status}");
    }
    // A redirect is not followed, and not taken for an answer.
    for status in [301, 302, 307, 308, 400, 401, 404, 429, 500, 503] {
        assert_eq!(after(Outcome::Status(status)), ("pending".to_owned(), true), "{status}");
    }
    assert_eq!(after(Outcome::Status(410)), ("dead".to_owned(), false));
    assert_eq!(after(Outcome::Refused("no")), ("dead".to_owned(), false));
    assert_eq!(after(Outcome::NoAnswer("no")), ("pending".to_owned(), true));
}

#[test]
fn the_same_end_has_the_same_id() {
    let webhook = |run, event| Webhook::new(run, event, 0).id;
    assert_eq!(webhook("run_1", "task_failed"), webhook("run_1", "task_failed"));
    assert_ne!(webhook("run_1", "task_failed"), webhook("run_2", "task_failed"));
    assert_ne!(webhook("run_1", "task_failed"), webhook("run_1", "task_completed"));
}
