//! Who has signed a payment (EIP-712): vectors that viem has signed, and every way to spoil them.

use coinslot::testing::wire::evm::Signed::{ByPayer, Elsewhere, Wrong};
use coinslot::testing::wire::evm::{Address, Authorization, Domain, PayloadError, Signed};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{json, Map, Value};

/// One vector of `golden/eip3009_signed.json`.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    what: String,
    domain: Value,
    payload: Map<String, Value>,
    /// The same signature with the other `s`: a key's too, by mathematics alone.
    high_s: String,
}

impl Vector {
    fn domain(&self) -> Domain {
        let text = |name: &str| self.domain[name].as_str().unwrap().to_owned();
        Domain {
            name: text("name"),
            version: text("version"),
            chain_id: self.domain["chainId"].as_u64().unwrap(),
            contract: Address::parse(&text("verifyingContract")).unwrap(),
        }
    }

    fn signature(&self) -> Vec<u8> {
        hex::decode(&self.payload["signature"].as_str().unwrap()[2..]).unwrap()
    }

    fn field(&self, name: &str) -> String {
        self.payload["authorization"][name].as_str().unwrap().to_owned()
    }

    /// What is found with this member of the authorization.
    fn with(&self, name: &str, value: Value) -> Signed {
        let mut payload = self.payload.clone();
        payload["authorization"][name] = value;
        signed(&payload, &self.domain())
    }

    /// What is found with this signature.
    fn signed_by(&self, signature: &[u8]) -> Signed {
        let mut payload = self.payload.clone();
        payload["signature"] = json!(hex(signature));
        signed(&payload, &self.domain())
    }
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../golden/eip3009_signed.json")).unwrap()
}

fn signed(payload: &Map<String, Value>, domain: &Domain) -> Signed {
    Authorization::read(payload).unwrap().signed(domain)
}

