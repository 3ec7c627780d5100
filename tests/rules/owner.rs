//! Owners' tokens: what is read, whose claims hold, and which key may check which token.

use coinslot::testing::rules::config::Issuer;
use coinslot::testing::rules::owner::{candidates, claims_hold, issuer, may_be_signed_by_new_key, takes_secret};
use coinslot::testing::wire::base64::encode_url;
use coinslot::testing::wire::jwt::{parse, Algorithm, Claims, Jwk, JwkSet, Token, MAX_TOKEN};
use serde_json::{json, Value};

const NOW: f64 = 1_800_000_000.0;

/// RFC 7515, A.1: the JWS of RFC 7519, 3.1.
const RFC: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

fn claims() -> Value {
    json!({"iss": "https://id.example", "sub": "alice", "aud": "coinslot", "exp": NOW + 60.0})
}

fn compact(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| encode_url(value.to_string().as_bytes());
    format!("{}.{}.{}", part(header), part(claims), encode_url(b"signature"))
}

fn token(header: Value) -> Token {
    parse(&compact(&header, &claims())).unwrap()
}

fn trusted() -> Issuer {
    Issuer {
        issuer: "https://id.example".to_owned(),
        audience: "coinslot".to_owned(),
        secret: Some("JWT_SECRET".to_owned()),
        jwks: None,
        jwks_url: None,
    }
}

/// Whether the claims hold with the member `name` replaced, or taken away where it is null.
fn holds(name: &str, value: Value) -> bool {
    let mut changed = claims();
    match value {
        Value::Null => drop(changed.as_object_mut().unwrap().remove(name)),
        value => changed[name] = value,
    }
    let claims: Option<Claims> = serde_json::from_value(changed).ok();
    claims.is_some_and(|claims| claims_hold(&claims, &trusted(), NOW))
}

#[test]
fn a_compact_token_is_taken_apart() {
    let text = compact(&json!({"alg": "ES256", "kid": "k1", "typ": "JWT"}), &claims());
    let token = parse(&text).unwrap();
    assert_eq!((token.algorithm, token.key_id.as_deref()), (Algorithm::ES256, Some("k1")));
    assert_eq!((&*token.claims.iss, &*token.claims.sub), ("https://id.example", "alice"));
    assert_eq!(token.signature, b"signature");
    assert_eq!(token.signed, text.rsplit_once('.').unwrap().0.as_bytes());
}

/// RFC 7519, 3.1: a well-formed token, but it speaks of nobody and to nobody.
#[test]
fn the_rfcs_example_has_no_subject_and_no_audience_and_is_not_taken() {
    assert!(parse(RFC).is_none());
}

/// RFC 8725, 3.1 and 3.2
#[test]
fn an_unsigned_token_or_one_of_another_algorithm_is_not_read() {
    for algorithm in ["none", "None", "NONE", "nOnE", "", "hs256", "HS384", "HS512", "RS512", "PS256", "ES384", "EdDSA"]
    {
        assert!(parse(&compact(&json!({"alg": algorithm}), &claims())).is_none(), "{algorithm}");
    }
    for header in [json!({}), json!({"alg": null}), json!({"alg": ["HS256"]}), json!({"typ": "JWT"}), json!("HS256")] {
        assert!(parse(&compact(&header, &claims())).is_none(), "{header}");
    }
    for (name, algorithm) in [("HS256", Algorithm::HS256), ("ES256", Algorithm::ES256), ("RS256", Algorithm::RS256)] {
        assert_eq!(token(json!({"alg": name})).algorithm, algorithm);
    }
}

/// RFC 7515, 4.1.11: an extension that must be understood, and is not.
#[test]
fn a_token_with_critical_extensions_is_not_read() {
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!("x")] {
        assert!(parse(&compact(&json!({"alg": "HS256", "crit": crit, "b64": false}), &claims())).is_none(), "{crit}");
    }
}

