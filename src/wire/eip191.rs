//! Messages that a wallet signs (EIP-191, version `0x45`: "personal_sign").

use crate::wire::evm::{address_of, keccak, recover, Address};
use k256::ecdsa::SigningKey;
use std::fmt;

/// The key of a wallet. It is secret, so it has no `Display`, and `Debug` shows its address only.
pub struct Signer {
    key: SigningKey,
    address: Address,
}

impl Signer {
    /// Reads 32 bytes in hex, with or without `0x`. `None`: they are no key of secp256k1.
    pub fn read(text: &str) -> Option<Self> {
        let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text)).ok().filter(|bytes| bytes.len() == 32)?;
        let key = SigningKey::from_slice(&bytes).ok()?;
        let address = address_of(key.verifying_key())?;
        Some(Self { key, address })
    }

    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs a text as wallets do: 65 bytes in lower-case hex, with `v` 27 or 28. The same text always has the same
    /// signature (RFC 6979).
    pub fn sign(&self, text: &str) -> Option<String> {
        let (signature, id) = self.key.sign_prehash_recoverable(&digest(text)).ok()?;
        Some(format!("0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + id.to_byte()))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<key of {}>", self.address)
    }
}

/// Whether `signer` has signed `text`. Only the spelling that wallets write is valid: lower-case hex, a low `s`, and
/// `v` 27 or 28.
pub fn is_signed(text: &str, signature: &str, signer: Address) -> bool {
    let bytes = signature.strip_prefix("0x").filter(|hex| !hex.bytes().any(|b| b.is_ascii_uppercase()));
    let bytes = bytes.and_then(|hex| hex::decode(hex).ok()).and_then(|bytes| <[u8; 65]>::try_from(bytes).ok());
    bytes.is_some_and(|bytes| matches!(bytes, [.., 27 | 28]) && recover(&digest(text), &bytes) == Some(signer))
}

fn digest(text: &str) -> [u8; 32] {
    let head = format!("\u{19}Ethereum Signed Message:\n{}", text.len());
    keccak(&[head.as_bytes(), text.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with viem's `signMessage`: account 0 of the well-known test mnemonic.
    const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    const ADDRESS: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

    const VIEM_HELLO: &str = "0xf16ea9a3478698f695fd1401bfe27e9e4a7e8e3da94aa72b021125e31fa899cc\
                              573c48ea3fe1d4ab61a9db10c19032026e3ed2dbccba5a178235ac27f94504311c";

    #[test]
    fn signs_as_a_wallet_does() {
        let signer = Signer::read(KEY).unwrap();
        assert_eq!(signer.address().to_string(), ADDRESS);
        assert_eq!(signer.sign("hello").unwrap(), VIEM_HELLO);
        assert!(is_signed("hello", VIEM_HELLO, signer.address()));
    }

    #[test]
    fn another_text_signer_or_spelling_is_refused() {
        let signer = Signer::read(KEY).unwrap();
        let other = Signer::read(&"11".repeat(32)).unwrap().address();
        let signature = signer.sign("hello").unwrap();
        assert!(!is_signed("hullo", &signature, signer.address()));
        assert!(!is_signed("hello", &signature, other));
        assert!(!is_signed("hello", &signature.to_uppercase(), signer.address()));
        assert!(!is_signed("hello", signature.trim_start_matches("0x"), signer.address()));
        for end in 0..=255u8 {
            let spelt = format!("{}{end:02x}", signature.get(..130).unwrap());
            assert_eq!(is_signed("hello", &spelt, signer.address()), spelt == signature, "{end}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "0x", &"0".repeat(64), &"f".repeat(64), &"1".repeat(63), &"g".repeat(64)] {
            assert!(Signer::read(text).is_none(), "{text}");
        }
        assert_eq!(format!("{:?}", Signer::read(KEY).unwrap()), format!("<key of {ADDRESS}>"));
    }
}
