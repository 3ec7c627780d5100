//! Deliverables in R2, and the links that lead to them: signed, and good for a day.

use super::fault;
use crate::edge::vault::Vault;
use crate::rules::hire::deliverables::Deliverable;
use crate::rules::refusal::Refusal;
use crate::rules::run::Millis;
use crate::wire::canonical::sha256_hex;
use std::collections::HashMap;
use worker::{Bucket, Env, HttpMetadata};

/// The binding of the bucket.
const BUCKET: &str = "FILES";
/// The item's checksum, in its metadata.
const CHECKSUM: &str = "checksum";

/// Whether this deployment can keep files.
pub(crate) fn are_kept(env: &Env) -> bool {
    env.bucket(BUCKET).is_ok()
}

fn bucket(env: &Env) -> Result<Bucket, Refusal> {
    env.bucket(BUCKET).map_err(fault("FILES binding"))
}

/// Where an item of a run is.
fn key(run_id: &str, number: usize, name: &str) -> String {
    format!("{run_id}/{number}/{name}")
}

/// Stores the files among a run's items.
pub(crate) async fn store(env: &Env, run_id: &str, items: &[Deliverable]) -> Result<(), Refusal> {
    if items.iter().all(|item| item.content.is_some()) {
        return Ok(());
    }
    let bucket = bucket(env)?;
    for (number, item) in items.iter().enumerate().filter(|(_, item)| item.content.is_none()) {
        let metadata = HttpMetadata { content_type: Some(item.mime.clone()), ..HttpMetadata::default() };
        let checksum = HashMap::from([(CHECKSUM.to_owned(), item.checksum())]);
        let put = bucket.put(key(run_id, number, &item.name), item.bytes.clone());
        let put = put.http_metadata(metadata).custom_metadata(checksum);
        put.execute().await.map_err(fault("file"))?;
    }
    Ok(())
}

/// Deletes the files of a run's items.
pub(crate) async fn delete(env: &Env, run_id: &str, items: &[Deliverable]) -> Result<(), Refusal> {
    let files = items.iter().enumerate().filter(|(_, item)| item.content.is_none());
    let keys: Vec<String> = files.map(|(number, item)| key(run_id, number, &item.name)).collect();
    match keys.is_empty() {
        true => Ok(()),
        false => bucket(env)?.delete_multiple(keys).await.map_err(fault("file")),
    }
}

/// What a link is signed over.
fn signed(key: &str, expires: &str, checksum: &str) -> String {
    format!("file\n{key}\n{expires}\n{checksum}")
}

/// The path and query of an item's link, good until `expires`.
pub(crate) fn link(vault: &Vault, run_id: &str, number: usize, item: &Deliverable, expires: Millis) -> String {
    let (key, expires) = (key(run_id, number, &item.name), (expires / 1000).to_string());
    let checksum = item.checksum().replace("sha256:", "");
    let mac = vault.mac(&signed(&key, &expires, &checksum)).unwrap_or_default();
    format!("/files/{key}?expires={expires}&sha256={checksum}&signature={mac}")
}

/// A stored file.
pub(crate) struct Stored {
    /// All of it.
    pub(crate) bytes: Vec<u8>,
    /// Media type.
    pub(crate) mime: String,
    /// SHA-256 in hex.
    pub(crate) checksum: String,
}

/// Follows a link at `now` (Unix seconds). What is there must be what was signed.
pub(crate) async fn open(env: &Env, key: &str, query: &str, now: u64) -> Result<Stored, Refusal> {
    let value = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.ok_or(Refusal::LinkInvalid)
    };
    let (expires, checksum) = (value("expires")?, value("sha256")?);
    let vault = Vault::new(env).map_err(fault("vault"))?;
    let good = vault.is_mac(&signed(key, expires, checksum), value("signature")?);
    let until: u64 = expires.parse().map_err(|_| Refusal::LinkInvalid)?;
    if !good || until <= now {
        return Err(Refusal::LinkInvalid);
    }
    let object = bucket(env)?.get(key).execute().await.map_err(fault("file"))?.ok_or(Refusal::NotFound)?;
    let mime = object.http_metadata().content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
    let body = object.body().ok_or(Refusal::NotFound)?;
    // An answer of Claude's is never so large that it could not be looked at once more.
    let bytes = body.bytes().await.map_err(fault("file"))?;
    if sha256_hex(&bytes) != checksum {
        worker::console_error!("fault: file {key}: not what was delivered");
        return Err(Refusal::FileDamaged);
    }
    Ok(Stored { bytes, mime, checksum: checksum.to_owned() })
}
