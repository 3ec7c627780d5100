//! Creators' Claude keys in KV: sealed by the vault with the creator's id as additional data.

use crate::edge::vault::{Vault, VaultError};
use crate::edge::{clock, fault};
use crate::rules::refusal::Refusal;
use crate::rules::secret::Secret;
use crate::wire::canonical::sha256_hex;
use futures::future::try_join;
use serde::{Deserialize, Serialize};
use worker::Env;

/// What KV holds under `claude-key/{creator}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyRecord {
    /// The vault's envelope.
    envelope: String,
    /// Tells keys apart without showing them: the first 12 hex digits of the key's SHA-256.
    pub(crate) fingerprint: String,
    /// Whether runs may use it.
    pub(crate) is_enabled: bool,
    /// Unix milliseconds.
    pub(crate) updated_at: u64,
}

/// What KV holds under `claude-switch/{creator}`: a later word on whether the key may be used. It is apart
/// from the key, because KV may read a minute late: who switches must not write an old key back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Switch {
    is_enabled: bool,
    /// Unix milliseconds.
    updated_at: u64,
}

fn key_name(creator_id: &str) -> String {
    format!("claude-key/{creator_id}")
}

fn switch_name(creator_id: &str) -> String {
    format!("claude-switch/{creator_id}")
}

/// The creator's record, if there is one.
pub(crate) async fn load(env: &Env, creator_id: &str) -> Result<Option<KeyRecord>, Refusal> {
    let kv = env.kv("KV").map_err(fault("KV binding"))?;
    let (key_name, switch_name) = (key_name(creator_id), switch_name(creator_id));
    let (record, switch) =
        try_join(kv.get(&key_name).json(), kv.get(&switch_name).json()).await.map_err(fault("key record"))?;
    let (record, switch): (Option<KeyRecord>, Option<Switch>) = (record, switch);
    Ok(record.map(|record| match switch.filter(|s| s.updated_at > record.updated_at) {
        Some(Switch { is_enabled, updated_at }) => KeyRecord { is_enabled, updated_at, ..record },
        None => record,
    }))
}

/// Stores a key's record; what was said of the key before it counts no more.
pub(crate) async fn store(env: &Env, creator_id: &str, record: &KeyRecord) -> Result<(), Refusal> {
    put(env, &key_name(creator_id), record).await?;
    remove(env, &switch_name(creator_id)).await
}

/// Switches the stored key on or off from `now` (Unix milliseconds) on.
pub(crate) async fn switch(env: &Env, creator_id: &str, is_enabled: bool, now: u64) -> Result<(), Refusal> {
    put(env, &switch_name(creator_id), &Switch { is_enabled, updated_at: now }).await
}

/// Deletes what is stored for the creator.
pub(crate) async fn delete(env: &Env, creator_id: &str) -> Result<(), Refusal> {
    remove(env, &key_name(creator_id)).await?;
    remove(env, &switch_name(creator_id)).await
}

async fn remove(env: &Env, name: &str) -> Result<(), Refusal> {
    let kv = env.kv("KV").map_err(fault("KV binding"))?;
    kv.delete(name).await.map_err(fault("key record"))
}

async fn put(env: &Env, name: &str, value: &impl Serialize) -> Result<(), Refusal> {
    let kv = env.kv("KV").map_err(fault("KV binding"))?;
    let json = serde_json::to_string(value).map_err(fault("key record"))?;
    let put = kv.put(name, json).map_err(fault("key record"))?;
    put.execute().await.map_err(fault("key record"))
}

impl KeyRecord {
    /// Seals a key for its creator.
    pub(crate) async fn seal(env: &Env, creator_id: &str, key: &Secret, is_enabled: bool) -> Result<Self, VaultError> {
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
    pub(crate) fn can_be_opened(&self, env: &Env) -> Result<(), Refusal> {
        let vault = Vault::new(env).map_err(fault("vault"))?;
        if vault.holds_key_of(&self.envelope) {
            return Ok(());
        }
        worker::console_error!("fault: vault: {}", VaultError::UnknownKey);
        Err(Refusal::KeyMissing)
    }

    /// Opens the key. The one caller is `edge::claude`, which puts it into a header and forgets it.
    pub(in crate::edge) async fn open(&self, env: &Env, creator_id: &str) -> Result<Secret, VaultError> {
        let plain = Vault::new(env)?.open(creator_id, &self.envelope).await?;
        let text = String::from_utf8(plain).map_err(|_| VaultError::Malformed)?;
        Ok(Secret::new(text))
    }
}