#[test]
fn a_token_that_is_not_three_parts_of_base64url_is_not_read() {
    let good = compact(&json!({"alg": "HS256"}), &claims());
    assert!(parse(&good).is_some());
    let unsigned = good.rsplit_once('.').unwrap().0;
    for text in [
        "",
        ".",
        "..",
        "a.b.c",
        unsigned,
        &format!("{good}.x"),
        &format!("x.{good}"),
        &format!(" {good}"),
        &format!("{good}="),
        &good.replace('.', ""),
    ] {
        assert!(parse(text).is_none(), "{text}");
    }
    let text = format!("{}.{}.", encode_url(br#"{"alg":"HS256"}"#), encode_url(b"{}"));
    assert!(parse(&text).is_none(), "claims are required");
    let twice =
        format!("{}.{}.", encode_url(br#"{"alg":"HS256","alg":"none"}"#), encode_url(claims().to_string().as_bytes()));
    assert!(parse(&twice).is_none(), "one header, one algorithm");
}

#[test]
fn a_token_beyond_the_limit_is_not_read() {
    let of = |padding: usize| compact(&json!({"alg": "HS256", "x": "x".repeat(padding)}), &claims());
    assert!(parse(&of(5000)).is_some());
    let long = of(MAX_TOKEN);
    assert!(long.len() > MAX_TOKEN && parse(&long).is_none());
}

#[test]
fn good_claims_hold() {
    assert!(holds("sub", json!("alice")));
}

/// RFC 7519, 4.1.4 and 4.1.5, with half a minute for clocks that differ.
#[test]
fn times_hold_within_the_leeway_and_not_beyond() {
    assert!(holds("exp", json!(NOW + 1.0)));
    assert!(holds("exp", json!(NOW - 29.0)));
    assert!(holds("exp", json!(NOW - 29.5)), "a NumericDate may have a fraction");
    assert!(!holds("exp", json!(NOW - 30.0)));
    assert!(!holds("exp", json!(0)));
    assert!(!holds("exp", json!(null)), "a token without an end is not taken");
    assert!(!holds("exp", json!("never")));
    assert!(holds("nbf", json!(NOW)));
    assert!(holds("nbf", json!(NOW + 30.0)));
    assert!(!holds("nbf", json!(NOW + 31.0)));
    assert!(!holds("nbf", json!("now")));
}

/// RFC 7519, 4.1.3: one name or several.
#[test]
fn the_audience_must_be_ours_alone_or_among_others() {
    assert!(holds("aud", json!(["coinslot"])));
    assert!(holds("aud", json!(["other", "coinslot"])));
    for audience in [
        json!("other"),
        json!(""),
        json!([]),
        json!(["other"]),
        json!("coinslot2"),
        json!("Coinslot"),
        json!("coinslot other"),
        json!(null),
        json!(7),
    ] {
        assert!(!holds("aud", audience.clone()), "{audience}");
    }
}

#[test]
fn the_issuer_must_be_ours_and_the_subject_somebody() {
    for issuer in [json!("https://id.example/"), json!("https://other.example"), json!(""), json!(null)] {
        assert!(!holds("iss", issuer.clone()), "{issuer}");
    }
    for subject in [json!(""), json!(null), json!(7)] {
        assert!(!holds("sub", subject.clone()), "{subject}");
    }
}

#[test]
fn a_token_goes_to_the_issuer_it_names_and_to_no_other() {
    let other = Issuer { issuer: "https://other.example".to_owned(), ..trusted() };
    let token = token(json!({"alg": "HS256"}));
    let both = [other.clone(), trusted()];
    assert_eq!(issuer(&token, &both), Some(&both[1]));
    assert_eq!(issuer(&token, &[other]), None);
    assert_eq!(issuer(&token, &[]), None);
}

fn key(json: Value) -> Jwk {
    serde_json::from_value(json).unwrap()
}

fn set() -> JwkSet {
    let keys = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "e1", "x": "x", "y": "y"},
        {"kty": "EC", "crv": "P-256", "kid": "e2", "use": "sig", "alg": "ES256", "x": "x", "y": "y"},
        {"kty": "RSA", "kid": "r1", "n": "n", "e": "AQAB"},
        {"kty": "RSA", "kid": "e1", "n": "n", "e": "AQAB"},
        {"kty": "oct", "kid": "e1", "k": "c2VjcmV0"},
        {"kty": "EC", "crv": "P-384", "kid": "e1", "x": "x", "y": "y"},
        {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"},
    ]});
    serde_json::from_value(keys).unwrap()
}

/// The places in [`set`] of the keys that may check a token with this header.
fn places(header: Value) -> Vec<usize> {
    let (token, set) = (token(header), set());
    let found: Vec<(Jwk, Algorithm)> =
        candidates(&token, &set).map(|(key, algorithm)| (key.clone(), algorithm)).collect();
    assert!(found.iter().all(|(_, algorithm)| *algorithm == token.algorithm));
    found.iter().map(|(key, _)| set.keys.iter().position(|k| k == key).unwrap()).collect()
}

/// RFC 7517, 4.5: `kid`.
#[test]
fn a_key_is_chosen_by_its_name_and_its_kind() {
    assert_eq!(places(json!({"alg": "ES256", "kid": "e1"})), [0]);
    assert_eq!(places(json!({"alg": "ES256", "kid": "e2"})), [1]);
    assert_eq!(places(json!({"alg": "RS256", "kid": "e1"})), [3]);
    assert_eq!(places(json!({"alg": "ES256", "kid": "r1"})), [0; 0]);
    assert_eq!(places(json!({"alg": "ES256", "kid": "unknown"})), [0; 0]);
    assert_eq!(places(json!({"alg": "ES256", "kid": ""})), [0; 0]);
}

#[test]
fn a_token_that_names_no_key_may_be_checked_by_any_of_its_kind() {
    assert_eq!(places(json!({"alg": "ES256"})), [0, 1, 6]);
    assert_eq!(places(json!({"alg": "RS256"})), [2, 3]);
}

/// RFC 8725, 2.1: an HS256 token "signed" with the public key, and a public-key token for a secret.
#[test]
fn a_public_key_never_serves_as_a_secret_nor_a_secret_as_a_public_key() {
    for kid in ["e1", "e2", "r1"] {
        assert_eq!(places(json!({"alg": "HS256", "kid": kid})), [0; 0], "{kid}");
    }
    assert_eq!(places(json!({"alg": "HS256"})), [0; 0]);
    assert!(takes_secret(&token(json!({"alg": "HS256"}))));
    assert!(!takes_secret(&token(json!({"alg": "RS256"}))));
    assert!(!takes_secret(&token(json!({"alg": "ES256"}))));
}

/// RFC 7517, 4.1, 4.2 and 4.4: what the key says of itself.
#[test]
fn a_key_checks_the_one_algorithm_of_its_kind_and_only_where_it_is_for_signatures() {
    for (jwk, algorithm) in [
        (json!({"kty": "EC", "crv": "P-256"}), Some(Algorithm::ES256)),
        (json!({"kty": "RSA"}), Some(Algorithm::RS256)),
        (json!({"kty": "RSA", "alg": "RS256", "use": "sig"}), Some(Algorithm::RS256)),
        (json!({"kty": "RSA", "alg": "PS256"}), None),
        (json!({"kty": "RSA", "alg": "ES256"}), None),
        (json!({"kty": "RSA", "use": "enc"}), None),
        (json!({"kty": "EC"}), None),
        (json!({"kty": "EC", "crv": "P-521"}), None),
        (json!({"kty": "EC", "crv": "P-256", "alg": "HS256"}), None),
        (json!({"kty": "oct", "alg": "HS256"}), None),
        (json!({"kty": "OKP", "crv": "Ed25519"}), None),
    ] {
        assert_eq!(key(jwk.clone()).algorithm(), algorithm, "{jwk}");
    }
}

/// What WebCrypto needs stays as it came.
#[test]
fn a_key_set_comes_back_as_it_was_read() {
    let json = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "e2", "use": "sig", "alg": "ES256", "x": "x", "y": "y", "x5t": "t"}]});
    let set: JwkSet = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&set).unwrap(), json);
}