fn hex(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// `0x` and hex with one bit flipped.
fn flipped(text: &str, bit: usize) -> String {
    let mut bytes = hex::decode(&text[2..]).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    hex(&bytes)
}

#[test]
fn what_viem_has_signed_is_by_the_payer() {
    for vector in vectors() {
        assert_eq!(signed(&vector.payload, &vector.domain()), ByPayer, "{}", vector.what);
    }
    assert_eq!(vectors().len(), 5);
    let parities: Vec<u8> = vectors().iter().map(|v| v.signature()[64]).collect();
    assert!(parities.contains(&27) && parities.contains(&28), "both kinds of keys' signatures are tried");
}

#[test]
fn v_may_be_written_as_a_parity_and_as_nothing_else() {
    for vector in vectors() {
        let mut signature = vector.signature();
        let right = signature[64] - 27;
        for v in 0..=u8::MAX {
            signature[64] = v;
            let expected = if v == right || v == right + 27 { ByPayer } else { Wrong };
            assert_eq!(vector.signed_by(&signature), expected, "{}: {v}", vector.what);
        }
    }
}

/// Tokens refuse it: a facilitator would submit a transaction that fails.
#[test]
fn a_signature_with_a_high_s_is_wrong() {
    for vector in vectors() {
        let high = hex::decode(&vector.high_s[2..]).unwrap();
        assert_eq!(high[..32], vector.signature()[..32]);
        assert_eq!(vector.signed_by(&high), Wrong, "{}", vector.what);
    }
}

#[test]
fn a_signature_of_another_length_is_not_a_keys_and_is_left_to_the_facilitator() {
    for vector in vectors() {
        let signature = vector.signature();
        for length in [1, 32, 63, 64] {
            assert_eq!(vector.signed_by(&signature[..length]), Elsewhere, "{length}");
        }
        for more in [1, 31, 4096] {
            let long = [&signature[..], &vec![0; more]].concat();
            assert_eq!(vector.signed_by(&long), Elsewhere, "{more} more");
        }
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_the_signature_makes_it_wrong() {
    for vector in vectors() {
        let signature = hex(&vector.signature());
        for byte in 0..65 {
            let spoilt = hex::decode(&flipped(&signature, 8 * byte + byte % 8)[2..]).unwrap();
            assert_eq!(vector.signed_by(&spoilt), Wrong, "{}: byte {byte}", vector.what);
        }
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_what_was_signed_makes_it_wrong() {
    for vector in vectors() {
        for (name, bytes) in [("from", 20), ("to", 20), ("nonce", 32)] {
            for byte in 0..bytes {
                let value = json!(flipped(&vector.field(name), 8 * byte + byte % 8));
                assert_eq!(vector.with(name, value), Wrong, "{}: {name}, byte {byte}", vector.what);
            }
        }
        for name in ["value", "validAfter", "validBefore"] {
            assert_eq!(vector.with(name, json!("2")), Wrong, "{}: {name}", vector.what);
            let number = vector.field(name);
            for at in 0..number.len() {
                let digit = if &number[at..=at] == "0" { "1" } else { "0" };
                let mut payload = vector.payload.clone();
                payload["authorization"][name] = json!(format!("{}{digit}{}", &number[..at], &number[at + 1..]));
                // Some are too large for any word, or no amounts.
                let found = Authorization::read(&payload).map(|read| read.signed(&vector.domain()));
                assert!(matches!(found, Ok(Wrong) | Err(_)), "{}: {name}, digit {at}", vector.what);
            }
        }
    }
}

#[test]
fn a_signature_for_another_token_means_nothing_here() {
    for vector in vectors() {
        let right = vector.domain();
        let name = |text: &str| Domain { name: text.to_owned(), ..right.clone() };
        let version = |text: &str| Domain { version: text.to_owned(), ..right.clone() };
        for other in [
            name("USD coin"),
            name(""),
            name(if right.name == "USDC" { "USD Coin" } else { "USDC" }),
            version("1"),
            version(""),
            Domain { chain_id: right.chain_id + 1, ..right.clone() },
            Domain { chain_id: 0, ..right.clone() },
            Domain { contract: Address::from([7; 20]), ..right.clone() },
            Domain { name: right.version.clone(), version: right.name.clone(), ..right.clone() },
        ] {
            assert_eq!(signed(&vector.payload, &other), Wrong, "{}: {other:?}", vector.what);
        }
    }
}

/// One signature is for one network: Base's is not good on Base Sepolia.
#[test]
fn no_vector_passes_in_the_domain_of_another() {
    for (n, vector) in vectors().iter().enumerate() {
        for (m, other) in vectors().iter().enumerate() {
            let expected = vector.domain() == other.domain();
            assert_eq!(signed(&vector.payload, &other.domain()) == ByPayer, expected, "{n} in {m}'s domain");
        }
    }
}

/// Some v1 clients write times as numbers. The message that they sign is the same.
#[test]
fn times_written_as_numbers_hash_as_they_were_signed() {
    let mut as_numbers = 0;
    for vector in vectors() {
        let mut payload = vector.payload.clone();
        for name in ["validAfter", "validBefore"] {
            if let Ok(number) = vector.field(name).parse::<u64>() {
                payload["authorization"][name] = json!(number);
                as_numbers += 1;
            }
        }
        assert_eq!(signed(&payload, &vector.domain()), ByPayer, "{}", vector.what);
        assert_eq!(Authorization::read(&payload), Authorization::read(&vector.payload));
    }
    assert_eq!(as_numbers, 8, "all but those beyond any clock");
}

#[test]
fn a_payment_without_end_is_hashed_as_it_was_written_and_not_as_it_is_read() {
    let vector = vectors().into_iter().find(|v| v.what == "without end").unwrap();
    let read = Authorization::read(&vector.payload).unwrap();
    assert_eq!((read.valid_before, read.signed(&vector.domain())), (u64::MAX, ByPayer));
    assert_eq!(vector.with("validBefore", json!(u64::MAX.to_string())), Wrong);
    let one_less = "115792089237316195423570985008687907853269984665640564039457584007913129639934";
    assert_eq!(vector.with("validBefore", json!(one_less)), Wrong);
}

#[test]
fn a_time_that_no_word_holds_is_malformed() {
    let two_to_the_256 = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
    for time in [two_to_the_256, &"9".repeat(78), &"1".repeat(79), &"0".repeat(79), "12a", "0x10", " 1", "１"] {
        let mut payload = vectors()[0].payload.clone();
        payload["authorization"]["validBefore"] = json!(time);
        assert_eq!(Authorization::read(&payload), Err(PayloadError("validBefore")), "{time}");
    }
}

/// Letters' case says nothing: the bytes are signed, not their spelling.
#[test]
fn another_spelling_of_the_same_bytes_is_by_the_payer_too() {
    for vector in vectors() {
        for name in ["from", "to", "nonce"] {
            let text = vector.field(name);
            assert_eq!(vector.with(name, json!(text.to_ascii_lowercase())), ByPayer);
            assert_eq!(vector.with(name, json!(format!("0x{}", text[2..].to_ascii_uppercase()))), ByPayer);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// No signature of a key's form passes but the payer's own, and none makes the check panic.
    #[test]
    fn nobody_guesses_a_signature(bytes in prop::collection::vec(any::<u8>(), 64), v in prop::sample::select(vec![0u8, 1, 27, 28])) {
        let vector = &vectors()[0];
        prop_assert_eq!(vector.signed_by(&[&bytes[..], &[v]].concat()), Wrong);
    }

    /// Edges of the curve's order among them.
    #[test]
    fn degenerate_halves_are_wrong(r in 0usize..4, s in 0usize..4, v in 27u8..=28) {
        let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        let halves = ["00".repeat(32), format!("{}01", "00".repeat(31)), order.to_owned(), "ff".repeat(32)];
        let signature = hex::decode(format!("{}{}{v:02x}", halves[r], halves[s])).unwrap();
        prop_assert_eq!(vectors()[0].signed_by(&signature), Wrong);
    }
}
