//! The Durable Objects' protocols (how they are called, and how they read a call), and a run object's storage.

pub(crate) mod payers;
pub(crate) mod run_store;
pub(crate) mod runs;
