//! Manifests: of one creator and of all, valid by HIRE's schema, with what a seeker needs to hire.

use super::{capability, haiku, stranger, worker};
use coinslot::testing::json_schema::Schema;
use coinslot::testing::rules::hire::capability::{agent_id, full_name_readings, Capability};
use coinslot::testing::rules::hire::manifest::{manifest, Cursor, ManifestScope, Page};
use coinslot::testing::rules::hire::output::OutputType;
use coinslot::testing::wire::evm::Address;
use serde_json::{json, Value};
use std::collections::BTreeSet;

const SCHEMA: &str = include_str!("../../hire/agent-manifest.schema.json");
const ORIGIN: &str = "https://coinslot.example";
const LATENCY: u64 = 300_000;

fn assert_valid(manifest: &Value) {
    let schema = Schema::read(&serde_json::from_str(SCHEMA).unwrap()).expect("our validator reads HIRE's schema");
    assert_eq!(schema.check(manifest), Ok(()), "{manifest}");
}

/// A valid manifest, or none.
fn make(scope: ManifestScope<'_>, capabilities: &[Capability], platform_wallet: Option<Address>) -> Option<Value> {
    let page = Page { capabilities, shared_names: &shared_names(capabilities), is_whole: true, next: None };
    let manifest = manifest(scope, page, platform_wallet, ORIGIN, 6, LATENCY);
    manifest.iter().for_each(assert_valid);
    manifest
}

/// As the database finds them.
fn shared_names(capabilities: &[Capability]) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    capabilities.iter().map(Capability::full_name).filter(|name| !seen.insert(name.clone())).collect()
}

fn of_all(capabilities: &[Capability]) -> Value {
    make(ManifestScope::AllCreators, capabilities, None).unwrap()
}

fn of_ada(capabilities: &[Capability]) -> Value {
    make(ManifestScope::Creator { display_name: "Ada Lovelace" }, capabilities, None).unwrap()
}

fn names(manifest: &Value) -> Vec<&str> {
    let capabilities = manifest["capabilities"].as_array().unwrap();
    capabilities.iter().map(|capability| capability["name"].as_str().unwrap()).collect()
}

fn priced(handle: &str, slug: &str, price: &str) -> Capability {
    let mut capability = capability(handle, slug);
    capability.template.price = price.parse().unwrap();
    capability
}

/// Ada's with one wallet, Grace's with another.
fn two_creators() -> Vec<Capability> {
    let mut grace = capability("grace", "explain");
    grace.agent.wallet = stranger().address();
    vec![priced("ada", "commit-message", "0.02"), haiku(), grace]
}

#[test]
fn a_creators_manifest_says_what_a_seeker_needs() {
    let manifest = of_ada(&[haiku()]);
    let wallet = worker().address().to_string();
    assert_eq!(
        manifest,
        json!({
            "version": "1.0",
            "agent": {
                "id": haiku().agent.id,
                "publisher": "@ada",
                "name": "Ada Lovelace",
                "description": "Prompt templates of Ada Lovelace, run by Claude and paid per task.",
                "owner": {"wallet": wallet},
            },
            "capabilities": [{
                "name": "haiku",
                "description": "One haiku about anything.",
                "input_schema": haiku().input_schema(),
                "pricing": {"type": "per-task", "amount": "0.01", "currency": "USDC"},
                "sla": {"max_latency_ms": LATENCY},
                "agent_id": haiku().agent.id,
                "wallet": wallet,
                "resource": "https://coinslot.example/@ada/haiku",
                "output_type": "any",
            }],
            "endpoint": {"url": ORIGIN, "protocol": "HIRE/1.0", "auth": "x402"},
            "metadata": {
                "created_at": "2023-11-14T22:13:20Z",
                "updated_at": "2023-11-14T22:13:21Z",
                "tags": ["prompt", "claude", "x402"],
            },
        })
    );
}

#[test]
fn the_manifest_of_all_has_full_names_and_each_agents_own_wallet() {
    let manifest = of_all(&two_creators());
    assert_eq!(manifest["agent"]["id"], "agent_coinslot");
    assert_eq!(names(&manifest), ["ada-commit-message", "ada-haiku", "grace-explain"]);
    let (ada, grace) = (worker().address().to_string(), stranger().address().to_string());
    let expected = [("creator_ada", &ada), ("creator_ada", &ada), ("creator_grace", &grace)];
    for (capability, (creator_id, wallet)) in manifest["capabilities"].as_array().unwrap().iter().zip(expected) {
        assert_eq!((&capability["agent_id"], &capability["wallet"]), (&json!(agent_id(creator_id)), &json!(wallet)));
    }
}

