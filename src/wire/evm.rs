//! The payload of the scheme `exact` on EVM networks: an EIP-3009 `TransferWithAuthorization` that the payer signs
//! (x402 `scheme_exact_evm`, phase 2). Permit2 payloads are not read, because we never offer Permit2.

use crate::wire::amount::Amount;
use k256::ecdsa::{Signature, VerifyingKey};
use k256::elliptic_curve::ops::{Invert, LinearCombination, Reduce};
use k256::elliptic_curve::point::DecompressPoint;
use k256::elliptic_curve::PrimeField;
use k256::{AffinePoint, ProjectivePoint, Scalar, U256};
use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};
use sha3::{Digest, Keccak256};
use std::fmt;

/// A 20-byte address. It is read in any case, and written with its checksum (EIP-55), as wallets show it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; 20]);

impl Address {
    /// Reads `0x` and 40 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        fixed(text).map(Address)
    }

    /// The address as a word of the EVM's ABI, padded on the left.
    fn word(&self) -> Word {
        let mut word = [0; 32];
        word.iter_mut().skip(12).zip(self.0).for_each(|(to, from)| *to = from);
        word
    }

    /// The address as a word in hex, as topics and call data contain it.
    pub fn to_topic(self) -> String {
        format!("0x{}", hex::encode(self.word()))
    }
}

