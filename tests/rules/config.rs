//! The operator's document: validated whole, laid over what is there, refused by name.

use coinslot::testing::rules::config::{Config, ConfigError, Document, Limits, Network};
use coinslot::testing::wire::evm::{Address, Domain};
use serde_json::{json, Value};

fn lay(document: Value) -> Result<Config, ConfigError> {
    Config::built_in().with_document(Config::read_document(&document.to_string())?)
}

/// The message of a value that is refused.
fn refused(document: &Value) -> String {
    match lay(document.clone()) {
        Err(ConfigError::Value(message)) => message,
        other => panic!("{document} gave {other:?}"),
    }
}

fn network() -> Value {
    json!({
        "id": "eip155:8453", "v1": "base", "asset": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "decimals": 6,
        "eip712": {"name": "USD Coin", "version": "2"},
    })
}

fn issuer() -> Value {
    json!({"issuer": "https://id.example", "audience": "coinslot", "secret": "JWT_SECRET"})
}

/// `section` with the member at `path` replaced (or added).
fn with(mut section: Value, path: &str, value: Value) -> Value {
    let (at, name) = path.rsplit_once('/').unwrap();
    section.pointer_mut(at).unwrap()[name] = value;
    section
}

#[test]
fn what_is_built_in_is_valid_and_believes_nobody() {
    let config = lay(json!({})).unwrap();
    assert_eq!(config, Config::built_in());
    assert!(config.jwt.issuers.is_empty() && !config.paused);
    assert_eq!(config.networks.iter().map(|n| n.id.as_str()).collect::<Vec<_>>(), ["eip155:8453", "eip155:84532"]);
}

#[test]
fn a_whole_document_takes_the_place_of_everything() {
    let config = lay(json!({
        "revision": "r7", "paused": true, "facilitators": [{"url": "http://localhost:4021"}], "networks": [network()],
        "models": [{"id": "m", "maxOutput": 10, "retiredOn": "2027-01-01"}],
        "limits": {"bodyBytes": 10, "paidAttempts": 1}, "anthropic": {"baseUrl": "http://localhost:9", "version": "2026-10-21"},
        "jwt": {"issuers": [issuer()]}, "requirePaymentIdentifier": true, "refundPolicy": "All of it, at once.",
    }))
    .unwrap();
    assert_eq!(
        (config.require_payment_identifier, config.refund_policy.as_deref()),
        (true, Some("All of it, at once."))
    );
    assert_eq!((&*config.revision, config.paused), ("r7", true));
    assert_eq!(config.facilitators[0].url, "http://localhost:4021");
    assert_eq!((config.networks.len(), config.models.len()), (1, 1));
    assert_eq!((config.limits.body_bytes, config.limits.paid_attempts), (10, 1));
    assert_eq!(config.anthropic.version, "2026-10-21");
    assert_eq!(config.jwt.issuers[0].secret.as_deref(), Some("JWT_SECRET"));
}