#[test]
fn the_manifest_of_all_names_no_wallet_that_is_not_that_of_all() {
    let owner = |capabilities: &[Capability], platform: Option<Address>| {
        make(ManifestScope::AllCreators, capabilities, platform).unwrap()["agent"]["owner"]["wallet"].clone()
    };
    assert_eq!(owner(&two_creators(), None), "");
    assert_eq!(owner(&[haiku()], None), worker().address().to_string());
    let platform = Some(super::seeker().address());
    for capabilities in [two_creators(), vec![haiku()]] {
        assert_eq!(owner(&capabilities, platform), super::seeker().address().to_string());
    }
    // The platform's wallet is not given out as a creator's.
    let scope = ManifestScope::Creator { display_name: "Ada" };
    assert_eq!(make(scope, &[haiku()], platform).unwrap()["agent"]["owner"]["wallet"], worker().address().to_string());
}

#[test]
fn what_nobody_could_pay_is_not_offered() {
    for price in ["0", "0.000", "0.0000001"] {
        let capabilities = [priced("ada", "commit-message", "0.02"), priced("ada", "haiku", price)];
        assert_eq!(names(&of_ada(&capabilities)), ["commit-message"], "{price}");
        assert_eq!(names(&of_all(&capabilities)), ["ada-commit-message"], "{price}");
    }
    assert_eq!(of_ada(&[priced("ada", "haiku", "12.345678")])["capabilities"][0]["pricing"]["amount"], "12.345678");
}

#[test]
fn without_a_capability_to_offer_there_is_no_manifest() {
    for scope in [ManifestScope::AllCreators, ManifestScope::Creator { display_name: "Ada" }] {
        assert_eq!(make(scope, &[], None), None);
        assert_eq!(make(scope, &[priced("ada", "haiku", "0")], None), None);
    }
    assert_eq!(make(ManifestScope::AllCreators, &[capability("2fast", "haiku")], None), None);
}

#[test]
fn a_full_name_that_two_capabilities_share_is_offered_by_their_own_agents_only() {
    let capabilities = [capability("ada", "x-haiku"), capability("ada-x", "haiku"), haiku()];
    assert_eq!(names(&of_all(&capabilities)), ["ada-haiku"]);
    assert_eq!(names(&of_ada(&capabilities[..1])), ["x-haiku"]);
    assert_eq!(names(&of_ada(&capabilities[1..2])), ["haiku"]);
}

#[test]
fn whatever_a_creator_is_called_both_manifests_are_valid() {
    let long = "é".repeat(600);
    for (handle, name, publisher, is_named_among_all) in [
        ("2fast", "Too Fast", "@2fast", false),
        ("Linus_T", "Linus", "@linus-t", false),
        ("---", "Nobody", "@creator", false),
        ("éva", long.as_str(), "@va", false),
        ("mute", "", "@mute", true),
    ] {
        let own = make(ManifestScope::Creator { display_name: name }, &[capability(handle, "task")], None).unwrap();
        assert_eq!(own["agent"]["publisher"], publisher);
        assert_eq!(names(&own), ["task"], "{handle}");
        let all = of_all(&[haiku(), capability(handle, "task")]);
        assert!(names(&all).contains(&"ada-haiku"), "{handle}");
        assert_eq!(names(&all).len() == 2, is_named_among_all, "{handle}");
    }
}

#[test]
fn a_template_without_a_description_is_described_by_its_name() {
    let mut plain = haiku();
    plain.template.description = String::new();
    assert_eq!(of_ada(&[plain])["capabilities"][0]["description"], "haiku by ada");
}

#[test]
fn what_a_capability_promises_is_in_its_entry() {
    let schema = json!({"type": "object", "required": ["lines"], "properties": {"lines": {"type": "array"}}});
    let promising = Capability {
        output: Some(OutputType::Json),
        output_schema: Some(schema.clone()),
        max_latency_ms: Some(30_000),
        ..haiku()
    };
    let promising = [promising];
    for manifest in [of_ada(&promising), of_all(&promising)] {
        let entry = &manifest["capabilities"][0];
        assert_eq!(entry["output_schema"], schema);
        assert_eq!((&entry["sla"]["max_latency_ms"], &entry["output_type"]), (&json!(30_000), &json!("json")));
    }
    assert!(of_ada(&[haiku()])["capabilities"][0].get("output_schema").is_none());
}