#[test]
fn a_key_that_cannot_be_read_hides_no_other_key_of_a_published_set() {
    let good = json!({"kty": "RSA", "kid": "r1", "n": "n", "e": "AQAB"});
    let odd =
        [json!(null), json!("key"), json!({"kid": "no type"}), json!({"kty": 7}), json!({"kty": "RSA", "kid": 1})];
    let keys: Vec<Value> = odd.iter().cloned().chain([good.clone()]).collect();
    let set = JwkSet::read(&json!({"keys": keys, "more": true}).to_string()).unwrap();
    assert_eq!(serde_json::to_value(&set.keys).unwrap(), json!([good]));
    assert_eq!(JwkSet::read(r#"{"keys":[]}"#).unwrap().keys.len(), 0);
    for none in ["", "null", "{}", r#"{"keys":{}}"#, "<html>"] {
        assert!(JwkSet::read(none).is_none(), "{none}");
    }
}

#[test]
fn only_a_token_whose_key_may_be_new_is_a_reason_to_fetch_the_keys_again() {
    let set = JwkSet::read(r#"{"keys":[{"kty":"RSA","kid":"r1"},{"kty":"EC","crv":"P-256"}]}"#).unwrap();
    let may = |header: Value| may_be_signed_by_new_key(&token(header), &set);
    assert!(!may(json!({"alg": "RS256", "kid": "r1"})), "its key is there, so its signature is wrong");
    assert!(may(json!({"alg": "RS256", "kid": "r2"})));
    assert!(may(json!({"alg": "ES256"})), "it names no key");
    assert!(!may(json!({"alg": "HS256", "kid": "r2"})), "no published key checks it");
}
