//! Cloudflare D1: creators and their agents, templates, contracts, and the ledger of runs. `schema.sql` has the tables.

pub(crate) mod agents;
pub(crate) mod capabilities;
pub(crate) mod contracts;
pub(crate) mod ledger;
pub(crate) mod templates;
