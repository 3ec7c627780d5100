//! Encryption of what is stored: AES-256-GCM by WebCrypto. What is sealed for one owner (the additional data) opens for
//! no other, and only in a deployment that has the master key.
//!
//! The master keys are the Worker secret `VAULT_KEYS`: `id:base64,id:base64`, newest first. The first one seals and any
//! of them opens, so that keys can be rotated without rewriting what is stored.

use crate::wire::base64;
use hmac::{Hmac, Mac};
use js_sys::{Array, Object, Uint8Array};
use sha2::Sha256;
use std::cell::RefCell;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AesGcmParams, CryptoKey, SubtleCrypto, WorkerGlobalScope};
use worker::Env;

/// Why the vault could not seal or open. No message says anything about the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VaultError {
    #[error("VAULT_KEYS is missing or not id:base64(32 bytes),…")]
    NoKeys,
    #[error("the envelope is malformed")]
    Malformed,
    #[error("the envelope's master key is not in VAULT_KEYS")]
    UnknownKey,
    /// The envelope was changed, or was sealed for another owner.
    #[error("the envelope does not open")]
    DoesNotOpen,
    /// WebCrypto or the random source has failed.
    #[error("the runtime's cryptography failed")]
    Runtime,
}

/// The master keys of this deployment.
pub(crate) struct Vault {
    /// Ids and keys, newest first.
    keys: Vec<(String, Vec<u8>)>,
}

const VERSION: &str = "v1";

impl Vault {
    /// Reads the Worker secret `VAULT_KEYS`.
    pub(crate) fn new(env: &Env) -> Result<Self, VaultError> {
        let text = env.secret("VAULT_KEYS").map_err(|_| VaultError::NoKeys)?.to_string();
        let key = |entry: &str| {
            let (id, key) = entry.trim().split_once(':')?;
            let key = base64::decode(key).filter(|k| k.len() == 32)?;
            let is_id = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric());
            is_id.then(|| (id.to_owned(), key))
        };
        let keys = text.split(',').map(key).collect::<Option<Vec<_>>>();
        keys.filter(|k| !k.is_empty()).map(|keys| Self { keys }).ok_or(VaultError::NoKeys)
    }

    /// Seals `plain` for `owner`. The envelope is `v1.<key id>.<nonce>.<ciphertext and tag>`, in base64url.
    pub(crate) async fn seal(&self, owner: &str, plain: &[u8]) -> Result<String, VaultError> {
        let (id, key) = self.keys.first().ok_or(VaultError::NoKeys)?;
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).map_err(|_| VaultError::Runtime)?;
        let key = imported(id, key).await?;
        let work = subtle()?.encrypt_with_object_and_u8_array(&params(&nonce, owner), &key, plain);
        let sealed = finish(work).await.map_err(|_| VaultError::Runtime)?;
        let (nonce, sealed) = (base64::encode_url(&nonce), base64::encode_url(&sealed));
        Ok(format!("{VERSION}.{id}.{nonce}.{sealed}"))
    }

    /// Whether this deployment has the master key that the envelope was sealed with.
    pub(crate) fn holds_key_of(&self, envelope: &str) -> bool {
        let id = envelope.split('.').nth(1);
        self.keys.iter().any(|(known, _)| Some(known.as_str()) == id)
    }

    /// Signs a message that comes back to us, such as a link to a file.
    pub(crate) fn mac(&self, message: &str) -> Option<String> {
        let (_, key) = self.keys.first()?;
        Some(base64::encode_url(&keyed(key, message)?.finalize().into_bytes()))
    }

    /// Whether [`Self::mac`] has signed the message, with any of the keys.
    pub(crate) fn is_mac(&self, message: &str, mac: &str) -> bool {
        let Some(mac) = base64::decode_url(mac) else { return false };
        self.keys.iter().any(|(_, key)| keyed(key, message).is_some_and(|k| k.verify_slice(&mac).is_ok()))
    }

    /// Opens an envelope that was sealed for `owner`.
    pub(crate) async fn open(&self, owner: &str, envelope: &str) -> Result<Vec<u8>, VaultError> {
        let mut parts = envelope.split('.');
        let mut part = || parts.next().ok_or(VaultError::Malformed);
        let (version, id, nonce, sealed) = (part()?, part()?, part()?, part()?);
        if version != VERSION || parts.next().is_some() {
            return Err(VaultError::Malformed);
        }
        let nonce = base64::decode_url(nonce).filter(|n| n.len() == 12).ok_or(VaultError::Malformed)?;
        let sealed = base64::decode_url(sealed).ok_or(VaultError::Malformed)?;
        let key = self.keys.iter().find(|(known, _)| known == id);
        let (id, key) = key.ok_or(VaultError::UnknownKey)?;
        let key = imported(id, key).await?;
        let work = subtle()?.decrypt_with_object_and_u8_array(&params(&nonce, owner), &key, &sealed);
        finish(work).await.map_err(|_| VaultError::DoesNotOpen)
    }
}

