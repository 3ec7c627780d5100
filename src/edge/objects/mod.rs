//! Durable Objects seen from outside (the stubs), and the storage that an object has of its own.

pub(crate) mod payers;
pub(crate) mod run_store;
pub(crate) mod runs;
