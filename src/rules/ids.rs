//! The ids of runs and tasks, and the names of the objects that they lead to.

use crate::wire::canonical::sha256_hex;
use crate::wire::evm::Address;

/// The name of a wallet's object: a digest of the network's namespace (CAIP-2) and the address. Ids of runs contain it
/// and are passed on, so that it must not show whose wallet it is.
pub fn wallet_object(network: &str, wallet: Address) -> String {
    let namespace = network.split(':').next().unwrap_or_default();
    object_name(&format!("wallet|{namespace}|{wallet}"))
}

/// The name of the object that keeps a creator's own tests.
pub fn owner_object(creator_id: &str) -> String {
    object_name(&format!("owner|{creator_id}"))
}

fn object_name(of: &str) -> String {
    sha256_hex(of.as_bytes()).get(..32).unwrap_or_default().to_owned()
}

/// The id of a run: the object's name, the run's number there, and 96 bits of `random`, which is 128 bits in hex. The
/// object's name and the number can be guessed, and whoever has the id may look at the run.
pub fn run_id(object: &str, number: u64, random: &str) -> String {
    format!("run_{object}_{number:08x}{}", random.get(..24).unwrap_or_default())
}

/// The run's id in the ledger. Creators read the ledger, and a run's id opens the caller's answer, so the ledger has the
/// id's digest alone: SHA-256 in hex, which whoever has the id can compute.
pub fn ledger_id(run_id: &str) -> String {
    sha256_hex(run_id.as_bytes())
}

/// The path at which the holder of a run's id sees the run.
pub fn run_path(run_id: &str) -> String {
    format!("/runs/{run_id}")
}

/// The object that keeps a run; `None` where the text is no run's id.
pub fn object_of(run_id: &str) -> Option<&str> {
    parts(run_id, "run_").map(|(object, _)| object)
}

/// The run's number in its object.
pub fn run_number(run_id: &str) -> Option<u64> {
    let (_, rest) = parts(run_id, "run_")?;
    u64::from_str_radix(rest.get(..8)?, 16).ok()
}

/// The id of a contract's task. `object` is the seeker's, and `random` is drawn when the contract is registered.
pub fn task_id(object: &str, random: &str) -> String {
    format!("task_{object}_{random}")
}

/// The object that keeps a task's runs; `None` where the text is no task's id.
pub fn object_of_task(task_id: &str) -> Option<&str> {
    parts(task_id, "task_").map(|(object, _)| object)
}

fn parts<'a>(id: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let (object, rest) = id.strip_prefix(prefix)?.split_once('_')?;
    (is_hex_128(object) && is_hex_128(rest)).then_some((object, rest))
}

/// Whether a text is 128 bits in lower-case hex: every part of our ids is.
pub fn is_hex_128(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
