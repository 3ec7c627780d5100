//! Creators' Claude keys in KV. The vault seals each with the creator's id as additional data.

use crate::edge::cache::Cache;
use crate::edge::vault::{Vault, VaultError};
use crate::edge::{cache, clock, fault};
use crate::rules::refusal::Refusal;
use crate::rules::run::Millis;
use crate::rules::secret::Secret;
use crate::wire::canonical::sha256_hex;
use futures::future::try_join;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::rc::Rc;
use worker::Env;

/// The value that KV holds under `claude-key/{creator}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyRecord {
    /// The key, sealed by the vault.
    envelope: String,
    /// Identifies a key without showing it: the first 12 hex digits of its SHA-256.
    pub(crate) fingerprint: String,
    /// Whether runs may use it.
    pub(crate) is_enabled: bool,
    /// The time in Unix milliseconds.
    pub(crate) updated_at: u64,
}

/// The value that KV holds under `claude-switch/{creator}`: whether the key may be used, if that was changed later. It
/// is not part of the key's record, because KV may answer with a record that is a minute old, and writing that back
/// with another switch would bring an old key back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Switch {
    is_enabled: bool,
    /// The time in Unix milliseconds.
    updated_at: u64,
}

fn key_name(creator_id: &str) -> String {
    format!("claude-key/{creator_id}")
}

fn switch_name(creator_id: &str) -> String {
    format!("claude-switch/{creator_id}")
}

thread_local! {
    static RECORDS: Cache<KeyRecord> = const { Cache::new(|record| record.envelope.len()) };
}

/// As [`load`], for runs: the record as this isolate has read it, less than `fresh` milliseconds ago.
pub(crate) async fn recent(env: &Env, creator_id: &str, fresh: Millis) -> Result<Option<Rc<KeyRecord>>, Refusal> {
    cache::recent(&RECORDS, creator_id, fresh, load(env, creator_id)).await
}

/// The creator's key, if one is stored.
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

/// Stores a key's record. A switch of the key before it no longer counts.
pub(crate) async fn store(env: &Env, creator_id: &str, record: &KeyRecord) -> Result<(), Refusal> {
    let stored = async {
        put(env, &key_name(creator_id), record).await?;
        remove(env, &switch_name(creator_id)).await
    };
    forgetting(creator_id, stored).await
}

/// Switches the stored key on or off from `now` (Unix milliseconds) on.
pub(crate) async fn switch(env: &Env, creator_id: &str, is_enabled: bool, now: u64) -> Result<(), Refusal> {
    let switch = Switch { is_enabled, updated_at: now };
    forgetting(creator_id, put(env, &switch_name(creator_id), &switch)).await
}

/// Deletes the creator's key.
pub(crate) async fn delete(env: &Env, creator_id: &str) -> Result<(), Refusal> {
    let deleted = async {
        remove(env, &key_name(creator_id)).await?;
        remove(env, &switch_name(creator_id)).await
    };
    forgetting(creator_id, deleted).await
}

/// Makes a change, after which this isolate reads the record anew, also where only a part of the change has succeeded.
async fn forgetting<T>(creator_id: &str, change: impl Future<Output = T>) -> T {
    let result = change.await;
    RECORDS.with(|records| records.forget(creator_id));
    result
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
    /// Seals a key for its creator, and makes its record.
    pub(crate) async fn seal(env: &Env, creator_id: &str, key: &Secret, is_enabled: bool) -> Result<Self, VaultError> {
        let digest = sha256_hex(key.reveal().as_bytes());
        Ok(Self {
            envelope: Vault::new(env)?.seal(creator_id, key.reveal().as_bytes()).await?,
            fingerprint: digest.get(..12).unwrap_or_default().to_owned(),
            is_enabled,
            updated_at: clock::now(),
        })
    }

    /// Whether this deployment has the master key that the record was sealed with. It is checked before a payment is
    /// asked for.
    pub(crate) fn can_be_opened(&self, env: &Env) -> Result<(), Refusal> {
        let vault = Vault::new(env).map_err(fault("vault"))?;
        if vault.holds_key_of(&self.envelope) {
            return Ok(());
        }
        worker::console_error!("fault: vault: {}", VaultError::UnknownKey);
        Err(Refusal::KeyMissing)
    }

    /// Opens the key. The only caller is `edge::http::claude`, which puts it into a header and drops it.
    pub(in crate::edge) async fn open(&self, env: &Env, creator_id: &str) -> Result<Secret, VaultError> {
        let plain = Vault::new(env)?.open(creator_id, &self.envelope).await?;
        let text = String::from_utf8(plain).map_err(|_| VaultError::Malformed)?;
        Ok(Secret::new(text))
    }
}
