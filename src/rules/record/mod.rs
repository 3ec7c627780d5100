//! What is kept of a run: what it is about, its text and how that is read, and its row in the ledger.

pub mod events;
pub mod ledger_row;
pub mod receipt;
pub mod replay;
pub mod run_record;
pub mod run_request;
pub mod transcript;
