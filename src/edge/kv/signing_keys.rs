//! The keys with which creators sign contracts, in KV. The vault seals each for its creator.

use crate::edge::d1::agents;
use crate::edge::vault::{Vault, VaultError};
use crate::edge::{clock, fault};
use crate::rules::refusal::Refusal;
use crate::rules::secret::Secret;
use crate::wire::eip191::Signer;
use crate::wire::evm::Address;
use serde::{Deserialize, Serialize};
use worker::Env;

/// The value that KV holds under `signing-key/{creator}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SigningKeyRecord {
    /// The key, sealed by the vault.
    envelope: String,
    /// The address that belongs to the key.
    wallet: Address,
    /// The time in Unix milliseconds.
    updated_at: u64,
}

/// The name in KV. The vault also seals the key for this name, so that the envelope of a creator's Claude key does not
/// open as their signing key.
fn kv_name(creator_id: &str) -> String {
    format!("signing-key/{creator_id}")
}

/// Stores the creator's signing key: from then on they can be hired, and are paid at its address. `None`: the text is
/// no signing key.
pub(crate) async fn store(env: &Env, creator_id: &str, key: &Secret) -> Result<Option<Address>, Refusal> {
    let Some(signer) = Signer::read(key.reveal()) else {
        return Ok(None);
    };
    let (wallet, updated_at) = (signer.address(), clock::now());
    let vault = Vault::new(env).map_err(fault("vault"))?;
    let envelope = vault.seal(&kv_name(creator_id), key.reveal().as_bytes()).await.map_err(fault("vault"))?;
    let record = SigningKeyRecord { envelope, wallet, updated_at };
    let json = serde_json::to_string(&record).map_err(fault("signing key"))?;
    // First D1, which refuses whoever is no creator: nothing is kept of theirs.
    agents::activate(env, creator_id, wallet).await?;
    let kv = env.kv("KV").map_err(fault("KV binding"))?;
    let put = kv.put(&kv_name(creator_id), json).map_err(fault("signing key"))?;
    put.execute().await.map_err(fault("signing key"))?;
    Ok(Some(wallet))
}

/// Deletes the key, so that no new contract is signed.
pub(crate) async fn delete(env: &Env, creator_id: &str) -> Result<(), Refusal> {
    let kv = env.kv("KV").map_err(fault("KV binding"))?;
    kv.delete(&kv_name(creator_id)).await.map_err(fault("signing key"))?;
    agents::deactivate(env, creator_id).await
}

/// Signs a contract's hash for the creator with the key of `wallet`. Here alone the key is in clear.
pub(crate) async fn sign(env: &Env, creator_id: &str, wallet: Address, hash: &str) -> Result<String, Refusal> {
    let kv = env.kv("KV").map_err(fault("KV binding"))?;
    let record: Option<SigningKeyRecord> = kv.get(&kv_name(creator_id)).json().await.map_err(fault("signing key"))?;
    // KV may answer with a value that is a minute old. A key of another address must not sign for this one.
    let record = record.filter(|record| record.wallet == wallet).ok_or(Refusal::SigningKeyMissing)?;
    let vault = Vault::new(env).map_err(fault("vault"))?;
    let key = vault.open(&kv_name(creator_id), &record.envelope).await.map_err(fault("vault"))?;
    let signer = String::from_utf8(key).ok().and_then(|text| Signer::read(&text));
    let signer = signer.filter(|signer| signer.address() == wallet);
    let signature = signer.and_then(|signer| signer.sign(hash)).ok_or(VaultError::Malformed);
    signature.map_err(fault("signing key"))
}
