//! Worker agents: the key a creator signs contracts with, sealed in KV, and in D1 whose it is.

use crate::edge::vault::{Vault, VaultError};
use crate::edge::{clock, fault};
use crate::rules::hire::capability::agent_id;
use crate::rules::refusal::Refusal;
use crate::rules::template::Secret;
use crate::wire::eip191::Signer;
use crate::wire::evm::Address;
use serde::{Deserialize, Serialize};
use worker::Env;

/// What KV holds under `signing-key/{creator}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SigningRecord {
    /// The vault's envelope.
    envelope: String,
    /// The key's address.
    wallet: Address,
    /// Unix milliseconds.
    updated_at: u64,
}

/// The agent of a creator who can be hired.
#[derive(Deserialize)]
pub(crate) struct AgentRow {
    /// `agent_…`.
    pub(crate) agent_id: String,
    /// The address of its key.
    pub(crate) wallet: Address,
}

/// KV's name, and the envelope's owner: a Claude key's envelope does not open as this.
fn name(creator_id: &str) -> String {
    format!("signing-key/{creator_id}")
}

/// The creator's agent, if there is one.
pub(crate) async fn find(env: &Env, creator_id: &str) -> Result<Option<AgentRow>, Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let query = db
        .prepare("SELECT agent_id, wallet FROM agents WHERE creator_id = ?1 AND active = 1")
        .bind(&[creator_id.into()]);
    query.map_err(fault("agent"))?.first(None).await.map_err(fault("agent"))
}

/// Stores the creator's signing key: from now on they can be hired, and are paid at its address. `None`: it is no
/// key.
pub(crate) async fn store(env: &Env, creator_id: &str, key: &Secret) -> Result<Option<Address>, Refusal> {
    let Some(signer) = Signer::read(key.reveal()) else {
        return Ok(None);
    };
    let (wallet, updated_at) = (signer.address(), clock::now());
    let vault = Vault::new(env).map_err(fault("vault"))?;
    let envelope = vault.seal(&name(creator_id), key.reveal().as_bytes()).await.map_err(fault("vault"))?;
    let json = serde_json::to_string(&SigningRecord { envelope, wallet, updated_at }).map_err(fault("signing key"))?;
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let upsert = "INSERT INTO agents (creator_id, agent_id, wallet)
                  SELECT id, ?2, ?3 FROM creators WHERE id = ?1 AND deleted_at IS NULL
                  ON CONFLICT (creator_id) DO UPDATE SET wallet = excluded.wallet, active = 1 RETURNING agent_id";
    let values = [creator_id.into(), agent_id(creator_id).into(), wallet.to_string().into()];
    let query = db.prepare(upsert).bind(&values).map_err(fault("agent"))?;
    let agent = query.first::<String>(Some("agent_id")).await.map_err(fault("agent"))?;
    // A token of nobody who creates anything here.
    agent.ok_or(Refusal::NotFound)?;
    let kv = env.kv("KV").map_err(fault("KV binding"))?;
    let put = kv.put(&name(creator_id), json).map_err(fault("signing key"))?;
    put.execute().await.map_err(fault("signing key"))?;
    Ok(Some(wallet))
}

/// Forgets the key: no new contract is signed. Those that are registered stay good.
pub(crate) async fn delete(env: &Env, creator_id: &str) -> Result<(), Refusal> {
    let kv = env.kv("KV").map_err(fault("KV binding"))?;
    kv.delete(&name(creator_id)).await.map_err(fault("signing key"))?;
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let query = db.prepare("UPDATE agents SET active = 0 WHERE creator_id = ?1").bind(&[creator_id.into()]);
    query.map_err(fault("agent"))?.run().await.map_err(fault("agent")).map(drop)
}

/// Signs a contract's hash for the creator, with the key of `wallet`. The key is in clear here and nowhere else.
pub(crate) async fn sign(env: &Env, creator_id: &str, wallet: Address, hash: &str) -> Result<String, Refusal> {
    let kv = env.kv("KV").map_err(fault("KV binding"))?;
    let record: Option<SigningRecord> = kv.get(&name(creator_id)).json().await.map_err(fault("signing key"))?;
    // KV may be a minute behind: a key of another address signs nothing for this one.
    let record = record.filter(|record| record.wallet == wallet).ok_or(Refusal::SigningKeyMissing)?;
    let vault = Vault::new(env).map_err(fault("vault"))?;
    let plain = vault.open(&name(creator_id), &record.envelope).await.map_err(fault("vault"))?;
    let signer = String::from_utf8(plain).ok().and_then(|text| Signer::read(&text));
    let signer = signer.filter(|signer| signer.address() == wallet);
    let signature = signer.and_then(|signer| signer.sign(hash)).ok_or(VaultError::Malformed);
    signature.map_err(fault("signing key"))
}
