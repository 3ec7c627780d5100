//! The ids of runs and tasks, and the names of the objects that they lead to.

use crate::wire::canonical::sha256_hex;

/// The prefix in the name of an object that keeps a contract's runs. Other objects are named by a payment, or drawn for
/// an owner's test.
pub const OBJECT_PREFIX: &str = "hire_";

/// The id of a run. It names the object, and its second half is drawn at random: the payment is public once it is on
/// the chain, and with it the object's name.
pub fn run_id(object: &str, random: &str) -> String {
    format!("run_{object}_{random}")
}

/// The path at which the holder of a run's id sees the run.
pub fn run_path(run_id: &str) -> String {
    format!("/runs/{run_id}")
}

/// The object that keeps a run; `None` where the text is no run's id.
pub fn object_of(run_id: &str) -> Option<&str> {
    let (object, random) = run_id.strip_prefix("run_")?.rsplit_once('_')?;
    let name = object.strip_prefix("test_").or_else(|| object.strip_prefix(OBJECT_PREFIX));
    (is_hex_128(name.unwrap_or(object)) && is_hex_128(random)).then_some(object)
}

/// Whether a text is 128 bits in lower-case hex: every part of our ids is.
pub fn is_hex_128(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The object that keeps a contract's runs.
pub fn object_of_contract(contract_id: &str) -> String {
    let digest = sha256_hex(format!("contract|{contract_id}").as_bytes());
    format!("{OBJECT_PREFIX}{}", digest.get(..32).unwrap_or_default())
}

/// The id of a contract's task. `random` is drawn when the contract is registered.
pub fn task_id(contract_id: &str, random: &str) -> String {
    let object = object_of_contract(contract_id);
    format!("task_{}_{random}", object.strip_prefix(OBJECT_PREFIX).unwrap_or_default())
}

/// The object that keeps a task's runs; `None` where the text is no task's id.
pub fn object_of_task(task_id: &str) -> Option<String> {
    let (object, random) = task_id.strip_prefix("task_")?.rsplit_once('_')?;
    (is_hex_128(object) && is_hex_128(random)).then(|| format!("{OBJECT_PREFIX}{object}"))
}