#[test]
fn the_metadata_spans_all_capabilities() {
    let (mut first, mut second) = (haiku(), capability("ada", "sonnet"));
    (first.created_at, first.updated_at) = (100, 300);
    (second.created_at, second.updated_at) = (50, 200);
    let metadata = &of_ada(&[first, second])["metadata"];
    assert_eq!(metadata["created_at"], "1970-01-01T00:00:50Z");
    assert_eq!(metadata["updated_at"], "1970-01-01T00:05:00Z");
}

#[test]
fn the_prompt_is_in_no_manifest() {
    let text = of_ada(&[haiku()]).to_string() + &of_all(&two_creators()).to_string();
    assert!(!text.contains(haiku().template.prompt.reveal()));
}

#[test]
fn a_page_says_where_the_next_one_is_and_gives_no_wallet_for_all_that_it_cannot_know() {
    let none = BTreeSet::new();
    let capabilities = [haiku()];
    let page = Page { capabilities: &capabilities, shared_names: &none, is_whole: false, next: Some("https://x/next") };
    let all = manifest(ManifestScope::AllCreators, page, None, ORIGIN, 6, LATENCY).unwrap();
    assert_valid(&all);
    assert_eq!((&all["next"], &all["agent"]["owner"]["wallet"]), (&json!("https://x/next"), &json!("")));
    let of_ada = manifest(ManifestScope::Creator { display_name: "Ada" }, page, None, ORIGIN, 6, LATENCY).unwrap();
    assert_eq!(of_ada["agent"]["owner"]["wallet"], worker().address().to_string(), "a creator has one agent");
    assert!(self::of_ada(&capabilities).get("next").is_none());
}

#[test]
fn a_name_that_a_capability_of_another_page_has_too_is_not_offered_for_all() {
    let capabilities = [haiku(), capability("ada", "x-haiku")];
    let shared = BTreeSet::from(["ada-x-haiku".to_owned()]);
    let page = Page { capabilities: &capabilities, shared_names: &shared, is_whole: true, next: None };
    let of = |scope| manifest(scope, page, None, ORIGIN, 6, LATENCY).unwrap();
    assert_eq!(names(&of(ManifestScope::AllCreators)), ["ada-haiku"]);
    assert_eq!(names(&of(ManifestScope::Creator { display_name: "Ada" })), ["haiku", "x-haiku"]);
}

#[test]
fn a_cursor_is_read_as_it_was_written_and_nothing_else_is_one() {
    for (handle, slug) in [("ada", "haiku"), ("\u{e9}va", "x-y"), ("", "")] {
        let cursor = Cursor { handle: handle.to_owned(), slug: slug.to_owned() };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
    }
    for other in ["", "!", "YWRh", "_w"] {
        assert_eq!(Cursor::decode(other), None, "{other}");
    }
}

#[test]
fn a_full_name_is_that_of_each_place_where_it_can_be_cut() {
    let readings = |name: &'static str| full_name_readings(name).collect::<Vec<_>>();
    assert_eq!(readings("a-b-c"), [("a", "b-c"), ("a-b", "c")]);
    assert_eq!(readings("ada-haiku"), [("ada", "haiku")]);
    assert_eq!(readings("a--b"), [("a", "-b"), ("a-", "b")]);
    for none in ["", "a", "-", "-a", "a-"] {
        assert!(readings(none).is_empty(), "{none}");
    }
}

/// Each reading is as long as the name, so a long name of dashes would fill the memory.
#[test]
fn a_name_that_no_manifest_can_have_has_no_readings() {
    let count = |name: &str| full_name_readings(name).count();
    assert_eq!(count(&format!("a{}", "-".repeat(30_000))), 0);
    assert_eq!(count(&format!("a{}b", "-x".repeat(33))), 0);
    assert_eq!(count(&format!("a{}b", "-x".repeat(32))), 32);
    assert_eq!(count(&format!("{}-{}", "a".repeat(64), "b".repeat(64))), 1);
    assert_eq!(count(&format!("{}-{}", "a".repeat(64), "b".repeat(65))), 0);
    for name in ["Ada-haiku", "1-a", "ada-ha iku", "ada-\u{e9}", "ada-haiku\u{0}"] {
        assert_eq!(count(name), 0, "{name}");
    }
}