impl From<[u8; 20]> for Address {
    fn from(bytes: [u8; 20]) -> Self {
        Address(bytes)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // EIP-55: a letter is upper-case where the hash of the lower-case text has a nibble from 8 on.
        let lower = hex::encode(self.0);
        let hash = Keccak256::digest(&lower);
        let nibbles = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        f.write_str("0x")?;
        for (digit, nibble) in lower.chars().zip(nibbles) {
            let digit = if nibble >= 8 { digit.to_ascii_uppercase() } else { digit };
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Address {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not an EVM address")
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::try_from(String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// Reads `0x` and exactly `N` bytes in hex.
fn fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text.strip_prefix("0x")?, &mut bytes).ok()?;
    Some(bytes)
}

/// Whether a text has the form of a transaction's hash: `0x` and 64 hex digits.
pub fn is_hash(text: &str) -> bool {
    fixed::<32>(text).is_some()
}

/// The hash function of the EVM.
pub fn keccak(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

/// A 256-bit word of the EVM, big-endian.
type Word = [u8; 32];

/// A decimal number as a word. `None`: it is no number, or too large.
fn word(digits: &str) -> Option<Word> {
    if digits.is_empty() || digits.len() > 78 {
        return None;
    }
    let mut word = [0; 32];
    for digit in digits.bytes() {
        let mut carry = u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        for byte in word.iter_mut().rev() {
            let sum = u16::from(*byte) * 10 + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        if carry > 0 {
            return None;
        }
    }
    Some(word)
}

/// The EIP-712 domain of a token. A signature for another domain is not valid for this token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// What the token answers to `name()`.
    pub name: String,
    /// What the token answers to `version()`.
    pub version: String,
    /// The number in the network's CAIP-2 id.
    pub chain_id: u64,
    /// The address of the token.
    pub contract: Address,
}

impl Domain {
    fn separator(&self) -> Word {
        let types = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
        hash_struct(
            types,
            &[
                keccak(self.name.as_bytes()),
                keccak(self.version.as_bytes()),
                word(&self.chain_id.to_string()).unwrap_or_default(),
                self.contract.word(),
            ],
        )
    }
}

/// EIP-712's `hashStruct`, for members that are one word each.
fn hash_struct(types: &str, members: &[Word]) -> Word {
    keccak(&[&[keccak(types.as_bytes())], members].concat().concat())
}

/// What a signature shows without a call to the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// It is by the payer's own key.
    ByPayer,
    /// It does not have the form of a key's signature. Whether it is valid for a contract wallet (EIP-1271, EIP-6492)
    /// only the facilitator can check.
    Elsewhere,
    /// It is not by the payer's own key. It may be valid for a contract wallet all the same, if the payer is one: a Safe
    /// with one owner has signatures of this length too.
    Wrong,
}

/// A signed EIP-3009 authorization. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The address of the payer.
    pub from: Address,
    /// The address of the recipient.
    pub to: Address,
    pub value: Amount,
    /// The time after which the payment is valid.
    pub valid_after: u64,
    /// The time before which the payment is valid.
    pub valid_before: u64,
    /// 32 bytes that the token accepts once, in lower-case hex.
    pub nonce: String,
    /// 65 bytes from a key; those of a contract wallet (EIP-1271, EIP-6492) may have any length.
    pub signature: Vec<u8>,
    /// EIP-712's hash of the message, with the times as they are spelled in the payload.
    hash: Word,
}

/// The field of a payload that is missing or malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payment's {0} is missing or malformed")]
pub struct PayloadError(pub &'static str);

/// The longest signature that is read, in bytes. (An EIP-6492 wrapper contains deployment code.)
const MAX_SIGNATURE: usize = 8 * 1024;

impl Authorization {
    /// The members of the message that is signed.
    pub const MEMBERS: [&'static str; 6] = ["from", "to", "value", "validAfter", "validBefore", "nonce"];

    /// Reads a payload of the form `{signature, authorization{from,to,value,validAfter,validBefore,nonce}}`.
    pub fn read(payload: &Map<String, Value>) -> Result<Self, PayloadError> {
        let inner = payload.get("authorization").and_then(Value::as_object);
        let inner = inner.ok_or(PayloadError("authorization"))?;
        // A facilitator might settle by the other transfer method, and then spend another nonce than the one that is
        // read here.
        if payload.contains_key("permit2Authorization") {
            return Err(PayloadError("payload"));
        }
        let text = |name: &'static str| {
            let value = inner.get(name).and_then(Value::as_str);
            value.ok_or(PayloadError(name))
        };
        let address = |name| Address::parse(text(name)?).ok_or(PayloadError(name));
        // Some v1 clients write times as numbers. A time beyond 64 bits is the latest one (2^256 - 1 is common for "no
        // end").
        let seconds = |name: &'static str| {
            let digits = match inner.get(name) {
                Some(Value::Number(n)) => n.as_u64().ok_or(PayloadError(name))?.to_string(),
                _ => text(name)?.to_owned(),
            };
            let word = word(&digits).ok_or(PayloadError(name))?;
            Ok((digits.parse().unwrap_or(u64::MAX), word))
        };
        let signature = payload.get("signature").and_then(Value::as_str);
        let signature = signature
            .and_then(|s| s.strip_prefix("0x"))
            .filter(|s| !s.is_empty() && s.len() <= 2 * MAX_SIGNATURE)
            .and_then(|s| hex::decode(s).ok())
            .ok_or(PayloadError("signature"))?;
        let (from, to) = (address("from")?, address("to")?);
        let value: Amount = text("value")?.parse().map_err(|_| PayloadError("value"))?;
        let (valid_after, after) = seconds("validAfter")?;
        let (valid_before, before) = seconds("validBefore")?;
        let nonce = fixed::<32>(text("nonce")?).ok_or(PayloadError("nonce"))?;
        let value_word = word(&value.to_string()).ok_or(PayloadError("value"))?;
        Ok(Authorization {
            hash: hash_struct(TRANSFER, &[from.word(), to.word(), value_word, after, before, nonce]),
            from,
            to,
            value,
            valid_after,
            valid_before,
            nonce: format!("0x{}", hex::encode(nonce)),
            signature,
        })
    }

    /// The payload of this authorization in the one spelling that every facilitator reads: addresses with their
    /// checksum, numbers as decimal text, bytes in lower-case hex. (Times beyond 64 bits are written as the latest one.)
    pub fn to_payload(&self) -> Value {
        json!({
            "signature": format!("0x{}", hex::encode(&self.signature)),
            "authorization": {
                "from": self.from,
                "to": self.to,
                "value": self.value,
                "validAfter": self.valid_after.to_string(),
                "validBefore": self.valid_before.to_string(),
                "nonce": self.nonce,
            },
        })
    }

    /// Whether the payer's key has signed this for the token of `domain` (EIP-712). A signature with a high `s` is
    /// wrong, because tokens refuse it.
    pub fn signed(&self, domain: &Domain) -> Signed {
        let Ok(bytes) = <[u8; 65]>::try_from(self.signature.as_slice()) else {
            return Signed::Elsewhere;
        };
        let digest = keccak(&[&[0x19, 0x01][..], &domain.separator(), &self.hash].concat());
        match recover(&digest, &bytes) {
            Some(signer) if signer == self.from => Signed::ByPayer,
            _ => Signed::Wrong,
        }
    }
}

const TRANSFER: &str = "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,\
                        uint256 validBefore,bytes32 nonce)";

/// The address whose key has signed `digest`. The signature is `r`, `s`, and `v`, which is 27 or 28, else 0 or 1.
pub(super) fn recover(digest: &Word, signature: &[u8; 65]) -> Option<Address> {
    let (rs, v) = signature.split_at(64);
    let parity = match v {
        [0 | 27] => 0,
        [1 | 28] => 1,
        _ => return None,
    };
    let signature = Signature::from_slice(rs).ok().filter(|s| s.normalize_s().is_none())?;
    address_of(&recover_key(digest, &signature, parity)?)
}

/// The key that has made the signature (SEC 1, 4.1.6), where the y coordinate of the signature's point has this parity.
///
/// `VerifyingKey::recover_from_prehash` does the same, and then verifies the signature with the key that it has found.
/// That takes as long again and cannot fail: the point is the one that `r` is the x coordinate of.
fn recover_key(digest: &Word, signature: &Signature, parity: u8) -> Option<VerifyingKey> {
    let (r, s) = signature.split_scalars();
    let z = <Scalar as Reduce<U256>>::reduce_bytes(&(*digest).into());
    let point = Option::<AffinePoint>::from(AffinePoint::decompress(&r.to_repr(), parity.into()))?;
    let inverse = *r.invert();
    let (of_generator, of_point) = (-(inverse * z), inverse * *s);
    let (generator, point) = (ProjectivePoint::GENERATOR, ProjectivePoint::from(point));
    let key = ProjectivePoint::lincomb(&generator, &of_generator, &point, &of_point);
    VerifyingKey::from_affine(key.to_affine()).ok()
}

/// The address of a public key.
pub(super) fn address_of(key: &VerifyingKey) -> Option<Address> {
    let point = key.to_encoded_point(false);
    let hash = keccak(point.as_bytes().get(1..)?);
    hash.get(12..)?.try_into().ok().map(Address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k256::ecdsa::{RecoveryId, SigningKey};

    /// `recover`, with the library's own recovery of the key.
    fn recover_and_verify(digest: &Word, signature: &[u8; 65]) -> Option<Address> {
        let (rs, v) = signature.split_at(64);
        let id = RecoveryId::from_byte(v[0].checked_sub(27).unwrap_or(v[0])).filter(|id| !id.is_x_reduced())?;
        let signature = Signature::from_slice(rs).ok().filter(|s| s.normalize_s().is_none())?;
        address_of(&VerifyingKey::recover_from_prehash(digest, &signature, id).ok()?)
    }

    #[test]
    fn the_key_of_a_signature_is_the_one_that_the_library_recovers_and_verifies() {
        let word = |what: &str, n: u32| keccak(format!("{what} {n}").as_bytes());
        for n in 0..100 {
            let digest = word("message", n);
            let key = SigningKey::from_slice(&word("key", n)).unwrap();
            let (signature, id) = key.sign_prehash_recoverable(&digest).unwrap();
            let mut bytes = [0; 65];
            bytes[..64].copy_from_slice(&signature.to_bytes());
            bytes[64] = 27 + id.to_byte();
            assert_eq!(recover(&digest, &bytes), address_of(key.verifying_key()));
            assert_eq!(recover(&digest, &bytes), recover_and_verify(&digest, &bytes));
            // Another message, and a signature that nobody has made: half of these have a key all the same.
            assert_eq!(recover(&word("other", n), &bytes), recover_and_verify(&word("other", n), &bytes));
            bytes[..32].copy_from_slice(&word("r", n));
            bytes[32] &= 0x3f; // a low `s`
            assert_eq!(recover(&digest, &bytes), recover_and_verify(&digest, &bytes));
        }
    }

    /// The bounds of `r`, `s` and the digest: zero, one, the order of the curve and its neighbours, and all bits.
    #[test]
    fn a_signature_at_the_bounds_has_the_key_that_the_library_recovers_or_none() {
        let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        let half = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0";
        let neighbours = |text: &str| {
            let last = u8::from_str_radix(&text[62..], 16).unwrap();
            [last - 1, last, last + 1].map(|last| format!("{}{last:02x}", &text[..62]))
        };
        let mut words: Vec<String> = [order, half].into_iter().flat_map(neighbours).collect();
        words.extend([
            "00".repeat(32),
            format!("{}01", "00".repeat(31)),
            format!("{}02", "00".repeat(31)),
            "ff".repeat(32),
        ]);
        let words: Vec<Word> = words.iter().map(|text| hex::decode(text).unwrap().try_into().unwrap()).collect();
        let mut recovered = 0;
        for digest in &words {
            for (r, s) in words.iter().flat_map(|r| words.iter().map(move |s| (r, s))) {
                for v in [0, 1, 27, 28] {
                    let bytes: [u8; 65] = [&r[..], &s[..], &[v]].concat().try_into().unwrap();
                    let key = recover(digest, &bytes);
                    assert_eq!(key, recover_and_verify(digest, &bytes), "{bytes:?}");
                    recovered += usize::from(key.is_some());
                }
            }
        }
        assert!(recovered > 100, "{recovered}");
    }

    /// The examples of EIP-55, "Test Cases".
    #[test]
    fn addresses_are_written_with_their_checksum() {
        for text in [
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
            "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        ] {
            let lower = Address::parse(&text.to_ascii_lowercase());
            assert_eq!(lower.map(|a| a.to_string()).as_deref(), Some(text));
            assert_eq!(lower, Address::parse(text));
        }
    }
}
