//! Deliverables in R2, and the signed links to them.

use super::fault;
use crate::edge::vault::Vault;
use crate::rules::file_link::{object_key, FileLink};
use crate::rules::hire::deliverables::Deliverable;
use crate::rules::refusal::Refusal;
use crate::rules::run::Millis;
use crate::wire::canonical::sha256_hex;
use std::collections::HashMap;
use worker::{Bucket, Env, HttpMetadata};

/// The name of the bucket's binding in `wrangler.toml`.
const BUCKET: &str = "FILES";
/// The name of the checksum in an object's metadata.
const CHECKSUM: &str = "checksum";

/// Whether this deployment can store files.
pub(crate) fn are_kept(env: &Env) -> bool {
    env.bucket(BUCKET).is_ok()
}

fn bucket(env: &Env) -> Result<Bucket, Refusal> {
    env.bucket(BUCKET).map_err(fault("FILES binding"))
}

/// Stores those of a run's items that are files.
pub(crate) async fn store(env: &Env, run_id: &str, items: &[Deliverable]) -> Result<(), Refusal> {
    if items.iter().all(|item| item.content.is_some()) {
        return Ok(());
    }
    let bucket = bucket(env)?;
    for (number, item) in items.iter().enumerate().filter(|(_, item)| item.content.is_none()) {
        let metadata = HttpMetadata { content_type: Some(item.mime.clone()), ..HttpMetadata::default() };
        let checksum = HashMap::from([(CHECKSUM.to_owned(), item.checksum())]);
        let put = bucket.put(object_key(run_id, number, &item.name), item.bytes.clone());
        let put = put.http_metadata(metadata).custom_metadata(checksum);
        put.execute().await.map_err(fault("file"))?;
    }
    Ok(())
}

/// Deletes the files of a run's items.
pub(crate) async fn delete(env: &Env, run_id: &str, items: &[Deliverable]) -> Result<(), Refusal> {
    let files = items.iter().enumerate().filter(|(_, item)| item.content.is_none());
    let keys: Vec<String> = files.map(|(number, item)| object_key(run_id, number, &item.name)).collect();
    match keys.is_empty() {
        true => Ok(()),
        false => bucket(env)?.delete_multiple(keys).await.map_err(fault("file")),
    }
}

/// The path and query of an item's link, which may be followed until `expires`.
pub(crate) fn link(vault: &Vault, run_id: &str, number: usize, item: &Deliverable, expires: Millis) -> String {
    let (key, expires) = (object_key(run_id, number, &item.name), (expires / 1000).to_string());
    let checksum = item.checksum().replace("sha256:", "");
    let link = FileLink { key: &key, expires: &expires, checksum: &checksum };
    let signature = vault.mac(&link.signed_text()).unwrap_or_default();
    link.path(&signature)
}

/// A file as it was stored.
pub(crate) struct StoredFile {
    pub(crate) bytes: Vec<u8>,
    /// The media type of the file.
    pub(crate) mime: String,
    /// The SHA-256 of the bytes, in hex.
    pub(crate) checksum: String,
}

/// Follows a link at `now` (Unix seconds), and checks that the file is the one whose checksum was signed.
pub(crate) async fn open(env: &Env, key: &str, query: &str, now: u64) -> Result<StoredFile, Refusal> {
    let (link, signature) = FileLink::read(key, query).ok_or(Refusal::LinkInvalid)?;
    let vault = Vault::new(env).map_err(fault("vault"))?;
    if !vault.is_mac(&link.signed_text(), signature) || !link.is_current(now) {
        return Err(Refusal::LinkInvalid);
    }
    let object = bucket(env)?.get(key).execute().await.map_err(fault("file"))?.ok_or(Refusal::NotFound)?;
    let mime = object.http_metadata().content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
    let body = object.body().ok_or(Refusal::NotFound)?;
    // An answer of Claude is small enough to be read whole and checked.
    let bytes = body.bytes().await.map_err(fault("file"))?;
    if sha256_hex(&bytes) != link.checksum {
        worker::console_error!("fault: file {key}: its checksum is not the signed one");
        return Err(Refusal::FileDamaged);
    }
    Ok(StoredFile { bytes, mime, checksum: link.checksum.to_owned() })
}
