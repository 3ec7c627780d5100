//! The ids of runs and tasks, and the names of the objects that they lead to.

use crate::wire::canonical::sha256_hex;

/// Before an object's name: it is a contract's, and not a payment's.
pub const OBJECT_PREFIX: &str = "hire_";

/// The id of a run: it leads to the object, and its second half, drawn at random, is known only to who was
/// told it. (The payment, and with it the object's name, is public once it is on the chain.)
pub fn run_id(object: &str, random: &str) -> String {
    format!("run_{object}_{random}")
}

/// The path at which the holder of a run's id sees the run.
pub fn run_path(run_id: &str) -> String {
    format!("/runs/{run_id}")
}

/// The object that an id leads to; `None` where it is no run's id.
pub fn object_of(run_id: &str) -> Option<&str> {
    let (object, random) = run_id.strip_prefix("run_")?.rsplit_once('_')?;
    let name = object.strip_prefix("test_").or_else(|| object.strip_prefix(OBJECT_PREFIX));
    (is_drawn(name.unwrap_or(object)) && is_drawn(random)).then_some(object)
}

/// Whether a text has the form of 128 bits, drawn or of a digest, as our ids have them.
pub fn is_drawn(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The object of a contract's runs.
pub fn object_of_contract(contract_id: &str) -> String {
    let digest = sha256_hex(format!("contract|{contract_id}").as_bytes());
    format!("{OBJECT_PREFIX}{}", digest.get(..32).unwrap_or_default())
}

/// A contract's task; `random` is drawn once, when the contract is registered.
pub fn task_id(contract_id: &str, random: &str) -> String {
    let object = object_of_contract(contract_id);
    format!("task_{}_{random}", object.strip_prefix(OBJECT_PREFIX).unwrap_or_default())
}

/// The object that a task's id leads to; `None` where it is none.
pub fn object_of_task(task_id: &str) -> Option<String> {
    let (object, random) = task_id.strip_prefix("task_")?.rsplit_once('_')?;
    (is_drawn(object) && is_drawn(random)).then(|| format!("{OBJECT_PREFIX}{object}"))
}