/// The WebCrypto of the runtime.
pub(crate) fn subtle() -> Result<SubtleCrypto, VaultError> {
    let global: WorkerGlobalScope = js_sys::global().unchecked_into();
    global.crypto().map(|c| c.subtle()).map_err(|_| VaultError::Runtime)
}

/// The list of uses that WebCrypto asks for when a key is imported.
pub(crate) fn usages(names: &[&str]) -> JsValue {
    names.iter().map(|name| JsValue::from_str(name)).collect::<Array>().into()
}

/// HMAC-SHA-256 under a key that is derived from the master key for this use only.
fn keyed(key: &[u8], message: &str) -> Option<Hmac<Sha256>> {
    let mut derived = Hmac::<Sha256>::new_from_slice(key).ok()?;
    derived.update(b"coinslot links");
    let mut mac = Hmac::<Sha256>::new_from_slice(&derived.finalize().into_bytes()).ok()?;
    mac.update(message.as_bytes());
    Some(mac)
}

fn params(nonce: &[u8], owner: &str) -> AesGcmParams {
    let params = AesGcmParams::new_with_u8_array("AES-GCM", &Uint8Array::from(nonce));
    params.set_additional_data_u8_array(&Uint8Array::from(owner.as_bytes()));
    params
}

/// A master key as WebCrypto holds it, with its id and its bytes.
type Imported = (String, Vec<u8>, CryptoKey);

/// The most keys that are kept imported. A deployment has one, or a few while they are rotated.
const MAX_IMPORTED: usize = 8;

thread_local! {
    static IMPORTED: RefCell<Vec<Imported>> = const { RefCell::new(Vec::new()) };
}

/// The key for WebCrypto, which this isolate imports once.
async fn imported(id: &str, raw: &[u8]) -> Result<CryptoKey, VaultError> {
    let is_it = |(known_id, known, _): &Imported| known_id == id && known == raw;
    let known = IMPORTED.with_borrow(|keys| keys.iter().find(|key| is_it(key)).map(|(_, _, key)| key.clone()));
    if let Some(key) = known {
        return Ok(key);
    }
    let key = import(raw).await?;
    IMPORTED.with_borrow_mut(|keys| {
        if !keys.iter().any(is_it) {
            keys.truncate(MAX_IMPORTED - 1);
            keys.insert(0, (id.to_owned(), raw.to_vec(), key.clone()));
        }
    });
    Ok(key)
}

async fn import(raw: &[u8]) -> Result<CryptoKey, VaultError> {
    let data: Object = Uint8Array::from(raw).into();
    let uses = usages(&["encrypt", "decrypt"]);
    let work = subtle()?.import_key_with_str("raw", &data, "AES-GCM", false, &uses);
    let key = JsFuture::from(work.map_err(|_| VaultError::Runtime)?).await;
    key.map(JsCast::unchecked_into).map_err(|_| VaultError::Runtime)
}

async fn finish<P: Into<js_sys::Promise>>(work: Result<P, JsValue>) -> Result<Vec<u8>, JsValue> {
    let buffer = JsFuture::from(work?.into()).await?;
    Ok(Uint8Array::new(&buffer).to_vec())
}
