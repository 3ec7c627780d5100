//! Creators' Claude keys in KV: sealed by the vault with the creator's id as additional data.

use super::vault::{Vault, VaultError};
use super::{clock, fault};
use crate::rules::refusal::Refusal;
use crate::rules::template::Secret;
use crate::wire::canonical::sha256_hex;
use serde::{Deserialize, Serialize};
use worker::Env;

/// What KV holds under `claude-key/{creator}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecord {
    /// The vault's envelope.
    envelope: String,
    /// Tells keys apart without showing them: the first 12 hex digits of the key's SHA-256.
    pub fingerprint: String,
    /// Whether runs may use it.
    pub is_enabled: bool,
    /// Unix milliseconds.
    pub updated_at: u64,
}

fn name(creator_id: &str) -> String {
    format!("claude-key/{creator_id}")
}

/// The creator's record, if there is one.
pub async fn load(env: &Env, creator_id: &str) -> Result<Option<KeyRecord>, Refusal> {
    let kv = env.kv("KV").map_err(fault("KV binding"))?;
    kv.get(&name(creator_id)).json().await.map_err(fault("key record"))
}

/// Writes a record.
pub async fn store(env: &Env, creator_id: &str, record: &KeyRecord) -> Result<(), Refusal> {
    let kv = env.kv("KV").map_err(fault("KV binding"))?;
    let json = serde_json::to_string(record).map_err(fault("key record"))?;
    let put = kv.put(&name(creator_id), json).map_err(fault("key record"))?;
    put.execute().await.map_err(fault("key record"))
}

/// Deletes the creator's record.
pub async fn delete(env: &Env, creator_id: &str) -> Result<(), Refusal> {
    let kv = env.kv("KV").map_err(fault("KV binding"))?;
    kv.delete(&name(creator_id)).await.map_err(fault("key record"))
}

impl KeyRecord {
    /// Seals a key for its creator.
    pub async fn seal(env: &Env, creator_id: &str, key: &Secret, is_enabled: bool) -> Result<Self, VaultError> {
        let digest = sha256_hex(key.reveal().as_bytes());
        Ok(Self {
            envelope: Vault::new(env)?.seal(creator_id, key.reveal().as_bytes()).await?,
            fingerprint: digest.get(..12).unwrap_or_default().to_owned(),
            is_enabled,
            updated_at: clock::now(),
        })
    }

    /// Whether this deployment holds the master key that the record was sealed with: known before any
    /// payment is asked for.
    pub fn can_be_opened(&self, env: &Env) -> Result<(), Refusal> {
        let vault = Vault::new(env).map_err(fault("vault"))?;
        if vault.holds_key_of(&self.envelope) {
            return Ok(());
        }
        worker::console_error!("fault: vault: {}", VaultError::UnknownKey);
        Err(Refusal::KeyMissing)
    }

    /// Opens the key. The one caller is `edge::claude`, which puts it into a header and forgets it.
    pub(super) async fn open(&self, env: &Env, creator_id: &str) -> Result<Secret, VaultError> {
        let plain = Vault::new(env)?.open(creator_id, &self.envelope).await?;
        let text = String::from_utf8(plain).map_err(|_| VaultError::Malformed)?;
        Ok(Secret::new(text))
    }
}