#[test]
fn a_section_left_out_stays_as_it_was() {
    let base = lay(json!({"requirePaymentIdentifier": true, "refundPolicy": "none", "revision": "r1", "facilitators": [{"url": "https://f.example"}], "models": [{"id": "m", "maxOutput": 1}]})).unwrap();
    let document = Config::read_document(r#"{"paused":true}"#).unwrap();
    let config = base.clone().with_document(document).unwrap();
    assert_eq!(config, Config { paused: true, ..base });
}

#[test]
fn within_limits_what_is_left_out_is_the_default() {
    let config = lay(json!({"limits": {"valueChars": 5}})).unwrap();
    assert_eq!(config.limits, Limits { value_chars: 5, ..Limits::default() });
    assert_eq!(lay(json!({"anthropic": {"baseUrl": "https://a.example"}})).unwrap().anthropic.version, "2023-06-01");
}

/// What a stranger with one wallet costs the creator at the most, and an owner the operator.
#[test]
fn a_wallet_has_eight_unpaid_runs_at_once_and_twenty_in_a_day_and_an_owner_two_hundred_tests() {
    let Limits { unpaid_per_wallet, unpaid_per_wallet_day, owner_tests_per_day, .. } = Config::built_in().limits;
    assert_eq!((unpaid_per_wallet, unpaid_per_wallet_day, owner_tests_per_day), (8, 20, 200));
    let of_document = json!({"unpaidPerWallet": 1, "unpaidPerWalletDay": 2, "ownerTestsPerDay": 3});
    let expected =
        Limits { unpaid_per_wallet: 1, unpaid_per_wallet_day: 2, owner_tests_per_day: 3, ..Limits::default() };
    assert_eq!(lay(json!({"limits": of_document})).unwrap().limits, expected);
}

/// The window that a payment needs still, where answers usually take so many milliseconds.
#[test]
fn a_document_needs_a_window_as_long_as_its_answers_usually_take_and_three_quarters_of_the_terms_at_most() {
    let limits =
        Limits { claude_begin_seconds: 30, settle_margin_seconds: 6, max_timeout_seconds: 300, ..Limits::default() };
    assert_eq!(limits.window_needed(), 36);
    for (usual, window) in [
        (None, 36),
        (Some(0), 36),
        (Some(30_000), 36),
        (Some(30_001), 37),
        (Some(60_000), 66),
        (Some(219_000), 225),
        (Some(219_001), 225),
        (Some(u64::MAX), 225),
    ] {
        assert_eq!(limits.window_needed_for(usual), window, "{usual:?}");
    }
    let short = Limits { max_timeout_seconds: 40, ..limits };
    assert_eq!(short.window_needed_for(Some(60_000)), 36, "a payment by our own terms is good");
}

/// The money back, the node to ask, and what callers must send: nothing of it unless the operator says so.
#[test]
fn what_the_operator_must_ask_for_is_off() {
    let config = lay(json!({"facilitators": [{"url": "https://f.example"}], "networks": [network()]})).unwrap();
    assert_eq!((config.facilitators[0].claims_secret.as_deref(), config.networks[0].rpc_url.as_deref()), (None, None));
    assert_eq!((config.require_payment_identifier, config.refund_policy), (false, None));
    let config = lay(json!({
        "facilitators": [{"url": "https://f.example", "claimsSecret": "CLAIMS_KEY"}],
        "networks": [with(network(), "/rpcUrl", json!("http://localhost:8545"))],
        "limits": {"startAttempts": 1, "outstandingPerPayer": 0},
    }))
    .unwrap();
    assert_eq!(config.facilitators[0].claims_secret.as_deref(), Some("CLAIMS_KEY"));
    assert_eq!(config.networks[0].rpc_url.as_deref(), Some("http://localhost:8545"));
    assert_eq!((config.limits.start_attempts, config.limits.outstanding_per_payer), (1, 0));
}

#[test]
fn a_networks_domain_is_its_tokens() {
    let domains: Vec<Domain> = Config::built_in().networks.iter().map(Network::domain).collect();
    let usdc = |name: &str, chain_id, contract: &str| Domain {
        name: name.to_owned(),
        version: "2".to_owned(),
        chain_id,
        contract: Address::parse(contract).unwrap(),
    };
    assert_eq!(
        domains,
        [
            usdc("USD Coin", 8453, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"),
            usdc("USDC", 84532, "0x036CbD53842c5426634e7929541eC2318f3dCF7e"),
        ]
    );
    let largest = lay(json!({"networks": [with(network(), "/id", json!(format!("eip155:{}", u64::MAX)))]})).unwrap();
    assert_eq!(largest.networks[0].domain().chain_id, u64::MAX);
}

#[test]
fn an_unknown_field_anywhere_is_refused_by_name() {
    for document in [
        json!({"colour": 1}),
        json!({"max_timeout": 1}),
        json!({"facilitators": [{"url": "https://f.example", "colour": 1}]}),
        json!({"networks": [with(network(), "/colour", json!(1))]}),
        json!({"networks": [with(network(), "/eip712/colour", json!(1))]}),
        json!({"models": [{"id": "m", "maxOutput": 1, "colour": 1}]}),
        json!({"limits": {"colour": 1}}),
        json!({"anthropic": {"baseUrl": "https://a.example", "colour": 1}}),
        json!({"jwt": {"issuers": [], "colour": 1}}),
        json!({"jwt": {"issuers": [with(issuer(), "/colour", json!(1))]}}),
    ] {
        let Err(ConfigError::Form(message)) = lay(document.clone()) else { panic!("{document}") };
        assert!(message.contains("colour") || message.contains("max_timeout"), "{message}");
    }
}

#[test]
fn what_is_not_of_the_form_is_refused() {
    for text in [
        "",
        "{",
        "[]",
        "null",
        r#"{"paused":"yes"}"#,
        r#"{"networks":{}}"#,
        r#"{"limits":{"bodyBytes":-1}}"#,
        r#"{"limits":{"paidAttempts":256}}"#,
        r#"{"limits":{"startAttempts":256}}"#,
        r#"{"limits":{"outstandingPerPayer":-1}}"#,
        r#"{"limits":{"unpaidExecutionsPerPayer":20}}"#,
        r#"{"limits":{"inVainPerPayer":20}}"#,
        r#"{"limits":{"unpaidPerWallet":-1}}"#,
        r#"{"limits":{"unpaidPerWalletDay":4294967296}}"#,
        r#"{"requirePaymentIdentifier":"yes"}"#,
        r#"{"refundPolicy":{}}"#,
    ] {
        assert!(matches!(Config::read_document(text), Err(ConfigError::Form(_))), "{text}");
    }
    for missing in ["id", "v1", "asset", "decimals", "eip712"] {
        let mut network = network();
        network.as_object_mut().unwrap().remove(missing);
        let Err(ConfigError::Form(message)) = lay(json!({"networks": [network]})) else { panic!("{missing}") };
        assert!(message.contains(missing), "{message}");
    }
    let bad_asset = with(network(), "/asset", json!("0x123"));
    assert!(matches!(lay(json!({"networks": [bad_asset]})), Err(ConfigError::Form(_))));
}

#[test]
fn every_bad_value_is_refused_by_name() {
    let net = |path: &str, value: Value| json!({"networks": [with(network(), path, value)]});
    let limit = |name: &str, value: u64| json!({"limits": {name: value}});
    let jwt = |path: &str, value: Value| json!({"jwt": {"issuers": [with(issuer(), path, value)]}});
    let twice = |section: Value| json!([section, section]);
    let model = json!({"id": "m", "maxOutput": 1});
    for (document, named) in [
        (json!({"facilitators": []}), "facilitators: none"),
        (json!({"facilitators": [{"url": "ftp://f.example"}]}), "facilitators: a url"),
        (json!({"facilitators": [{"url": "https://"}]}), "facilitators: a url"),
        (json!({"facilitators": [{"url": "f.example"}]}), "facilitators: a url"),
        (json!({"facilitators": [{"url": "https://f.example?key=1"}]}), "facilitators: a url"),
        (json!({"facilitators": [{"url": "https://f.example/a b"}]}), "facilitators: a url"),
        (json!({"networks": []}), "networks: none"),
        (net("/id", json!("solana:5eykt4")), "networks: an id"),
        (net("/id", json!("8453")), "networks: an id"),
        (net("/id", json!("eip155:")), "networks: an id"),
        (net("/id", json!("eip155:0x2105")), "networks: an id"),
        (net("/id", json!("eip155:+8453")), "networks: an id"),
        (net("/id", json!("eip155:18446744073709551616")), "networks: an id"),
        (net("/rpcUrl", json!("mainnet.base.org")), "networks: an rpcUrl"),
        (net("/rpcUrl", json!("")), "networks: an rpcUrl"),
        (net("/v1", json!("")), "networks: v1"),
        (net("/decimals", json!(10)), "networks: decimals"),
        (net("/eip712/name", json!("")), "networks: eip712.name"),
        (net("/eip712/version", json!("")), "networks: eip712.version"),
        (json!({"networks": [network(), with(network(), "/v1", json!("other"))]}), "networks: an id stands twice"),
        (
            json!({"networks": [network(), with(network(), "/id", json!("eip155:1"))]}),
            "networks: a v1 name stands twice",
        ),
        (json!({"models": []}), "models: none"),
        (json!({"models": twice(model.clone())}), "models: an id stands twice"),
        (json!({"models": [with(model.clone(), "/maxOutput", json!(0))]}), "models: maxOutput"),
        (json!({"models": [with(model.clone(), "/retiredOn", json!("2026-13-01"))]}), "models: retiredOn"),
        (json!({"models": [with(model.clone(), "/retiredOn", json!("2026-1-1"))]}), "models: retiredOn"),
        (json!({"models": [with(model.clone(), "/retiredOn", json!("2026-01-32"))]}), "models: retiredOn"),
        (json!({"models": [with(model.clone(), "/retiredOn", json!("2026-01-01T00:00"))]}), "models: retiredOn"),
        (json!({"models": [with(model, "/retiredOn", json!("soon"))]}), "models: retiredOn"),
        (limit("maxTimeoutSeconds", 0), "limits: seconds"),
        (limit("maxTimeoutSeconds", 3601), "limits: seconds"),
        (limit("verifySeconds", 0), "limits: seconds"),
        (limit("settleSeconds", 0), "limits: seconds"),
        (limit("claudeBeginSeconds", 0), "limits: seconds"),
        (limit("claudeIdleSeconds", 0), "limits: seconds"),
        (limit("claudeTotalSeconds", 0), "limits: seconds"),
        (limit("settleMarginSeconds", 270), "limits: maxTimeoutSeconds must exceed"),
        (limit("bodyBytes", 0), "limits: bodyBytes"),
        (limit("bodyBytes", (16 << 20) + 1), "limits: bodyBytes"),
        (limit("unpaidPerWallet", 0), "limits: unpaidPerWallet is 0"),
        (limit("unpaidPerWalletDay", 0), "limits: unpaidPerWalletDay"),
        (limit("startAttempts", 0), "limits: startAttempts"),
        (limit("paidAttempts", 0), "limits: paidAttempts"),
        (limit("cacheSeconds", 61), "limits: cacheSeconds"),
        (json!({"anthropic": {"baseUrl": "api.anthropic.com"}}), "anthropic: baseUrl"),
        (jwt("/issuer", json!("")), "jwt: issuer or audience"),
        (jwt("/audience", json!("")), "jwt: issuer or audience"),
        (jwt("/secret", json!(null)), "jwt: an issuer has exactly one"),
        (jwt("/jwks", json!({"keys": []})), "jwt: an issuer has exactly one"),
        (jwt("/jwksUrl", json!("https://id.example/jwks")), "jwt: an issuer has exactly one"),
        (json!({"jwt": {"issuers": [{"issuer": "i", "audience": "a", "jwksUrl": "id.example/jwks"}]}}), "jwt: jwksUrl"),
        (json!({"jwt": {"issuers": twice(issuer())}}), "jwt: an issuer stands twice"),
    ] {
        let message = refused(&document);
        assert!(message.starts_with(named), "{document}: {message}");
    }
}

#[test]
fn values_at_their_bounds_are_taken() {
    for document in [
        json!({"networks": [with(network(), "/decimals", json!(9))]}),
        json!({"networks": [with(network(), "/decimals", json!(0))]}),
        json!({"limits": {"maxTimeoutSeconds": 3600, "claudeBeginSeconds": 1, "settleMarginSeconds": 3598}}),
        json!({"limits": {"bodyBytes": 16 << 20, "paidAttempts": 255}}),
        json!({"limits": {"bodyBytes": 1, "verifySeconds": 1, "cacheSeconds": 0}}),
        json!({"limits": {"cacheSeconds": 60}}),
        json!({"limits": {"unpaidPerWallet": 1, "unpaidPerWalletDay": 1, "ownerTestsPerDay": 0}}),
        json!({"limits": {"unpaidPerWallet": 9, "unpaidPerWalletDay": 5}}),
        json!({"limits": {"unpaidPerWallet": u32::MAX, "unpaidPerWalletDay": u32::MAX}}),
        json!({"models": [{"id": "m", "maxOutput": 1, "retiredOn": "2028-12-31"}]}),
        json!({"jwt": {"issuers": [{"issuer": "i", "audience": "a", "jwksUrl": "https://id.example/jwks"}]}}),
        json!({"jwt": {"issuers": [{"issuer": "i", "audience": "a", "jwks": {"keys": []}}]}}),
    ] {
        assert!(lay(document.clone()).is_ok(), "{document}");
    }
}

/// One bad line changes nothing: there is no configuration with half of a document in it.
#[test]
fn a_document_with_one_bad_value_changes_nothing() {
    refused(
        &json!({"paused": true, "revision": "r2", "models": [{"id": "m", "maxOutput": 1}], "limits": {"bodyBytes": 0}}),
    );
}

/// The whole is validated: a base that the document does not mend is refused too.
#[test]
fn a_document_is_judged_together_with_what_it_is_laid_over() {
    let base = Config { facilitators: vec![], ..Config::built_in() };
    let paused = || Config::read_document(r#"{"paused":true}"#).unwrap();
    assert_eq!(base.clone().with_document(paused()), Err(ConfigError::Value("facilitators: none".to_owned())));
    let mended = Config::read_document(r#"{"facilitators":[{"url":"https://f.example"}]}"#).unwrap();
    assert!(base.with_document(mended).is_ok());
}

#[test]
fn a_model_is_sold_until_the_day_before_it_retires() {
    let config = lay(
        json!({"models": [{"id": "old", "maxOutput": 1, "retiredOn": "2026-06-15"}, {"id": "new", "maxOutput": 2}]}),
    )
    .unwrap();
    let sold = |id: &str, today: &str| config.model(id, today).is_some();
    assert!(sold("old", "2026-06-14") && sold("old", "2025-12-31"));
    assert!(!sold("old", "2026-06-15") && !sold("old", "2026-06-16") && !sold("old", "2027-01-01"));
    assert!(sold("new", "2099-01-01"));
    assert!(!sold("unheard-of", "2026-01-01") && !sold("", "2026-01-01") && !sold("NEW", "2026-01-01"));
    assert_eq!(config.model("new", "2026-01-01").unwrap().max_output, 2);
}

#[test]
fn a_document_without_a_revision_is_named_by_its_digest() {
    let laid = |text: &str| Config::built_in().with_text(text, "0123456789abcdef").map(|config| config.revision);
    assert_eq!(laid("{}"), Ok("0123456789ab".to_owned()));
    assert_eq!(laid(r#"{"revision":"r7"}"#), Ok("r7".to_owned()));
    assert!(matches!(laid("{"), Err(ConfigError::Form(_))));
    assert!(matches!(laid(r#"{"models":[]}"#), Err(ConfigError::Value(_))));
}

#[test]
fn under_an_invalid_document_nothing_is_sold() {
    let closed = Config::built_in().closed();
    assert_eq!((closed.paused, &*closed.revision), (true, "invalid"));
    assert_eq!(Config { paused: false, revision: "built-in".to_owned(), ..closed }, Config::built_in());
}

/// What a deployment with these vars and secrets sells.
fn of_vars(vars: &[(&str, &str)], secrets: &[&str]) -> Result<Config, ConfigError> {
    let var = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let document = Document::from_vars(var, |name| secrets.contains(&name))?;
    Config::built_in().with_document(document)
}

#[test]
fn without_vars_the_built_in_config_applies() {
    let built_in = Config { revision: "vars".to_owned(), ..Config::built_in() };
    assert_eq!(of_vars(&[], &[]), Ok(built_in.clone()));
    assert_eq!(of_vars(&[("FACILITATOR_URL", ""), ("NETWORKS", ""), ("PAUSED", "")], &[]), Ok(built_in.clone()));
    let secrets = ["CLAIMS_API_KEY", "JWT_SECRET"];
    assert_eq!(of_vars(&[], &secrets), Ok(built_in), "a secret alone changes nothing");
}

#[test]
fn vars_say_what_a_document_says() {
    let networks = json!([network()]).to_string();
    let vars = [
        ("ANTHROPIC_BASE_URL", "http://localhost:9"),
        ("NETWORKS", networks.as_str()),
        ("MODELS", r#"[{"id":"m","maxOutput":10}]"#),
        ("LIMITS", r#"{"bodyBytes":10}"#),
        ("HIRE", r#"{"allowLoopback":true}"#),
        ("PAUSED", "true"),
        ("REFUND_POLICY", "All of it."),
    ];
    let document = json!({
        "revision": "vars", "anthropic": {"baseUrl": "http://localhost:9"}, "networks": [network()],
        "models": [{"id": "m", "maxOutput": 10}], "limits": {"bodyBytes": 10}, "hire": {"allowLoopback": true},
        "paused": true, "refundPolicy": "All of it.",
    });
    assert_eq!(of_vars(&vars, &[]), lay(document));
    let version = of_vars(&[("ANTHROPIC_BASE_URL", "http://a"), ("ANTHROPIC_VERSION", "2026-10-21")], &[]).unwrap();
    assert_eq!(version.anthropic.version, "2026-10-21");
    for text in ["false", "TRUE", "1"] {
        assert!(!of_vars(&[("PAUSED", text)], &[]).unwrap().paused, "{text}");
    }
}

#[test]
fn a_var_that_is_not_of_its_form_is_named() {
    for name in ["NETWORKS", "MODELS", "LIMITS", "HIRE", "JWT_JWKS"] {
        for text in ["{", "7", r#"{"bodyByte":1}"#] {
            let error = of_vars(&[(name, text)], &[]).unwrap_err();
            assert!(
                matches!(&error, ConfigError::Form(message) if message.starts_with(&format!("{name}: "))),
                "{error}"
            );
        }
    }
    assert!(matches!(of_vars(&[("FACILITATOR_URL", "ftp://a")], &[]), Err(ConfigError::Value(_))));
}

#[test]
fn of_several_facilitators_only_the_first_has_the_key_for_claims() {
    let listed = |secrets: &[&str]| -> Vec<(String, Option<String>)> {
        let config = of_vars(&[("FACILITATOR_URL", "https://a, https://b")], secrets).unwrap();
        config.facilitators.into_iter().map(|f| (f.url, f.claims_secret)).collect()
    };
    assert_eq!(listed(&[]), [("https://a".to_owned(), None), ("https://b".to_owned(), None)]);
    let key = Some("CLAIMS_API_KEY".to_owned());
    assert_eq!(listed(&["CLAIMS_API_KEY"]), [("https://a".to_owned(), key), ("https://b".to_owned(), None)]);
}

#[test]
fn the_issuer_of_the_vars_has_public_keys_or_else_the_shared_secret() {
    let issuers = |vars: &[(&str, &str)], secrets: &[&str]| -> Vec<[bool; 3]> {
        let vars = [&[("JWT_ISSUER", "https://id")], vars].concat();
        let issuers = of_vars(&vars, secrets).unwrap().jwt.issuers;
        issuers.iter().map(|i| [i.secret.is_some(), i.jwks.is_some(), i.jwks_url.is_some()]).collect()
    };
    let (jwks, url) = (("JWT_JWKS", r#"{"keys":[]}"#), ("JWT_JWKS_URL", "https://id/j"));
    assert_eq!(issuers(&[], &[]), [] as [[bool; 3]; 0], "an issuer without keys is none");
    assert_eq!(issuers(&[], &["JWT_SECRET"]), [[true, false, false]]);
    assert_eq!(issuers(&[url], &["JWT_SECRET"]), [[false, false, true]]);
    assert_eq!(issuers(&[jwks, url], &["JWT_SECRET"]), [[false, true, false]]);
    assert!(of_vars(&[jwks], &[]).unwrap().jwt.issuers.is_empty(), "keys without an issuer");
    let of = |vars: &[(&str, &str)]| of_vars(vars, &["JWT_SECRET"]).unwrap().jwt.issuers.remove(0);
    let issuer = of(&[("JWT_ISSUER", "https://id")]);
    assert_eq!(
        (&*issuer.issuer, &*issuer.audience, issuer.secret.as_deref()),
        ("https://id", "coinslot", Some("JWT_SECRET"))
    );
    assert_eq!(of(&[("JWT_ISSUER", "https://id"), ("JWT_AUDIENCE", "us")]).audience, "us");
}
