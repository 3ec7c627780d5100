//! Webhooks: how a message is signed, and when it is sent again.

use coinslot::testing::rules::hire::webhook::{signature, Outcome, Webhook};

/// Made with the package `standardwebhooks`.
#[test]
fn a_message_is_signed_as_standard_webhooks_has_it() {
    let signed =
        signature(b"0123456789abcdef0123456789abcdef", "msg_1", 1_700_000_000, r#"{"event":"task_completed"}"#);
    assert_eq!(signed.unwrap(), SIGNED);
}

const SIGNED: &str = "v1,OJfynYvYDq9+1lwcgbXMmqrZdmfAybC5vXk9qXKbM9Q=";

const HOUR: u64 = 3_600_000;

#[test]
fn a_message_is_sent_again_for_hours_and_then_given_up() {
    let mut webhook = Webhook::new("run_1", "task_failed", 1_000);
    assert_eq!(webhook.due, Some(1_000));
    let mut now = 1_000;
    let mut waits = vec![];
    while let Some(due) = webhook.due {
        waits.push(due - now);
        now = due;
        webhook.record_attempt(Outcome::Status(500), now);
    }
    assert_eq!(webhook.attempts as usize, waits.len());
    assert_eq!(webhook.attempts, 10);
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "each wait is as long as the one before: {waits:?}");
    let all: u64 = waits.iter().sum();
    assert!((8 * HOUR..20 * HOUR).contains(&all), "within the day for which a task is kept: {all}");
    let described = webhook.describe("https://example.com/hook");
    assert_eq!(described["state"], "dead");
    assert_eq!(described["last"], "HTTP 500");
    assert_eq!(described["next_attempt_at"], serde_json::Value::Null);
}

#[test]
fn only_an_answer_of_2xx_or_410_ends_the_attempts() {
    let after = |outcome| {
        let mut webhook = Webhook::new("run_1", "task_completed", 0);
        webhook.record_attempt(outcome, 5);
        let described = webhook.describe("u");
        (described["state"].as_str().unwrap().to_owned(), webhook.due.is_some())
    };
    for status in [200, 201, 202, 204, 299] {
        assert_eq!(after(Outcome::Status(status)), ("delivered".to_owned(), false), "{status}");
    }
    // A redirect is not followed, and counts as no delivery.
    for status in [301, 302, 307, 308, 400, 401, 404, 429, 500, 503] {
        assert_eq!(after(Outcome::Status(status)), ("pending".to_owned(), true), "{status}");
    }
    assert_eq!(after(Outcome::Status(410)), ("dead".to_owned(), false));
    assert_eq!(after(Outcome::Refused("no")), ("dead".to_owned(), false));
    assert_eq!(after(Outcome::NoAnswer("no")), ("pending".to_owned(), true));
}

#[test]
fn the_same_end_of_a_run_has_the_same_message_id() {
    let webhook = |run, event| Webhook::new(run, event, 0).id;
    assert_eq!(webhook("run_1", "task_failed"), webhook("run_1", "task_failed"));
    assert_ne!(webhook("run_1", "task_failed"), webhook("run_2", "task_failed"));
    assert_ne!(webhook("run_1", "task_failed"), webhook("run_1", "task_completed"));
}
