//! Cloudflare D1: templates and their creators, contracts, and the ledger of runs. `schema.sql` has the tables.

pub(crate) mod contracts;
pub(crate) mod ledger;
pub(crate) mod templates;
